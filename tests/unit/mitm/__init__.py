"""Tests of unit/mitm, in the shape of the source."""
