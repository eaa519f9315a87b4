"""Benchmarks and the soak: `make bench`, `make soak`. Real processes on loopback, and what the kernel says of them."""
