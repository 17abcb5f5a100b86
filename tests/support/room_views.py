"""A room as the admin API shows it."""

from __future__ import annotations

from typing import Any

OPEN: dict[str, Any] = {
    "name": "shop",
    "store_up": True,
    "version": 3,
    "state": "open",
    "draining": False,
    "method": "fifo",
    "waiting": 1200,
    "called": 4,
    "away": 7,
    "active": 90,
    "max_active": 100,
    "rate_per_minute": 60.0,
    "message": "",
    "remaining": None,
    "totals": {"joined": 5000},
    "admitted_per_minute": 58.5,
    "joined_per_minute": None,
    "left_per_minute": {"released": 3.0, "expired": 12.0, "missed": 0.0, "away": None},
    "wait_seconds": {"newcomer": [1080, 1460]},
    "shop": {
        "requests_per_minute": 1000.0,
        "failures_per_minute": 2.0,
        "p50_seconds": 0.08,
        "p95_seconds": 1.44,
        "in_flight": 3,
    },
    "workers": {"alive": 2, "wanted": 2},
    "autopilot": None,
    "last_change": None,
    "undo": None,
}
CHANGE = {"at": "2026-09-21T14:12:40Z", "who": "ada", "what": "rate_per_minute 30 → 60", "undoable": True}
EVENT: dict[str, Any] = {
    "name": "redmi-1s",
    "title": "Redmi 1s",
    "phase": "running",
    "source": "file",
    "cancelled": False,
    "prequeue_start": "2026-12-12T03:30:00Z",
    "start": "2026-12-12T04:00:00Z",
    "end": "2026-12-12T06:00:00Z",
    "method": "random",
    "before": "closed",
    "after": "open",
    "units": 5000,
    "limits": {"rate_per_minute": 600.0, "max_active": 2000},
    "prequeue_opened_at": "2026-12-12T03:30:00Z",
    "started_at": "2026-12-12T04:00:01Z",
    "ended_at": None,
}
