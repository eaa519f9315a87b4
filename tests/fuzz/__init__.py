"""Fuzzing of what strangers, and owners in a hurry, may send: `make fuzz`."""
