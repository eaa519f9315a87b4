"""Keys and claims in, signed tokens out."""
