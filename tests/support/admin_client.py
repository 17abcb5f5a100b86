"""An operator at the admin API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from support.gateway_process import Gateway


@dataclass(frozen=True)
class Told:
    """What the API answered."""

    status: int
    version: int | None
    kind: str
    body: Any


@dataclass
class Operator:
    """Somebody who looks after one room, and decides on what they saw last."""

    gateway: Gateway
    room: str
    seen: int = 0

    async def ask(self, method: str, path: str = "", body: object = None, **headers: str) -> Told:
        """Asks for something of the room; headers by names with ``_`` for ``-``."""
        url = f"{self.gateway.admin}/api/v1/rooms/{self.room}{path}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.gateway.http.request(method, url, json=body, headers=sent) as answer:
            text = await answer.text()
            assert answer.headers["Cache-Control"] == "no-store"
            etag = answer.headers.get("ETag")
            return Told(
                answer.status,
                None if etag is None else int(etag.strip('"')),
                answer.content_type,
                json.loads(text) if text else None,
            )

    async def look(self) -> dict[str, Any]:
        told = await self.ask("GET")
        assert told.status == 200
        assert told.version == told.body["version"]
        self.seen = told.version
        return told.body

    async def change(self, path: str = "", **body: object) -> Told:
        """Changes the room as it was seen last."""
        told = await self.ask("PATCH", path, body, If_Match=f'"{self.seen}"')
        if told.status == 200 and told.version is not None:
            self.seen = told.version
        return told

    async def undo(self) -> Told:
        told = await self.ask("POST", "/undo", {}, If_Match=f'"{self.seen}"')
        if told.version is not None and told.status == 200:
            self.seen = told.version
        return told

    async def admit(self, ticket: str, **more: object) -> Told:
        return await self.ask("POST", "/admit", {"ticket": ticket, **more})

    async def end_session(self, session: str) -> Told:
        return await self.ask("POST", "/end-session", {"session": session})

    async def audit(self, count: int = 100) -> list[dict[str, Any]]:
        """The newest entries of this room, newest first."""
        async with self.gateway.http.get(f"{self.gateway.admin}/api/v1/audit?count={count}") as answer:
            assert answer.status == 200
            entries = (await answer.json())["entries"]
        return [entry for entry in entries if entry["room"] == self.room]

    async def verdict(self) -> dict[str, Any]:
        async with self.gateway.http.get(f"{self.gateway.admin}/api/v1/audit/verify") as answer:
            assert answer.status == 200
            return await answer.json()
