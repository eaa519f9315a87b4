"""Tests of launcher, in the shape of the source."""
