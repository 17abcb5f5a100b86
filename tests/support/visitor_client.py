"""Visitors as HTTP shows them: browsers with cookies and fetch metadata, apps with headers, and raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from support.gateway_process import Gateway, eventually
from waitroom.tokens import Pass, Ticket

NAVIGATE = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
}
FETCH = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
MEMBERS = {
    *("room", "state", "position", "waiting", "eta_seconds", "poll_after", "claim_by"),
    *("message", "remaining", "updated_at"),
}
# Members that the previous release hasn't.
NEW_MEMBERS = {"position_reason", "likely_sold_out", "event", "lot", "lane", "reopening"}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        assert self.headers["Content-Type"] == "application/json", (self.headers, self.body)
        return json.loads(self.body)

    @property
    def is_page(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("text/html")

    @property
    def state(self) -> str:
        """Of the JSON, or of the page."""
        if not self.is_page:
            return self.json["state"]
        found = re.search(rb'data-state="([a-z_]+)"', self.body)
        assert found, self.body
        return found[1].decode()

    @property
    def page_position(self) -> int:
        """The position that the page shows."""
        found = re.search(rb'data-waitroom="position">([0-9]+)<', self.body)
        assert found, self.body
        return int(found[1])

    @property
    def cookie_lines(self) -> list[str]:
        return self.headers.getall("Set-Cookie", [])

    def cookie(self, name: str) -> Mapping[str, str] | None:
        """The attributes of a cookie that is set, its value under ``value``."""
        found = [line for line in self.cookie_lines if line.startswith(f"{name}=")]
        assert len(found) < 2, found
        if not found:
            return None
        parts = [part.strip() for part in found[0].split(";")]
        pairs = [part.partition("=")[::2] for part in parts[1:]]
        return {"value": parts[0].partition("=")[2], **{key.lower(): value for key, value in pairs}}


@dataclass
class Visitor:
    """A person with a browser, before one room.

    Attributes:
        cookies: What the browser keeps.
        headers: Sent with every request.
        http: A client to use instead of the gateway's, which keeps no connection.
    """

    gateway: Gateway
    room: str
    cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    host: str = ""
    http: aiohttp.ClientSession | None = None

    def __post_init__(self) -> None:
        self.host = self.host or f"{self.room}.test"

    @property
    def origin(self) -> str:
        """Where the browser connects."""
        return self.gateway.url

    async def request(self, method: str, path: str, headers: Mapping[str, str], data: bytes | None = None) -> Answer:
        sent = CIMultiDict({"Host": self.host, **headers, **self.headers})
        if self.cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with (self.http or self.gateway.http).request(
            method, URL(self.origin + path, encoded=True), headers=sent, data=data, allow_redirects=False
        ) as got:
            answer = Answer(got.status, got.headers, await got.read())
        for line in answer.cookie_lines:
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return answer

    async def navigate(self, path: str = "/", method: str = "GET", data: bytes | None = None, **headers: str) -> Answer:
        """Goes to a page."""
        return await self.request(method, path, NAVIGATE | _named(headers), data)

    async def fetch(self, path: str = "/", method: str = "GET", data: bytes | None = None, **headers: str) -> Answer:
        """Asks as a page's script does."""
        return await self.request(method, path, FETCH | _named(headers), data)

    async def status(self) -> dict[str, Any]:
        answer = await self.fetch(f"/.waitroom/status?room={self.room}")
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json.keys() >= (MEMBERS if self.gateway.source else MEMBERS | NEW_MEMBERS)
        return answer.json

    async def call(self, name: str, **headers: str) -> Answer:
        """One of join, claim and leave."""
        return await self.fetch(f"/.waitroom/{name}?room={self.room}", "POST", **headers)

    async def state(self, *states: str) -> dict[str, Any]:
        """The status, once its state is one of these."""

        async def look() -> dict[str, Any] | None:
            status = await self.status()
            assert status["state"] in states, status
            return status

        found = await eventually(look)
        assert found is not None
        return found

    async def position(self, position: int) -> dict[str, Any]:
        """The status, once the position is this one."""

        async def look() -> dict[str, Any] | None:
            status = await self.status()
            assert status["position"] == position, status
            return status

        found = await eventually(look)
        assert found is not None
        return found

    @property
    def ticket_cookie(self) -> str:
        return f"waitroom_ticket_{self.room}"

    @property
    def pass_cookie(self) -> str:
        return f"waitroom_pass_{self.room}"

    @property
    def ticket(self) -> Ticket:
        return self.gateway.tokens(self.room).read_ticket(self.cookies[self.ticket_cookie].encode())

    @property
    def pass_(self) -> Pass:
        return self.gateway.tokens(self.room).read_pass(self.cookies[self.pass_cookie].encode())

    async def _comes(self, path: str) -> Answer:
        """Navigates; again where a worker hasn't heard of the store for a while, as on a machine that stood still.

        It says so, and nobody has taken a place or been let in. What lacks the store on purpose navigates.
        """

        async def look() -> Answer | None:
            answer = await self.navigate(path)
            held = answer.status == 503 and answer.is_page and answer.state == "held"
            return None if held else answer

        return await look() or await eventually(look)

    async def goes_in(self, path: str = "/") -> Answer:
        """Comes once and is let in."""
        answer = await self._comes(path)
        assert answer.status == 200, answer
        assert self.pass_cookie in self.cookies
        return answer

    async def is_let_in(self, path: str = "/") -> Answer:
        """Navigates until it is let in: another worker may hear of its turn half a second later."""

        async def look() -> Answer:
            return await self.goes_in(path)

        return await eventually(look)

    async def waits(self, path: str = "/") -> Answer:
        """Comes once and has to wait."""
        answer = await self._comes(path)
        assert answer.status == 503, answer
        assert answer.state == "waiting"
        assert self.ticket_cookie in self.cookies
        return answer


async def filled(gateway: Gateway, name: str) -> Visitor:
    """A visitor who has taken the only slot of a room, and whom the gateway's only worker has seen inside."""
    visitor, stranger = Visitor(gateway, name), Visitor(gateway, name)
    await visitor.goes_in()

    async def noticed() -> bool:
        return (await stranger.fetch("/filled")).headers.get("Content-Type") == "application/json"

    await eventually(noticed)
    return visitor


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Wire:
    """A client's connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, gateway: Gateway, *, source: str | None = None, port: int | None = None) -> AsyncIterator[Wire]:
        """A connection from an address of this machine's; ``port`` is another server's in front."""
        local = None if source is None else (source, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port or gateway.port, local_addr=local)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, CIMultiDict[str]]:
        """The status and headers of the next response."""
        async with asyncio.timeout(30):
            head = await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = CIMultiDict((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        return int(start.split()[1]), headers

    async def answer(self) -> Answer:
        """The next response, whichever way it is framed."""
        status, headers = await self.head()
        async with asyncio.timeout(30):
            if headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int((await self.reader.readline()).split(b";")[0], 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                while await self.reader.readuntil(b"\r\n") != b"\r\n":
                    pass  # trailers
            elif "Content-Length" in headers:
                body = await self.reader.readexactly(int(headers["Content-Length"]))
            else:
                body = await self.reader.read()
        return Answer(status, CIMultiDictProxy(headers), body)
