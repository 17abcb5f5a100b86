"""A shop for uvicorn, bare ASGI: echoes, takes bodies, streams, sends events, speaks WebSocket."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from waitroom.shop import ASGIMiddleware

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

go_on = asyncio.Event()
gone: list[str] = []


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Everything."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _chat(scope, receive, send)
    else:
        pages = {"/stream": _stream, "/events": _events, "/next": _next, "/endless": _endless}
        await pages.get(scope["path"], _echo)(scope, receive, send)


def guarded() -> ASGIMiddleware:
    """The shop behind the middleware."""
    return ASGIMiddleware(app, room="uvicorn", secrets=[os.environ["SHOP_SECRET"]], leave_alone=["/open"])


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _echo(scope: Message, receive: Receive, send: Send) -> None:
    digest, size, pieces = hashlib.sha256(), 0, 0
    more = True
    while more:
        message = await receive()
        body = message.get("body", b"")
        digest.update(body)
        size += len(body)
        pieces += bool(body)
        more = message.get("more_body", False)
    seen = {
        "method": scope["method"],
        "target": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "size": size,
        "sha256": digest.hexdigest(),
        "gone": gone,
    }
    cookies = [(b"set-cookie", b"same=%d; Path=/%d" % (number, number)) for number in range(3)]
    await _answer(send, json.dumps(seen).encode(), b"application/json", cookies)


async def _answer(send: Send, body: bytes, kind: bytes, more: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *(more or [])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(scope: Message, receive: Receive, send: Send) -> None:
    """A thousand pieces without a length: uvicorn sends chunks."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for number in range(1000):
        await send({"type": "http.response.body", "body": b"%04d\n" % number * 50, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _events(scope: Message, receive: Receive, send: Send) -> None:
    """Sends each event only when it was asked for the next one."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(3):
        go_on.clear()
        await send({"type": "http.response.body", "body": b"id: %d\ndata: x\n\n" % number, "more_body": True})
        await go_on.wait()
    await send({"type": "http.response.body", "body": b""})


async def _next(scope: Message, receive: Receive, send: Send) -> None:
    go_on.set()
    await _answer(send, b"", b"text/plain")


async def _endless(scope: Message, receive: Receive, send: Send) -> None:
    """Begins, and goes on until the client has gone."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.append(scope["query_string"].decode())


async def _chat(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    if scope["path"] == "/closed":
        await send({"type": "websocket.close", "code": 1008})
        return
    wanted = [name for name in scope["subprotocols"] if name == "chat.v2"]
    headers = [(b"x-extensions", value) for name, value in scope["headers"] if name == b"sec-websocket-extensions"]
    await send({"type": "websocket.accept", "subprotocol": wanted[0] if wanted else None, "headers": headers})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "as you like"})
            return
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})
