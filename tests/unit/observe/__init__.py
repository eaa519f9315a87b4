"""Tests of unit/observe, in the shape of the source."""
