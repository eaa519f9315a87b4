"""The fast lane: boring HTTP/1.1 requests, carried without mitmproxy's layers but with its flows and all hooks."""
