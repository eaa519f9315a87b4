"""For uvicorn: the forward proxy of Starlette and HTTPX that people write, with one client for all requests."""

import os
import time
import uuid

import httpx
import jwt
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KEY = bytes.fromhex(os.environ["JWT_SHARED_SECRET"])
HOP_BY_HOP = {"connection", "content-length", "keep-alive", "proxy-connection", "transfer-encoding"}
CLIENT = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        response = await forward(Request(scope, receive))
        await response(scope, receive, send)


async def forward(request: Request) -> Response:
    now = time.time()
    payload = {"user": "username", "date": time.strftime("%Y-%m-%d", time.gmtime(now))}
    claims = {"iat": int(now), "jti": uuid.uuid4().hex, "payload": payload}
    headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
    headers["x-my-jwt"] = jwt.encode(claims, KEY, "HS512")
    url = request.scope["raw_path"].decode()  # all of http://host/path: a proxy is asked for that
    answer = await CLIENT.request(request.method, url, headers=headers, content=await request.body())
    kept = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
    return Response(answer.content, answer.status_code, kept)
