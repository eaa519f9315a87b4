"""The tests of jwtproxy."""
