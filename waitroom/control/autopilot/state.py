"""The autopilot's state in the store: the lease on a room, the controller's memory, and its decisions."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from waitroom.control.autopilot.model import Memory
from waitroom.store.connection import call_twice
from waitroom.store.scripts import load_script

LEASE_MS = 8000  # several decisions; a successor finds the room as it was that long ago
KEPT_DECISIONS = 500


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """A recorded decision: its time in Unix seconds, kind, rate and reason."""

    at: float
    move: str
    rate: float
    summary: str

    def described(self) -> dict[str, Any]:
        """Returns the JSON form, with the time by RFC 3339."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {"at": at, "move": self.move, "rate_per_minute": self.rate, "summary": self.summary}


class DecisionLog:
    """A room's lease, its autopilot's memory and its decisions, in the store.

    Every method raises `StoreUnavailable` when Redis doesn't answer in time.

    Args:
        redis: A client that answers with bytes.
        room: The room's name.
        owner: A unique name of this control process.
    """

    def __init__(self, redis: Redis, room: str, owner: str) -> None:
        self._redis = redis
        self._owner = owner
        self.keys = tuple(f"waitroom:{{{room}}}:pilot:{key}" for key in ("lease", "state", "decisions"))
        self._acquire = redis.register_script(load_script("waitroom.control.autopilot", "acquire_lease"))
        self._record = redis.register_script(load_script("waitroom.control.autopilot", "record_decision"))

    async def acquire(self) -> tuple[bool, Memory, RecordedDecision | None]:
        """Acquires or renews the lease. Returns whether it is ours, the memory, and the newest decision."""
        mine, state = await call_twice(lambda: self._acquire(keys=self.keys, args=[self._owner, LEASE_MS]))
        if not state:
            return mine == 1, Memory(), None
        kept = json.loads(state)
        return mine == 1, Memory.load(kept["memory"]), _from_json(kept["said"])

    async def record(self, memory: Memory, decision: RecordedDecision, *, keep: bool) -> bool:
        """Stores the memory and the newest decision; ``keep`` also adds it to the list of kept decisions.

        Returns:
            Whether the lease was still ours; otherwise nothing was stored.
        """
        stored = {"at": decision.at, "move": decision.move, "rate": decision.rate, "said": decision.summary}
        state = json.dumps({"memory": memory.dump(), "said": stored})
        kept = json.dumps(stored) if keep else ""
        given: list[str | int] = [self._owner, state, kept, KEPT_DECISIONS]
        return bool(await call_twice(lambda: self._record(keys=self.keys, args=given)))

    async def decisions(self, count: int = 100) -> list[RecordedDecision]:
        """Returns the newest kept decisions, newest first: all except those that leave the rate unchanged."""
        kept = await call_twice(lambda: self._redis.lrange(self.keys[2], 0, count - 1))
        return [_from_json(json.loads(one)) for one in kept]


def _from_json(stored: dict[str, Any]) -> RecordedDecision:
    return RecordedDecision(stored["at"], stored["move"], stored["rate"], stored["said"])


def new_owner_id() -> str:
    """Returns a unique name for a control process."""
    return uuid.uuid4().hex
