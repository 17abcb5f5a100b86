"""Servers and clients that others have written, on both sides of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp
import httpx
from yarl import URL

from support.gateway_process import eventually, needs
from support.nginx import nginx_command
from support.ports import port_is_free

UPSTREAMS = Path(__file__).with_name("upstreams")
NGINX = """
    types {{ text/html html; }}
    gzip on;
    gzip_min_length 1;
    gzip_proxied any;
    keepalive_requests 3;  # it hangs up behind every third answer
    server {{
        listen 127.0.0.1:{port};
        root {folder}/shop;
        absolute_redirect off;
        location /none {{ return 204; }}
        location /moved {{ return 301 /elsewhere; }}
        location /small {{ client_max_body_size 10; proxy_pass http://127.0.0.1:{port}/none; }}
    }}
"""


@contextlib.asynccontextmanager
async def running(command: Sequence[str], port: int, folder: Path, **environment: str) -> AsyncIterator[None]:
    """A server's program until the end of the block; ready when its port is taken."""
    os.makedirs(folder, exist_ok=True)
    assert port_is_free(port)
    log = folder / "server.log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | environment
        )
    try:
        await eventually(lambda: process.returncode is not None or not port_is_free(port))
        assert process.returncode is None, log.read_text()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            await process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


def uvicorn(port: int, folder: Path, secret: str = "") -> contextlib.AbstractAsyncContextManager[None]:
    """If there is a secret, only for requests with a proof for the room ``uvicorn``."""
    options = ("--port", str(port), "--app-dir", str(UPSTREAMS), "--log-level", "warning")
    app = ("--factory", "asgi:guarded") if secret else ("asgi:app",)
    return running((sys.executable, "-m", "uvicorn", *options, *app), port, folder / "uvicorn", SHOP_SECRET=secret)


def gunicorn(port: int, folder: Path, secret: str = "") -> contextlib.AbstractAsyncContextManager[None]:
    """With its default worker, that serves one request at a time and closes behind it.

    If there is a secret, only for requests with a proof for the room ``gunicorn``.
    """
    options = ("--bind", f"127.0.0.1:{port}", "--worker-class", "sync", "--workers", "2", "--chdir", str(UPSTREAMS))
    app = "wsgi:guarded()" if secret else "wsgi:app"
    command = (sys.executable, "-m", "gunicorn", *options, "--no-control-socket", app)
    return running(command, port, folder / "gunicorn", SHOP_SECRET=secret)


def nginx(port: int, folder: Path) -> contextlib.AbstractAsyncContextManager[None]:
    """With files; ``shop/page.html`` and ``shop/big.bin``."""
    home = folder / "nginx"
    os.makedirs(home / "shop" / "folder", exist_ok=True)
    (home / "shop" / "page.html").write_text("<p>The shop.</p>" * 100)
    (home / "shop" / "big.bin").write_bytes(bytes(range(256)) * 40_000)
    return running(nginx_command(home, NGINX.format(folder=home, port=port)), port, home)


@dataclass
class Got:
    """What a client has got: the header lines in their order, their names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Client(Protocol):
    """A program or library that asks. A list as the body is sent in chunks."""

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | list[bytes] | None = None
    ) -> Got:
        """One request."""


async def _pieces(body: list[bytes]) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece


class Aiohttp:
    """aiohttp."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | list[bytes] | None = None
    ) -> Got:
        data = _pieces(body) if isinstance(body, list) else body and io.BytesIO(body)
        exact = URL(url, encoded=True)
        async with self._http.request(method, exact, headers=headers, data=data, allow_redirects=False) as got:
            lines = [(name.lower(), value) for name, value in got.headers.items()]
            return Got(got.status, lines, await got.read())


class Httpx:
    """httpx."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | list[bytes] | None = None
    ) -> Got:
        data = _pieces(body) if isinstance(body, list) else body
        request = self._http.build_request(method, url, headers=dict(headers), content=data)
        got = await self._http.send(request, stream=True)
        try:
            raw = b"".join([piece async for piece in got.aiter_raw()])
        finally:
            await got.aclose()
        return Got(got.status_code, [(name.decode().lower(), value.decode()) for name, value in got.headers.raw], raw)


class Curl:
    """curl."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = needs("curl")

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | list[bytes] | None = None
    ) -> Got:
        head = self._folder / "head.txt"
        options = ["--silent", "--show-error", "--path-as-is", "--max-time", "60", "--dump-header", str(head)]
        options += ["--head"] if method == "HEAD" else ["--request", method]
        for name, value in headers.items():
            options += ["--header", f"{name}: {value}"]
        if body is not None:
            options += ["--data-binary", "@-"]
            if "Content-Type" not in headers:
                options += ["--header", "Content-Type:"]
        if isinstance(body, list):
            options += ["--header", "Transfer-Encoding: chunked"]
            body = b"".join(body)
        process = await asyncio.create_subprocess_exec(
            *(self._program, *options, url), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate(body)
        assert process.returncode == 0, process.returncode
        start, *lines = head.read_bytes().decode("latin-1").strip().split("\r\n\r\n")[-1].split("\r\n")
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Got(int(start.split()[1]), pairs, b"" if method == "HEAD" else out)


@contextlib.asynccontextmanager
async def clients(folder: Path) -> AsyncIterator[dict[str, Client]]:
    """All three, the libraries with connections that they keep."""
    async with (
        aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, skip_auto_headers=["Accept-Encoding"]
        ) as session,
        httpx.AsyncClient(timeout=30, trust_env=False) as http,
    ):
        del http.headers["Accept-Encoding"]
        yield {"curl": Curl(folder), "aiohttp": Aiohttp(session), "httpx": Httpx(http)}
