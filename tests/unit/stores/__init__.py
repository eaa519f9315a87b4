"""Tests of unit/stores, in the shape of the source."""
