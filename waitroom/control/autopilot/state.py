"""What the autopilot keeps in the store: the lease on a room, the controller's memory, and its decisions."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from waitroom.control.autopilot.model import Memory
from waitroom.store.connection import store_errors
from waitroom.store.scripts import load_script

LEASE_MS = 8000  # several looks; a successor finds the room as it was that long ago
KEPT_DECISIONS = 500


@dataclass(frozen=True, slots=True)
class Said:
    """A recorded decision: its time in Unix seconds, kind, rate and reason."""

    at: float
    move: str
    rate: float
    said: str

    def described(self) -> dict[str, Any]:
        """Returns the JSON form, with the time by RFC 3339."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {"at": at, "move": self.move, "rate_per_minute": self.rate, "summary": self.said}


class Logbook:
    """A room's lease, its autopilot's memory and its decisions, in the store.

    Every method raises `StoreUnavailable` when Redis doesn't answer in time.

    Args:
        redis: A client that answers with bytes.
        room: The room's name.
        who: A unique name of this control process.
    """

    def __init__(self, redis: Redis, room: str, who: str) -> None:
        self._redis = redis
        self._who = who
        self.keys = tuple(f"waitroom:{{{room}}}:pilot:{key}" for key in ("lease", "state", "decisions"))
        self._take = redis.register_script(load_script("waitroom.control.autopilot", "take_lease"))
        self._note = redis.register_script(load_script("waitroom.control.autopilot", "note_decision"))

    async def take(self) -> tuple[bool, Memory, Said | None]:
        """Acquires or renews the lease. Returns whether it is ours, the memory, and the newest decision."""
        with store_errors():
            mine, state = await self._take(keys=self.keys, args=[self._who, LEASE_MS])
        if not state:
            return mine == 1, Memory(), None
        kept = json.loads(state)
        return mine == 1, Memory.load(kept["memory"]), Said(**kept["said"])

    async def note(self, memory: Memory, said: Said, *, keep: bool) -> bool:
        """Stores the memory and the newest decision; ``keep`` also adds it to the list of kept decisions.

        Returns:
            Whether the lease was still ours; otherwise nothing was stored.
        """
        decision = {"at": said.at, "move": said.move, "rate": said.rate, "said": said.said}
        state = json.dumps({"memory": memory.dump(), "said": decision})
        kept = json.dumps(decision) if keep else ""
        with store_errors():
            return bool(await self._note(keys=self.keys, args=[self._who, state, kept, KEPT_DECISIONS]))

    async def decisions(self, count: int = 100) -> list[Said]:
        """Returns the newest kept decisions, newest first: all except those that leave the rate unchanged."""
        with store_errors():
            kept = await self._redis.lrange(self.keys[2], 0, count - 1)
        return [Said(**json.loads(one)) for one in kept]


def new_name() -> str:
    """Returns a unique name for a control process."""
    return uuid.uuid4().hex
