"""Tests of unit/config, in the shape of the source."""
