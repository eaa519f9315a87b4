"""What clients of the proxy need to find it and to trust it."""
