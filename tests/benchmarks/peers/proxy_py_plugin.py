"""For proxy.py: a plugin that signs, what is in tunnels too, as TLS interception is set up."""

import os
import time
import uuid

import jwt
from proxy.http.parser import HttpParser
from proxy.http.proxy import HttpProxyBasePlugin

KEY = bytes.fromhex(os.environ["JWT_SHARED_SECRET"])


class SignPlugin(HttpProxyBasePlugin):  # type: ignore[misc]  # untyped, and not installed for `make lint`
    """Attaches the token."""

    def handle_client_request(self, request: HttpParser) -> HttpParser:
        now = time.time()
        payload = {"user": "username", "date": time.strftime("%Y-%m-%d", time.gmtime(now))}
        claims = {"iat": int(now), "jti": uuid.uuid4().hex, "payload": payload}
        request.add_header(b"x-my-jwt", jwt.encode(claims, KEY, "HS512").encode())
        return request
