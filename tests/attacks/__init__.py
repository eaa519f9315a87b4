"""Attacks on a running proxy, and what they do to its memory and to an honest client beside them: `make attack`."""
