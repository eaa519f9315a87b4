"""Faults under load: what the proxy stands on gives way, and it answers or refuses, signs, and recovers by itself."""
