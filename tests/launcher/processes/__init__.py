"""Tests of launcher/processes, in the shape of the source."""
