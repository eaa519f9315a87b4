"""Tests of unit/addons, in the shape of the source."""
