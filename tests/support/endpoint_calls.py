"""Calls of the visitor endpoints, and what their answers say."""

from __future__ import annotations

import json
from typing import Any

from support.edge_world import World, get
from support.http_reader import Message

CALLS = {"status": b"GET", "join": b"POST", "claim": b"POST", "leave": b"POST", "wait": b"GET"}
MEMBERS = [
    *("room", "state", "position", "waiting", "eta_seconds", "poll_after", "claim_by"),
    *("position_reason", "likely_sold_out", "message", "remaining", "updated_at"),
    *("event", "lot", "lane", "reopening"),
]


def call(world: World, name: str, *lines: bytes, query: bytes = b"?room=shop", method: bytes | None = None) -> Message:
    """The answer; the shop never hears of any of this."""
    target = b"/.waitroom/%b%b" % (name.encode(), query)
    got = world.ask(get(target, *lines, method=method or CALLS.get(name, b"GET")))
    assert world.shop.attempts == 0
    return got


def told(got: Message, *more: str) -> dict[str, Any]:
    """The JSON, whose members are those of the contract."""
    assert got[b"Content-Type"] == b"application/json"
    assert got[b"Cache-Control"] == b"no-store"
    body: dict[str, Any] = json.loads(got.body)
    assert list(body) == [*MEMBERS, *more]
    assert type(body["poll_after"]) is int
    assert body["poll_after"] >= 1
    return body


def ticket(world: World, place: int = 120, **how: int) -> bytes:
    return b"Waitroom-Ticket: " + world.ticket(place, **how)


def inside(world: World, **how: int) -> bytes:
    return b"Waitroom-Pass: " + world.pass_(**how)


def cookie(got: Message, name: bytes) -> bytes | None:
    """The value of a cookie that is set; empty where it is deleted, None where it is left alone."""
    values = [value for value in got.all(b"Set-Cookie") if value.startswith(name + b"=")]
    if not values:
        return None
    (value,) = values
    value, *attributes = value.removeprefix(name + b"=").split(b"; ")
    assert (b"Max-Age=0" in attributes) is (value == b"")
    return value
