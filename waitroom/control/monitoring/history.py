"""The history of the rooms: one sample every five seconds for the last hours, kept in the store.

Sample times are multiples of five seconds, so that any number of controllers may take them: the first one writes
a sample, and the others find it written.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from redis.asyncio import Redis

from waitroom.errors import StoreUnavailable
from waitroom.logs import RateLimitedLog
from waitroom.metrics.upstream_window import UpstreamStats
from waitroom.queue.fields import OPERATOR_NUMBERS
from waitroom.queue.view import RoomView, values_of
from waitroom.store.connection import call_twice
from waitroom.store.errors import StoreErrorKind
from waitroom.store.scripts import load_script

log = RateLimitedLog(structlog.get_logger())

SAMPLE_SECONDS = 5
RETENTION_SECONDS = 6 * 3600
MAX_SAMPLES = RETENTION_SECONDS // SAMPLE_SECONDS


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of a room at one moment.

    Attributes:
        at: Unix time in seconds, a multiple of `SAMPLE_SECONDS`.
        figures: The figures in the API's format. ``joined``, ``admitted`` and ``left`` are counters: the difference of
            two samples is the number in between. ``wait_seconds`` is the wait announced to a newcomer, minimum and
            maximum. ``shop`` covers the last ten seconds, as seen by the gateway that took the sample.
    """

    at: int
    figures: Mapping[str, Any]

    @classmethod
    def of(cls, at: int, view: RoomView, wait: tuple[int, int] | None, shop: UpstreamStats) -> Sample:
        """Builds the sample for a view of a room."""
        figures = {
            "state": str(view.state),
            "waiting": view.waiting,
            "called": view.called,
            "away": view.away,
            "active": view.active,
            **values_of(view, OPERATOR_NUMBERS),
            "joined": view.totals.get("joined", 0),
            "admitted": view.totals.get("admitted", 0),
            "left": sum(total for name, total in view.totals.items() if name.startswith("left:")),
            "wait_seconds": wait,
            "shop": shop_json(shop),
        }
        return cls(at, figures)

    def json(self) -> dict[str, Any]:
        """Returns the format of the API and of the store."""
        return {"at": self.at, **self.figures}


def shop_json(stats: UpstreamStats) -> dict[str, Any]:
    """Returns a shop's figures in the API's format."""
    return {
        "requests_per_minute": round(stats.requests_per_minute, 1),
        "failures_per_minute": round(stats.failures_per_minute, 1),
        "given_up_per_minute": round(stats.given_up_per_minute, 1),
        "p50_seconds": _rounded(stats.p50_seconds),
        "p95_seconds": _rounded(stats.p95_seconds),
        "in_flight": stats.in_flight,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


class History:
    """The samples of all rooms.

    Args:
        redis: A client that returns bytes.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._add = redis.register_script(load_script("waitroom.control.monitoring", "add_sample"))

    async def add(self, room: str, sample: Sample) -> bool:
        """Stores a sample unless one of that time exists; returns whether it did. Raises `StoreUnavailable`."""
        encoded = json.dumps(sample.json(), separators=(",", ":"))
        given: list[str | int] = [sample.at, encoded, MAX_SAMPLES, sample.at - RETENTION_SECONDS]
        return bool(await call_twice(lambda: self._add(keys=[history_key(room)], args=given)))

    async def read_json(self, room: str, seconds: float) -> list[bytes]:
        """Returns the samples of the last ``seconds`` as separate JSON texts, oldest first.

        Decoding and encoding six hours of samples would take too long on the event loop that admits visitors. Raises
        `StoreUnavailable`.
        """
        since = time.time() - seconds
        found: Any = await call_twice(lambda: self._redis.zrangebyscore(history_key(room), since, "+inf"))
        return list(found)


async def record_history(history: History, take_samples: Callable[[int], Mapping[str, Sample]]) -> None:
    """Takes samples until cancelled; an unavailable store leaves a gap.

    Args:
        history: Stores the samples.
        take_samples: Returns the samples for a time, by room.
    """
    while True:
        now = time.time()
        at = (int(now) // SAMPLE_SECONDS + 1) * SAMPLE_SECONDS
        await asyncio.sleep(at - now)
        for room, sample in take_samples(at).items():
            try:
                await history.add(room, sample)
            except StoreUnavailable as error:
                log.warning("history sample not stored", room, room=room, cause=str(error))
                if error.kind != StoreErrorKind.DATA:
                    break  # the others would fail as well
            except Exception:
                log.warning("history sample not stored", room, room=room, exc_info=True)


def history_key(room: str) -> str:
    """The key of a room's samples."""
    return f"waitroom:{{{room}}}:history"
