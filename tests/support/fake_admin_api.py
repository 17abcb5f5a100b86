"""A stand-in for the admin API, as its description says, for tests of what talks to it: no gateway, no store."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

AT = "2026-11-24T12:03:05Z"
FIELDS = ("rate_per_minute", "max_active", "state", "message", "draining")

ROOM: dict[str, Any] = {
    "name": "sale",
    "upstream": "http://127.0.0.1:3000",
    "store_up": True,
    "version": 7,
    "state": "open",
    "draining": False,
    "method": "fifo",
    "waiting": 12_345,
    "called": 3,
    "away": 21,
    "active": 780,
    "max_active": 800,
    "rate_per_minute": 300,
    "message": "",
    "remaining": None,
    "totals": {"joined": 20_000, "admitted": 7000, "left:expired": 12},
    "admitted_per_minute": 297.4,
    "joined_per_minute": 900.0,
    "left_per_minute": {"expired": 2.0},
    "wait_seconds": {"newcomer": [2400, 2700]},
    "session_seconds": 900,
    "claim_seconds": 180,
    "shop": {
        "requests_per_minute": 5000.0,
        "failures_per_minute": 4.0,
        "p50_seconds": 0.08,
        "p95_seconds": 0.412,
        "in_flight": 31,
    },
    "workers": {"alive": 2, "wanted": 2},
    "hints": [],
    "autopilot": None,
    "last_change": {"at": AT, "who": "ann", "what": "rate_per_minute 200 → 300", "undoable": True},
    "undo": {"at": AT, "who": "ann", "what": "rate_per_minute 200 → 300"},
}
EVENT: dict[str, Any] = {
    "name": "drop",
    "title": "The drop",
    "phase": "scheduled",
    "source": "file",
    "cancelled": False,
    "prequeue_start": "2036-12-12T03:30:00Z",
    "start": "2036-12-12T04:00:00Z",
    "end": "2036-12-12T06:00:00Z",
    "method": "random",
    "before": "closed",
    "after": "open",
    "units": 5000,
    "limits": {"rate_per_minute": 600, "max_active": 800},
    "prequeue_opened_at": None,
    "started_at": None,
    "ended_at": None,
}
REPORT: dict[str, Any] = {
    "room": "sale",
    "event": "drop",
    "title": "The drop",
    "phase": "ended",
    "prequeue_opened_at": "2036-12-12T03:30:00Z",
    "started_at": "2036-12-12T04:00:00Z",
    "ended_at": "2036-12-12T06:00:00Z",
    "joined": 60_542,
    "admitted": 7100,
    "sold": 5000,
    "sold_by": "stock",
    "units": 5000,
    "gave_up": {"left": 4000, "away": 120, "missed": 30, "total": 4150},
    "no_shows": 640,
    "voided": 0,
    "peak_waiting": 55_000,
    "peak_active": 800,
    "wait_seconds": {"p50": 95, "p90": 1500, "max": 7500},
    "eta_error_seconds": {"p50": None, "p90": None},
    "overshoot": 0,
    "over_limit": {"rate": 0, "max_active": 0},
}
TIMELINE = [
    {
        "from": None,
        "to": "2036-12-12T03:30:00Z",
        "event": "drop",
        "phase": "scheduled",
        "state": "closed",
        "limits": {"rate_per_minute": "auto", "max_active": 400},
    },
    {"from": "2036-12-12T06:00:00Z", "to": None, "event": "drop", "phase": "ended", "state": "sold_out", "limits": {}},
]
MOVED = {"start": "running", "end": "ended", "cancel": "ended"}
LIMITS = {
    "rate_per_minute": 200,
    "max_active": 800,
    "session_seconds": 900,
    "claim_seconds": 180,
    "away_after_seconds": 180,
    "keep_place_seconds": 3600,
    "method": "fifo",
}


def entry(number: int, **members: Any) -> dict[str, Any]:
    """An entry of the audit."""
    return {
        "id": f"{1000 + number}-0",
        "at": AT,
        "who": "ann",
        "role": "operator",
        "address": "192.0.2.7",
        "via": "cli",
        "action": "change",
        "room": "sale",
        "old": {"rate_per_minute": 200},
        "new": {"rate_per_minute": 300},
        "note": "",
        "outcome": "done",
        "previous": "00",
        "hash": "11",
        **members,
    }


def sample(number: int, **members: Any) -> dict[str, Any]:
    """A sample of the history."""
    return {
        "at": 1_800_000_000 + 5 * number,
        "state": "open",
        "waiting": 10 * number,
        "called": 1,
        "away": 0,
        "active": 700,
        "max_active": 800,
        "rate_per_minute": 300,
        "joined": 50 * number,
        "admitted": 25 * number,
        "left": 0,
        "wait_seconds": [60, 120],
        "shop": ROOM["shop"],
        **members,
    }


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class StandIn:
    """The API over plain members, to be changed by a test as it likes.

    Attributes:
        rooms: By name.
        token: The bearer token that is wanted; None wants none.
        asked: What came in, in order.
        instead: Called with each request first; what it returns is answered.
        meanwhile: Called just before a change is made, as if somebody else were there.
        warnings: Of every effect.
    """

    url: str = ""
    rooms: dict[str, dict[str, Any]] = field(default_factory=lambda: {"sale": copy.deepcopy(ROOM)})
    token: str | None = None
    asked: list[Asked] = field(default_factory=list)
    instead: Callable[[Asked], web.StreamResponse | None] = lambda _asked: None
    meanwhile: Callable[[dict[str, Any]], None] = lambda _room: None
    warnings: list[str] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=lambda: [sample(number) for number in range(120)])
    entries: list[dict[str, Any]] = field(default_factory=lambda: [entry(number) for number in range(3)])
    verdict: dict[str, Any] = field(
        default_factory=lambda: {
            "intact": True,
            "entries": 3,
            "trimmed": 0,
            "first": "1000-0",
            "last": "1002-0",
            "summary": "3 entries, all intact.",
        }
    )
    decisions: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"at": AT, "move": "back_off", "rate_per_minute": 410.4, "summary": "Lowered from 450 to 410 per minute."},
            {"at": AT, "move": "hold", "rate_per_minute": 0.0, "summary": "Admission stopped."},
        ]
    )
    free_slots: int = 0
    events: dict[str, dict[str, Any]] = field(default_factory=lambda: {"drop": copy.deepcopy(EVENT)})

    report: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(REPORT))

    def problem(self, status: int, detail: str, **more: Any) -> web.Response:
        body = {"type": "about:blank", "title": f"Status {status}", "status": status, "detail": detail, **more}
        return web.Response(status=status, text=json.dumps(body), content_type="application/problem+json")

    def calls(self, method: str) -> list[Asked]:
        """What was asked by this method."""
        return [one for one in self.asked if one.method == method]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        asked = Asked(request.method, request.path, dict(request.query), request.headers, body)
        self.asked.append(asked)
        answer = self.instead(asked)
        if answer is not None:
            return answer
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.problem(401, "Nobody is logged in.")
        match [part for part in request.path.split("/") if part][2:]:
            case ["rooms"]:
                return web.json_response({"rooms": list(self.rooms.values())})
            case ["rooms", name, *more]:
                if name not in self.rooms:
                    return self.problem(404, "Unknown room.")
                return self._of_room(asked, self.rooms[name], *more)
            case ["audit"]:
                return self._audit(asked)
            case ["audit", "export"]:
                lines = "".join(json.dumps(one) + "\n" for one in self.entries)
                return web.Response(text=lines, content_type="application/jsonl")
            case ["audit", "verify"]:
                return web.json_response(self.verdict)
        return self.problem(404, "There is nothing here.")

    def _of_room(self, asked: Asked, room: dict[str, Any], *more: str) -> web.StreamResponse:
        match asked.method, *more:
            case ["GET"]:
                return self._room(room)
            case ["GET", "history"]:
                return web.json_response({"samples": self.samples})
            case ["GET", "decisions"]:
                return web.json_response({"decisions": self.decisions[: int(asked.query["count"])]})
            case ["GET", "diff"]:
                running = {name: room.get(name, value) for name, value in LIMITS.items()}
                differs = [name for name in LIMITS if LIMITS[name] != running[name]]
                return web.json_response({"file": LIMITS, "running": running, "differs": differs})
            case ["PATCH"] if asked.query.get("dry_run") == "true":
                waits = {"newcomer": [2400, 2700], "middle": [1200, 1300]}
                after = {"newcomer": [1200, 1400], "middle": [600, 700]}
                summary = "Newcomers wait half as long."
                return self._stale(asked, room) or web.json_response(
                    {"effect": {"now": waits, "after": after, "summary": summary, "warnings": self.warnings}}
                )
            case ["PATCH"]:
                self.meanwhile(room)
                return self._stale(asked, room) or self._change(room, asked.body)
            case [method, "events", *rest]:
                return self._of_events(method, asked, room, *rest)
            case ["POST", "undo"]:
                self.meanwhile(room)
                return self._stale(asked, room) or self._change(room, {"rate_per_minute": 200})
            case ["POST", "admit"]:
                return web.Response(status=204) if self.free_slots else self.problem(409, "The room is full.")
            case ["POST", "sale-links"]:
                link = {"path": f"/sale/{room['name']}/{'t' * asked.body['hours']}", "expires_at": AT}
                return web.json_response(link, status=201)
            case ["DELETE", "sale-links"]:
                return web.Response(status=204)
            case ["POST", "end-session"]:
                return web.Response(status=204)
        return self.problem(404, "There is nothing here.")

    def _of_events(self, method: str, asked: Asked, room: dict[str, Any], *rest: str) -> web.StreamResponse:
        match method, *rest:
            case ["GET"]:
                version, events = room["version"], list(self.events.values())
                return self._tagged(room, {"version": version, "events": events, "timeline": TIMELINE})
            case ["GET", event, "report"] if event in self.events:
                return web.json_response(self.report)
            case ["GET", event, "report.csv" | "samples.csv" as name] if event in self.events:
                return web.Response(text=f"{name}\r\n", content_type="text/csv", charset="utf-8")
            case ["PUT" | "POST", event, *move]:
                return self._of_event(asked, room, event, *move)
        return self.problem(404, "There is nothing here.")

    def _of_event(self, asked: Asked, room: dict[str, Any], name: str, move: str = "") -> web.StreamResponse:
        if asked.query.get("dry_run") == "true":
            effect = {"now": {}, "after": {}, "summary": "The event says so.", "warnings": self.warnings}
            return self._stale(asked, room) or web.json_response({"effect": effect})
        self.meanwhile(room)
        stale = self._stale(asked, room)
        if stale is not None:
            return stale
        room["version"] += 1
        event = self.events.setdefault(name, {**EVENT, "name": name})
        limits = {key: value for key, value in asked.body.items() if key not in EVENT and key != "note"}
        event |= {key: value for key, value in asked.body.items() if key in EVENT}
        event["limits"] = event["limits"] | limits
        if move:
            event |= {"phase": MOVED[move], "cancelled": move == "cancel"}
        return self._tagged(room, event)

    def _stale(self, asked: Asked, room: dict[str, Any]) -> web.StreamResponse | None:
        tag = asked.headers.get("If-Match")
        if tag is None:
            return self.problem(428, "If-Match is missing.")
        if tag != f'"{room["version"]}"':
            return self.problem(412, "The room has changed.", room=room)
        return None

    def _change(self, room: dict[str, Any], body: Mapping[str, Any]) -> web.StreamResponse:
        bob(room, **{name: body[name] for name in FIELDS if name in body})
        if body.get("draining"):
            room["state"] = "paused"
        if body.get("state") == "open":
            room["draining"] = False
        if "autopilot" in body:
            room["autopilot"] = {"on": body["autopilot"], "floor": 60, "ceiling": 900, "summary": "Holds.", "at": AT}
        return self._room(room)

    def _room(self, room: dict[str, Any]) -> web.StreamResponse:
        return self._tagged(room, room)

    def _tagged(self, room: dict[str, Any], body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(body, headers={"ETag": f'"{room["version"]}"'} if "version" in room else {})

    def _audit(self, asked: Asked) -> web.StreamResponse:
        newest = self.entries[::-1]
        if "before" in asked.query:
            newest = [one for one in newest if int(one["id"][:-2]) < int(asked.query["before"][:-2])]
        return web.json_response({"entries": newest[: int(asked.query["count"])]})


def bob(room: dict[str, Any], **members: Any) -> None:
    """A change by an operator called bob."""
    what = ", ".join(f"{name} {room[name]} → {value}" for name, value in members.items())
    room["undo"] = {"at": AT, "who": "bob", "what": what}
    room["last_change"] = {**room["undo"], "undoable": True}
    room |= {**members, "version": room["version"] + 1}


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """A stand-in that listens, in a thread of its own, for commands are synchronous."""
    there = StandIn()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        server = web.Server(there.handle)
        runner = web.ServerRunner(server, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        there.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        started.set()
        try:
            await ended.wait()
        finally:
            await runner.cleanup()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert started.wait(5)
        yield there
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        assert not thread.is_alive()


@contextlib.contextmanager
def raw_server(*answers: bytes, hang: bool = False) -> Iterator[str]:
    """A server that gives each connection the next of these bytes, whatever it asks, and hangs up; its URL.

    With ``hang`` it doesn't hang up.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.ExitStack() as kept:
                for answer in answers:
                    connection, _ = listener.accept()
                    kept.enter_context(connection)
                    received = b""
                    while b"\r\n\r\n" not in received and (piece := connection.recv(65_536)):
                        received += piece
                    if not received:
                        break
                    with contextlib.suppress(OSError):  # who had enough hangs up
                        connection.sendall(answer)
                    if not hang:
                        connection.close()
                done.wait(30)

        done = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            with contextlib.suppress(OSError), socket.create_connection(listener.getsockname(), timeout=5):
                pass
            thread.join(30)
            assert not thread.is_alive()
