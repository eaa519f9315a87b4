"""What machines share: totals, in Redis."""
