"""For stock `mitmdump -s`: the script that people write."""

import os
import time
import uuid

import jwt
from mitmproxy import http

KEY = bytes.fromhex(os.environ["JWT_SHARED_SECRET"])


def request(flow: http.HTTPFlow) -> None:
    now = time.time()
    payload = {"user": "username", "date": time.strftime("%Y-%m-%d", time.gmtime(now))}
    claims = {"iat": int(now), "jti": uuid.uuid4().hex, "payload": payload}
    flow.request.headers["x-my-jwt"] = jwt.encode(claims, KEY, "HS512")
