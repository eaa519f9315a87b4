"""mitmproxy as this proxy needs it."""
