"""A forward proxy that signs every request, in rooms; a room imports only what stands above it here.

config    read and watch what users write; say what is wrong with it
conduct   HTTP by the RFCs, as functions on values: heads, fields, hosts, destinations; the verdict's types
stores    what machines share: Redis
tokens    keys, claims, signing                                                              (config)
observe   what the proxy tells of itself: pages, counters, redaction                         (config, conduct, stores)
policy    settings and rules in, a verdict out                                               (config, conduct, tokens)
mitm      mitmproxy as we need it; `patches` is the one place that bends it                  (config, conduct, observe)
addons    mitmproxy's doors, `mitmdump -s`: hooks only            (config, conduct, tokens, observe, policy, mitm)
lane      a short way past mitmproxy for plain requests                           (config, conduct, observe, mitm)
launcher  jwtproxy-run: commands, processes, addons of its own, help                         (all)

Of these only mitm, lane, addons and launcher know mitmproxy. `addons` and `launcher` are folders of their own.
A request's way: a hook in addons hands the flow to `mitm.gate`, which makes a `conduct.request.RequestHead` of it, asks
`policy.judge.Policy.verdict` (which asks conduct and tokens), and does as it is told; `mitm.stream` asks the gate once
more just before the request leaves.
"""

__version__ = "0.1.0"
