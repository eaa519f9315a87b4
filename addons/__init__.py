"""The addons that mitmproxy loads, each usable alone with `mitmdump -s`."""
