"""A shop for gunicorn: its forms need a length, a token and the right origin, as those of the big frameworks do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from waitroom.shop import WSGIMiddleware

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], object]
TOKEN = "a-token-that-only-the-form-knows"


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    """Everything."""
    pages = {"/form": _form, "/stream": _stream}
    return pages.get(environ["PATH_INFO"], _echo)(environ, start)


def guarded() -> WSGIMiddleware:
    """The shop behind the middleware."""
    return WSGIMiddleware(app, room="gunicorn", secrets=[os.environ["SHOP_SECRET"]], leave_alone=["/open"])


def _form(environ: Environ, start: Start) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "GET":
        page = f'<form method=post><input type=hidden name=csrf value="{TOKEN}"></form>'.encode()
        cookie = f"csrf={TOKEN}; Path=/; HttpOnly"
        start("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(page))), ("Set-Cookie", cookie)])
        return [page]
    if not environ.get("CONTENT_LENGTH"):
        return _refused(start, "411 Length Required")
    if environ.get("HTTP_ORIGIN") != f"http://{environ['HTTP_HOST']}":
        return _refused(start, "403 Forbidden")
    fields = parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode())
    if f"csrf={TOKEN}" not in environ.get("HTTP_COOKIE", "") or fields.get("csrf") != [TOKEN]:
        return _refused(start, "403 Forbidden")
    start("303 See Other", [("Location", "/thanks?for=" + fields["item"][0]), ("Content-Length", "0")])
    return []


def _refused(start: Start, status: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"no"]


def _echo(environ: Environ, start: Start) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    seen = {
        "method": environ["REQUEST_METHOD"],
        "target": environ["RAW_URI"].partition("?")[0],
        "query": environ["QUERY_STRING"],
        "headers": [
            [name.removeprefix("HTTP_").replace("_", "-").lower(), value]
            for name, value in environ.items()
            if name.startswith("HTTP_") or (name in ("CONTENT_LENGTH", "CONTENT_TYPE") and value)
        ],
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    answer = json.dumps(seen).encode()
    cookies = [("Set-Cookie", f"same={number}; Path=/{number}") for number in range(3)]
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer))), *cookies])
    return [answer]


def _stream(environ: Environ, start: Start) -> Iterable[bytes]:
    """A thousand pieces without a length."""
    start("200 OK", [("Content-Type", "text/plain")])
    return (b"%04d\n" % number * 50 for number in range(1000))
