"""Settings and rules in, a verdict on each request out."""
