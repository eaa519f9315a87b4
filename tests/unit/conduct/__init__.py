"""Tests of unit/conduct, in the shape of the source."""
