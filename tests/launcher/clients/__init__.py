"""Tests of launcher/commands, in the shape of the source."""
