"""mitmproxy addons that only jwtproxy-run has."""
