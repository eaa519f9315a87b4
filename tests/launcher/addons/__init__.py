"""Tests of launcher/addons, in the shape of the source."""
