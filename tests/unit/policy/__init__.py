"""Tests of unit/policy, in the shape of the source."""
