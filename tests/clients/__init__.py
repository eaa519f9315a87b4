"""Programs as people run them, untouched, started by `jwtproxy-run exec`: are all their requests signed?

`rows` says which, `stage` plays them in a network of their own, `report` makes the matrix of launcher/help/clients.md.
"""
