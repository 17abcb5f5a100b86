"""An admin listener with rooms made up: real pages, feed and scripts, an API that keeps to the description and no more.

For what is about the pages alone; what a change does to visitors is shown before a whole gateway.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from support.room_views import EVENT
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.auth.middleware import ACTOR
from waitroom.control.dashboard.feed import Feed, add_feed
from waitroom.control.dashboard.pages import add_dashboard

NOW = 1_790_000_000.0
HISTORY_SECONDS = 6 * 3600
EVENT_CLOCK = datetime(2026, 12, 12, 5, 0, 0, tzinfo=UTC).timestamp()


def room(name: str = "tickets", **values: Any) -> dict[str, Any]:
    """A room on the day of the sale."""
    return {
        "name": name,
        "upstream": "http://10.0.4.12:3000",
        "store_up": True,
        "version": 7,
        "state": "open",
        "draining": False,
        "method": "fifo",
        "waiting": 12_431,
        "called": 14,
        "away": 212,
        "active": 1_874,
        "max_active": 2_000,
        "rate_per_minute": 600.0,
        "message": "",
        "remaining": 3_120,
        "totals": {"joined": 31_204, "admitted": 16_530},
        "admitted_per_minute": 588.0,
        "joined_per_minute": 412.0,
        "left_per_minute": {"released": 402.0, "expired": 96.0, "left": 31.0, "missed": 4.0, "away": 0.0},
        "wait_seconds": {"newcomer": [1080, 1460]},
        "session_seconds": 600,
        "claim_seconds": 120,
        "shop": {
            "requests_per_minute": 18_240.0,
            "failures_per_minute": 22.0,
            "p50_seconds": 0.084,
            "p95_seconds": 0.31,
            "in_flight": 41,
        },
        "workers": {"alive": 4, "wanted": 4},
        "hints": [],
        "autopilot": {"on": False, "floor": 60.0, "ceiling": 1200.0, "summary": "", "at": None},
        "last_change": {
            "at": "2026-09-21T14:12:40Z",
            "who": "ada",
            "what": "rate_per_minute 450 → 600",
            "undoable": True,
        },
        "undo": {"at": "2026-09-21T14:12:40Z", "who": "ada", "what": "rate_per_minute 450 → 600"},
        **values,
    }


def decision(minutes_ago: int, rate: float = 610.0, move: str = "raise") -> dict[str, Any]:
    """One of the autopilot's."""
    at = datetime.fromtimestamp(NOW - 60 * minutes_ago, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    summary = f"Raised from 565 to {rate:g} per minute: median latency 40 ms, baseline 40 ms, no failures."
    return {"at": at, "move": move, "rate_per_minute": rate, "summary": summary}


def schedule() -> dict[str, Any]:
    """An event that is over, one that runs, and one in three weeks."""
    later = {"started_at": None, "prequeue_opened_at": None, "phase": "scheduled"}
    return {
        "version": 7,
        "events": [
            {**EVENT, "name": "early", "title": "Early birds", "phase": "ended", "ended_at": "2026-12-05T06:00:00Z"},
            {**EVENT},
            {
                **EVENT,
                **later,
                "name": "redmi-2",
                "title": "",
                "prequeue_start": None,
                "start": "2027-01-02T04:00:00Z",
                "end": None,
                "before": "open",
                "units": None,
                "limits": {"rate_per_minute": "auto"},
            },
        ],
        "timeline": [
            _segment(None, "2026-12-12T06:00:00Z", "redmi-1s", "running", "open"),
            _segment("2026-12-12T06:00:00Z", "2027-01-02T04:00:00Z", "redmi-2", "scheduled", "open"),
            _segment("2027-01-02T04:00:00Z", None, "redmi-2", "running", "open"),
        ],
    }


def _segment(since: str | None, until: str | None, event: str, phase: str, state: str) -> dict[str, Any]:
    return {"from": since, "to": until, "event": event, "phase": phase, "state": state, "limits": {}}


async def no_events(_room: str) -> dict[str, Any]:
    """The events of a room without any."""
    return {"version": 7, "events": [], "timeline": []}


async def no_past_events(_room: str) -> tuple[()]:
    """A room without past events."""
    return ()


async def anybody(_request: web.Request) -> bool:
    """All who were let in may stay."""
    return True


@dataclass
class FakeAdmin:
    """What the listener has.

    Attributes:
        rooms: As the API describes them; a test changes them as it likes.
        role: Of whoever asks.
        calls: Changes that were asked for: method, path, body, version.
        decisions: Of the first room's autopilot, newest first.
        events: Of the first room, as the API describes them.
        links: Links to its sale page that were made and not revoked.
    """

    rooms: list[dict[str, Any]] = field(default_factory=lambda: [room()])
    role: Role = Role.OPERATOR
    calls: list[tuple[str, str, dict[str, Any], str | None]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=lambda: [decision(minutes) for minutes in range(30)])
    events: dict[str, Any] = field(default_factory=lambda: {"version": 7, "events": [], "timeline": []})
    links: list[str] = field(default_factory=list)
    feed: Feed = field(init=False)
    address: str = ""

    def __post_init__(self) -> None:
        self.feed = Feed(lambda: self.rooms, lambda: NOW, lambda: EVENT_CLOCK)

    def change(self, who: str = "grace", what: str = "max_active 2000 → 1500", **values: Any) -> None:
        """Somebody changes the first room."""
        undo = {"at": "2026-09-21T14:20:00Z", "who": who, "what": what}
        last = {"last_change": {**undo, "undoable": True}, "undo": undo}
        self.rooms[0] |= {"version": self.rooms[0]["version"] + 1, **last, **values}
        self.feed.notify()

    def app(self) -> web.Application:
        @web.middleware
        async def somebody(request: web.Request, handler: Any) -> web.StreamResponse:
            request[ACTOR] = Actor("mia", self.role, "127.0.0.1", "dashboard")
            return await handler(request)

        app = web.Application(middlewares=[somebody])
        add_dashboard(app, lambda: self.rooms, self._events_of, no_past_events)
        add_feed(app, self.feed, anybody)
        app.router.add_get("/api/v1/rooms", self._rooms)
        app.router.add_get("/api/v1/audit", self._audit)
        app.router.add_patch("/api/v1/rooms/{room}", self._patch)
        app.router.add_put("/api/v1/rooms/{room}/events/{event}", self._change_event)
        app.router.add_post("/api/v1/rooms/{room}/events/{event}/{action}", self._change_event)
        app.router.add_post("/api/v1/rooms/{room}/sale-links", self._share)
        app.router.add_delete("/api/v1/rooms/{room}/sale-links", self._revoke)
        app.router.add_post("/api/v1/rooms/{room}/{action}", self._post)
        app.router.add_get("/api/v1/rooms/{room}/history", self._history)
        app.router.add_get("/api/v1/rooms/{room}/decisions", self._decisions)
        return app

    async def _rooms(self, _request: web.Request) -> web.Response:
        return _json({"rooms": self.rooms})

    async def _audit(self, _request: web.Request) -> web.Response:
        changes: list[tuple[str, str, str, dict[str, Any], dict[str, Any], str, str]] = [
            (
                "14:12:40",
                "ada",
                "change",
                {"rate_per_minute": 450.0},
                {"rate_per_minute": 600.0},
                "the shop is well",
                "done",
            ),
            ("14:03:11", "grace", "admit", {}, {"ticket": "30f1"}, "wheelchair platform", "done"),
            ("13:58:02", "ben", "change", {}, {"state": "closed"}, "", "refused"),
            ("13:41:27", "ada", "change", {"state": "paused"}, {"state": "open"}, "", "done"),
            ("13:39:50", "ada", "change", {"state": "open"}, {"state": "paused"}, "payments time out", "done"),
        ]
        keys = ("at", "who", "action", "old", "new", "note", "outcome")
        rows = [dict(zip(keys, (f"2026-09-21T{one[0]}Z", *one[1:]), strict=True)) for one in changes]
        return _json({"entries": [{**one, "room": self.rooms[0]["name"]} for one in rows]})

    async def _patch(self, request: web.Request) -> web.Response:
        body, version = await request.json(), request.headers.get("If-Match")
        dry = request.query.get("dry_run") == "true"
        if not dry:
            self.calls.append(("PATCH", request.path, dict(body), version))
        if version != f'"{self.rooms[0]["version"]}"':
            return _json({"title": "Stale", "status": 412, "detail": "Stale.", "room": self.rooms[0]}, status=412)
        if dry:
            return _json({"effect": _effect(self.rooms[0], body)})
        note = body.pop("note", "")
        what = ", ".join(f"{key} {self.rooms[0][key]} → {value}" for key, value in body.items())
        self.change("mia", f"{what} ({note})" if note else what, **body)
        return _json(self.rooms[0])

    async def _events_of(self, _room: str) -> dict[str, Any]:
        return self.events

    async def _change_event(self, request: web.Request) -> web.Response:
        body, version = await request.json(), request.headers.get("If-Match")
        name, action = request.match_info["event"], request.match_info.get("action", "set")
        dry = request.query.get("dry_run") == "true"
        if not dry:
            self.calls.append((request.method, request.path, dict(body), version))
        if version != f'"{self.rooms[0]["version"]}"':
            return _json({"title": "Stale", "status": 412, "detail": "Stale.", "room": self.rooms[0]}, status=412)
        if dry:
            told = f"{action} {name}: {', '.join(sorted(body))}."
            return _json({"effect": {**_effect(self.rooms[0], {}), "summary": told, "warnings": ["A warning."]}})
        body.pop("note", "")
        events = self.events["events"]
        found = next((one for one in events if one["name"] == name), None)
        if found is None:
            found = {**EVENT, "name": name, "title": "", "phase": "scheduled", "started_at": None, "limits": {}}
            events.append(found)
        limits = {key: value for key, value in body.items() if key not in EVENT}
        found |= {key: value for key, value in body.items() if key in EVENT} | {"limits": {**found["limits"], **limits}}
        self.change("mia", f"event {name}", events_version=self.rooms[0]["version"])
        return _json(found, 201 if request.method == "PUT" else 200)

    async def _share(self, request: web.Request) -> web.Response:
        hours = (await request.json())["hours"]
        self.links.append(f"/sale/tickets/a-token-of-{hours}-hours")
        return _json({"path": self.links[-1], "expires_at": "2026-12-19T05:00:00Z"}, 201)

    async def _revoke(self, _request: web.Request) -> web.Response:
        self.links.clear()
        return web.Response(status=204)

    async def _post(self, request: web.Request) -> web.Response:
        body, version = await request.json(), request.headers.get("If-Match")
        self.calls.append(("POST", request.path, body, version))
        if request.match_info["action"] == "undo":
            self.change("mia", "undo", rate_per_minute=450.0)
            return _json(self.rooms[0])
        return web.Response(status=204)

    async def _decisions(self, request: web.Request) -> web.Response:
        return _json({"decisions": self.decisions[: int(request.query["count"])]})

    async def _history(self, request: web.Request) -> web.Response:
        seconds = int(request.query["seconds"])
        return _json({"samples": [_sample(NOW - ago) for ago in range(seconds, 0, -5)]})


def _effect(now: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    rate = body.get("rate_per_minute", now["rate_per_minute"])
    low, high = now["wait_seconds"]["newcomer"]
    share = now["rate_per_minute"] / rate
    after = [round(low * share), round(high * share)]
    return {
        "now": {"newcomer": [low, high], "middle": [low // 2, high // 2]},
        "after": {"newcomer": after, "middle": [after[0] // 2, after[1] // 2]},
        "summary": f"A newcomer would wait {after[0] // 60} to {after[1] // 60} min, not {low // 60} to {high // 60}.",
        "warnings": ["The shop has never had so many at once."] if rate > 1000 else [],
    }


def _sample(at: float) -> dict[str, Any]:
    """A sale that began two hours ago."""
    minutes = (at - (NOW - 7200)) / 60
    wave = math.sin(at / 340) * 0.6 + math.sin(at / 97) * 0.3 + math.sin(at / 23) * 0.1
    there = minutes > 0
    return {
        "at": at,
        "state": "open",
        "waiting": round(max(0, 14_000 * (1 - math.exp(-minutes / 14)) - 14 * minutes + 220 * wave)) if there else 0,
        "called": 14 if there else 0,
        "away": 200 if there else 0,
        "active": round(min(2000, 130 * minutes) - 60 - 55 * wave) if minutes > 1 else 40,
        "max_active": 2_000,
        "rate_per_minute": 600.0 if minutes > 80 else 450.0,
        "joined": round(31_204 + 412 * (minutes - 120) + 60 * wave),
        "admitted": round(16_530 - 588 * min(40, 120 - minutes) - 436 * max(0, 80 - minutes) + 8 * wave),
        "left": 9_000,
        "wait_seconds": [1080, 1460],
        "shop": {
            "requests_per_minute": 18_000.0,
            "failures_per_minute": 20.0,
            "p50_seconds": 0.07 + 0.012 * wave + (0.01 if there else 0),
            "p95_seconds": 0.24 + 0.05 * wave + (0.06 if there else 0),
            "in_flight": 40,
        },
    }


def _json(data: object, status: int = 200) -> web.Response:
    kind = "application/json" if status < 400 else "application/problem+json"
    return web.json_response(data, status=status, content_type=kind, headers={"Cache-Control": "no-store"})


@asynccontextmanager
async def serving(admin: FakeAdmin) -> AsyncIterator[FakeAdmin]:
    """The listener, on a port of its own."""
    runner = web.AppRunner(admin.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        admin.address = f"http://{host}:{port}"
        yield admin
    finally:
        await runner.cleanup()
