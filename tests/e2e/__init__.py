"""End-to-end tests: a real proxy process, real clients, real upstreams, all on loopback."""
