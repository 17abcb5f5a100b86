"""The stored data of a room, as the tests of the queue compare it with the reference model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from waitroom.queue.fields import AUTOPILOT, LIMITS
from waitroom.queue.reference_model import QueueModel
from waitroom.queue.store import KEYS

# Takes the events out of the audit outbox, so that each is seen once.
READ = """
local outbox = redis.call('LRANGE', KEYS[12], 0, -1)
redis.call('DEL', KEYS[12])
local sets = { redis.call('HGETALL', KEYS[1]), redis.call('HVALS', KEYS[19]), redis.call('HGETALL', KEYS[20]), outbox,
  redis.call('SMEMBERS', KEYS[5]) }
for _, key in ipairs({ KEYS[2], KEYS[3], KEYS[4], KEYS[6], KEYS[7] }) do
  sets[#sets + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
end
for _, key in ipairs({ KEYS[13], KEYS[14] }) do
  sets[#sets + 1] = redis.call('HGETALL', key)
end
for _, key in ipairs({ KEYS[15], KEYS[16] }) do
  sets[#sets + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
end
return sets
"""
assert list(KEYS)[:7] == ["room", "waiting", "called", "away", "missed", "active", "ended"]
assert list(KEYS)[11:16] == ["audit_outbox", "turns", "moved", "moved_until", "hard_ends"]
assert list(KEYS)[18:] == ["events", "event_stats"]


@dataclass(frozen=True)
class Contents:
    """What the store holds of the visitors; the numbers with members are the room's time in milliseconds."""

    waiting: list[int] = field(default_factory=list)
    called: dict[int, int] = field(default_factory=dict)
    away: dict[int, int] = field(default_factory=dict)
    active: dict[int, int] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    missed: set[int] = field(default_factory=set)
    turns: dict[int, str] = field(default_factory=dict)
    moved: dict[int, int] = field(default_factory=dict)
    moved_until: dict[int, int] = field(default_factory=dict)
    hard_ends: dict[int, int] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        return len(self.active) + len(self.called)


@dataclass(frozen=True)
class AuditEntry:
    """A change that was recorded for the audit log."""

    who: str
    old: dict[str, str]
    new: dict[str, str]


@dataclass(frozen=True)
class StoredRoom:
    """What the store holds of a room.

    Attributes:
        fields: The room's fields and totals.
        tokens: How many visitors the rate lets in now.
        events: The records of its events.
        stats: The figures of the running event.
        ranks: The numbers that order those who wait.
        audit: What was recorded since the last look.
    """

    fields: dict[str, str] = field(default_factory=dict)
    tokens: float = 0
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    ranks: dict[int, int] = field(default_factory=dict)
    audit: list[AuditEntry] = field(default_factory=list)

    def total(self, name: str) -> int:
        return int(self.fields.get(f"total:{name}", "0"))

    @property
    def sold(self) -> int:
        return self.total("sold") - self.total("units_returned")


def parse_reply(reply: Any) -> tuple[StoredRoom, Contents]:
    """Parses the reply of `READ`."""
    room, events, stats, outbox, missed, *sets = reply
    fields = {name.decode(): value.decode() for name, value in _pairs(room).items()}
    records = [json.loads(text) for text in events]
    waiting, called, away, active, ended, turns, moved, moved_until, hard_ends = (
        {int(member): int(score) for member, score in _pairs(pairs).items()} for pairs in sets
    )
    stored = StoredRoom(
        {name: value for name, value in fields.items() if name in COMPARED or name.startswith("total:")},
        float(fields.get("tokens", "0")),
        {record["name"]: record for record in records},
        {name.decode(): int(number) for name, number in _pairs(stats).items()},
        waiting,
        [_entry(json.loads(text)) for text in outbox],
    )
    return stored, Contents(
        *(list(waiting), called, away, active, ended, {int(place) for place in missed}),
        *({place: str(turn) for place, turn in turns.items()}, moved, moved_until, hard_ends),
    )


def _pairs(found: Any) -> dict[Any, Any]:
    return dict(zip(found[::2], found[1::2], strict=True))


def _entry(recorded: dict[str, Any]) -> AuditEntry:
    return AuditEntry(json.loads(recorded["told"])["who"], dict(recorded["old"]), dict(recorded["new"]))


_TEXTS = ("state_by", "state_before", "message", "remaining", "draining", "event", "event_phase", "event_before")
_NUMBERS = (
    *("clock", "wall", "version", "generation", "base", "seq", "event_due", "void_place", "ended_place"),
    *("stock_began_at", "stock_read_at", "stock_zero_at", "reopened_at", "reopened_sold", "reopened_admitted"),
    *("changes", "resume_at"),
)
_LIMITS = (*(limit.stored for limit in LIMITS), AUTOPILOT.stored)
COMPARED = {"state", "head", "blocked_ms", "draws", "before_event", "events_version", *_TEXTS, *_NUMBERS, *_LIMITS}


def expected_room(model: QueueModel) -> StoredRoom:
    """The expected contents of the store, from the model; takes the model's audit events out as well."""
    fields = {name: str(getattr(model, name)) for name in (*_TEXTS, *_NUMBERS)}
    fields |= model.limits | {f"total:{name}": str(count) for name, count in model.totals.items() if count}
    fields |= {
        "autopilot": model.autopilot,
        "state": str(model.own_state),
        "head": str(model.high_water_mark),
        "blocked_ms": str(model.blocked),
        "draws": " ".join(model.draws),
        "before_event": "" if model.before_event is None else json.dumps(model.before_event, sort_keys=True),
        "events_version": str(model.events_version),
    }
    audit = [AuditEntry(*entry) for entry in model.audit]
    model.audit.clear()
    return StoredRoom(fields, model.tokens, model.events, dict(+model.event_stats), model.waiting, audit)


def assert_as_expected(room: StoredRoom, model: QueueModel) -> None:
    """Compares what the store holds with the model."""
    expected = expected_room(model)
    absent = {"autopilot": "", "draining": "", "before_event": "", "events_version": "0"}
    fields = {**absent, "stock_began_at": "None", "stock_read_at": "None", **room.fields}
    if fields["before_event"]:
        fields["before_event"] = json.dumps(json.loads(fields["before_event"]), sort_keys=True)
    assert fields == expected.fields
    assert room.tokens == pytest.approx(expected.tokens, abs=1e-6)
    assert room.events == expected.events
    assert room.stats == expected.stats
    assert room.ranks == expected.ranks
    assert room.audit == expected.audit


def contents_of(model: QueueModel) -> Contents:
    """Where the visitors should be by the model."""
    return Contents(
        *(model.queue(), {**model.called}, {**model.away}, {**model.active}, {**model.ended}, {*model.missed}),
        *({**model.turns}, {**model.moved}, {**model.moved_until}, {**model.hard_ends}),
    )
