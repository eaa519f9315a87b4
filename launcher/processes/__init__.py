"""Processes and the sockets they share."""
