"""What tests share and is no test itself: processes, upstreams, clients, verifiers, and starts that must fail."""
