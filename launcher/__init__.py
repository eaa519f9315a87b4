"""jwtproxy-run: command line to checked settings to mitmdump with our addons."""
