"""Tests of unit/tokens, in the shape of the source."""
