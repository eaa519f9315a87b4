"""Tests in the shape of the source: a folder for each room, a file for each module."""
