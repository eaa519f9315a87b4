"""What the proxy tells of itself, and what it keeps to itself."""
