"""The queue of one room in Redis or Valkey: its operations, each an atomic script.

The scripts in ``scripts/`` hold the policy; this module only passes arguments and replies. Places and sessions are
integers: the session of an admitted visitor is the place that was called.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar

from redis.asyncio import Redis

from waitroom.errors import RoomNotOpen, StoreUnavailable, UnreadableRoomError
from waitroom.queue import constants
from waitroom.queue.constants import CHUNK
from waitroom.queue.fields import AUTOPILOT, FIELDS, LIMITS, MESSAGE, RATE, STATE, Limits, from_hash
from waitroom.queue.schedule import Event, EventRecord, Phase, encode_event, parse_record
from waitroom.queue.stored_data import field_problem, type_problem
from waitroom.queue.view import RoomState, RoomView, parse_view
from waitroom.store.connection import call_twice
from waitroom.store.errors import StoreErrorKind
from waitroom.store.scripts import Constant, load_script

Result = TypeVar("Result")

LOOK_UPS_PER_TICK = 1000
SEEN_BATCH = 2000
AUDIT_EVENTS_PER_READ = 100

# Actors that change a room besides its operators, as named in the audit log: no user can have these names.
_SHOP = json.dumps({"who": "the shop", "via": "shop", "action": "change"})
_FILE = json.dumps({"who": "the settings file", "via": "file", "action": "change"})

# The room's keys by the names that they have here and, in upper case, in the scripts. In the store, four have others.
_STORED = {"rank_index": "table", "issued_ranges": "given", "recovered": "heard", "audit_outbox": "notes"}
KEYS = {
    name: _STORED.get(name, name)
    for name in (
        *("room", "waiting", "called", "away", "missed", "active", "ended", "rank_index", "seen"),
        *("issued_ranges", "recovered", "audit_outbox"),
        *("turns", "moved", "moved_until", "hard_ends", "feed", "reported", "events", "event_stats"),
    )
}

# The fields that an event's start remembers and its end puts back.
EVERY_LIMIT = [*(field.stored for field in LIMITS), AUTOPILOT.stored]

# Constants that the scripts use besides their arguments.
_CONSTANTS: dict[str, Constant] = {
    **{name: value for name, value in vars(constants).items() if name.isupper()},
    "ROOM_FIELDS": [field.stored for field in FIELDS if field.in_scripts],
    "TEXT_FIELDS": frozenset(field.stored for field in FIELDS if field.in_scripts and not field.format.number),
    # The state of a recovery; read only while there is one.
    "RECOVERY_FIELDS": [
        *("lost_in", "settled_at", "expected_waiting", "expected_active", "reported_waiting", "reported_active"),
        *("sweep_called", "sweep_active"),
    ],
    "EVERY_LIMIT": EVERY_LIMIT,
    "NEW_ROOM": [part for field in FIELDS if field.initial is not None for part in (field.stored, field.initial)],
}

SCRIPTS = (
    *("open", "recover", "join", "tick", "visit", "seen", "session", "leave", "view"),
    *("set", "stock", "change", "change_event", "call_out_of_order", "end"),
)

Fate = Literal["waiting", "called", "admitted", "unknown"]
ApiCommand = Literal["api_release", "api_hold", "api_extend"]
SessionOperation = Literal["keep", "resume", "hold", "extend", "end", "release", "restore"] | ApiCommand
EventAction = Literal["set", "start", "end", "cancel"]
EventRefusal = Literal["unknown", "ended", "not_started", "started", "busy", "too_many"]
Called = Literal["called", "admitted", "unknown", "not_open", "full", "too_many"]


@dataclass(slots=True)
class Newest:
    """The newest state of a room that a client has seen; a store that is behind it has lost writes.

    Attributes:
        generation: The generation in which it was seen; 0 if nothing was seen yet.
        changes: How many changes of where visitors are the store had counted.
        place: The newest place.
        waiting: How many visitors waited or were called; -1 if unknown.
        active: How many sessions were active; -1 if unknown.
        draws: The shuffled prequeues, as in `waitroom.queue.schedule.Draws`.
    """

    generation: int = 0
    changes: int = 0
    place: int = 0
    waiting: int = -1
    active: int = -1
    draws: str = ""

    def add_place(self, generation: int, place: int) -> None:
        """Takes in a place that the store has just issued."""
        if generation == self.generation:  # what was seen in an older one must be reported first
            self.place = max(self.place, place)

    def add_view(self, view: RoomView) -> None:
        """Takes in a view."""
        newer = view.generation != self.generation
        self.generation = view.generation
        self.changes = view.changes if newer else max(self.changes, view.changes)
        self.place = view.newest_place if newer else max(self.place, view.newest_place)
        self.draws = view.draws.text
        if view.recovering:  # not all are back, but newcomers may have come
            self.waiting = max(self.waiting, view.waiting + view.called)
            self.active = max(self.active, view.active)
        else:
            self.waiting, self.active = view.waiting + view.called, view.active

    def exceeds_start_of(self, view: RoomView) -> bool:
        """Whether the generation of a view began with less than was seen in an older one."""
        if not self.generation or self.generation == view.generation:
            return False
        return self.changes > view.opened_changes or self.place > view.opened_place

    def arguments(self) -> tuple[int | str, ...]:
        """The arguments of the scripts."""
        return self.generation, self.changes, self.place, self.waiting, self.active, self.draws


@dataclass(frozen=True, slots=True)
class Joined:
    """The result of a join: ``n`` places from ``first_place`` on, the first ``admitted`` of them admitted immediately.

    ``first_place`` is 0 if the room accepts nobody (it is closed or sold out).
    """

    generation: int
    first_place: int
    admitted: int
    waiting: int
    state: RoomState
    clock_ms: int


@dataclass(frozen=True, slots=True)
class Visit:
    """A ticket to look up.

    Attributes:
        place, generation: Those of the ticket.
        claim: Whether to exchange a called ticket for a session.
        more: Whether to give a called visitor the time to claim the turn once more; a second request adds no time.
        notify: Whether the visitor sees the reply; a called visitor's time to claim the turn then starts.
        waited_seconds: How long the visitor has waited; counted when a claim succeeds.
        promised_seconds: The wait shown at first; 0 if it was unknown.
    """

    place: int
    generation: int
    claim: bool
    more: bool = False
    notify: bool = True
    waited_seconds: int = 0
    promised_seconds: int = 0

    @property
    def purpose(self) -> str:
        """The purpose under its name in ``scripts/visit.lua``."""
        if self.claim:
            return "claim"
        if self.more:
            return "more"
        return "notify" if self.notify else "peek"


@dataclass(frozen=True, slots=True)
class Visited:
    """The result of looking up a ticket.

    Attributes:
        fate: The ticket's status.
        left_ms: Milliseconds left to claim the turn of a called ticket, or until the hard end of an admitted session.
        moved_to: The place the ticket stands for from now on, if it has changed; else 0. Visitors who were notified of
            their turn and missed it return to a new place at the end.
    """

    fate: Fate
    left_ms: int
    moved_to: int = 0


@dataclass(frozen=True, slots=True)
class SessionChange:
    """One operation on a session; the meaning of ``ms`` depends on the operation (see ``scripts/session.lua``)."""

    operation: SessionOperation
    session: int
    ms: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """The result of one tick, in visitors; ``stopped_early`` means that more work is due immediately."""

    called: int
    skipped: int
    ended: int
    missed: int
    dropped: int
    stopped_early: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """The result of an operator's change.

    Attributes:
        done: False if it was based on a version that is no longer current; nothing is changed then.
        version: The room's current version.
        old: The previous values of the fields; empty if nothing is changed.
    """

    done: bool
    version: int
    old: dict[str, str]


class QueueStore:
    """The queue of one room.

    Every method raises `StoreUnavailable` if Redis doesn't answer in time, and its subclass `RoomNotOpen` if the room
    must be opened first, or `UnreadableRoomError` if its data can't be read. After that no script runs before the data
    has been checked: a script that fails halfway may lose entries.

    Attributes:
        newest: The newest state of the room that this client has seen.

    Args:
        redis: A client that returns bytes; see `connect`.
        room: The room's name; it is the hash tag of all the room's keys.
        clock: The wall clock in milliseconds since the epoch, for tests; None uses the server's.
        run_id: The server's run id, for tests; None uses the server's own.
    """

    def __init__(
        self,
        redis: Redis,
        room: str,
        *,
        clock: Callable[[], int] | None = None,
        run_id: Callable[[], str] | None = None,
    ) -> None:
        self._redis = redis
        self.newest = Newest()
        self._clock = clock
        self._run_id = run_id
        self._room = room
        self._unreadable = False
        self.keys = {name: f"waitroom:{{{room}}}:{stored}" for name, stored in KEYS.items()}
        self._key_list = list(self.keys.values())
        self._scripts = {name: redis.register_script(text) for name, text in _scripts().items()}

    async def _run(self, name: str, *arguments: str | int, run_id: str = "") -> Any:
        now = "" if self._clock is None else str(self._clock())
        if self._run_id is not None:
            run_id = self._run_id()
        if self._unreadable:
            await self.check()
        # Every script may run twice; those that give something away recognize the second run.
        script, given = self._scripts[name], (now, run_id, *arguments)
        reply = await self._ask(lambda: script(keys=self._key_list, args=given))
        if reply is None:
            await self.check()  # a key of another program looks like a loss of data, and none must be begun for it
            raise RoomNotOpen("the room isn't open since the store was started")
        return reply

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a call that may run twice. Raises `UnreadableRoomError` for data that it can't use."""
        try:
            return await call_twice(call)
        except StoreUnavailable as error:
            if error.kind != StoreErrorKind.DATA:
                raise
            raise await self._diagnosed(error.detail) from error

    async def check(self) -> None:
        """Checks that the room's data can be read. Raises `UnreadableRoomError` with the key, the field and the value.

        It looks at the types of the keys and at the fields of the room, not at single visitors.
        """
        try:
            problem = await self._find_problem()
        except StoreUnavailable as error:
            if error.kind not in (StoreErrorKind.PERMISSION, StoreErrorKind.UNKNOWN_COMMAND):
                raise
            problem = ""  # only the scripts may read the data
        if problem:
            raise self._error(problem)
        self._unreadable = False

    async def _find_problem(self) -> str:
        types = await call_twice(self._key_types)
        for (name, key), type_ in zip(self.keys.items(), types, strict=True):
            if problem := type_problem(name, key, type_.decode()):
                return problem
        stored: Any = await call_twice(lambda: self._redis.hgetall(self.keys["room"]))
        fields = {name.decode(errors="replace"): text.decode(errors="replace") for name, text in stored.items()}
        return field_problem(self.keys["room"], fields)

    async def _key_types(self) -> Any:
        pipeline = self._redis.pipeline(transaction=False)
        for key in self._key_list:
            pipeline.type(key)
        return await pipeline.execute()

    async def _diagnosed(self, detail: str) -> UnreadableRoomError:
        """Returns an error that names what can't be read, or else has the details of the failed call."""
        try:
            await self.check()
        except UnreadableRoomError as error:
            return error
        return self._error(f"data of another format ({detail})")

    def _error(self, problem: str) -> UnreadableRoomError:
        self._unreadable = True
        return UnreadableRoomError(f"the data of room {self._room} can't be read: {problem}", StoreErrorKind.DATA)

    async def _parsed(self, parse: Callable[[], Result]) -> Result:
        """Returns what ``parse`` makes of a reply. Raises `UnreadableRoomError` if it can't."""
        try:
            return parse()
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise await self._diagnosed(f"{type(error).__name__}: {error}") from error

    async def run_id(self) -> str:
        """The run id of the connected server: it changes after a restart or a failover."""
        info = await call_twice(lambda: self._redis.info("server"))
        return str(info["run_id"])

    async def open(self, limits: Limits, events: Mapping[str, str] | None = None, run_id: str = "") -> int:
        """Opens the room or resumes it.

        Args:
            limits: The limits in the settings file.
            events: Its events by name, each as from `waitroom.queue.schedule.encode_event`.
            run_id: The server's run id; "" looks it up.

        Returns:
            The generation.
        """
        pairs = [part for pair in limits.fields().items() for part in pair]
        definitions = json.dumps(list((events or {}).values()))
        return int(await self._run("open", _FILE, *self.newest.arguments(), definitions, *pairs, run_id=run_id))

    async def join(self, count: int) -> Joined:
        """Gives ``count`` newcomers their places, in one step."""
        generation, first, admitted, waiting, state, clock = await self._run("join", count, secrets.token_hex(8))
        self.newest.add_place(int(generation), int(first) + count - 1)
        room_state = await self._parsed(lambda: RoomState(state.decode()))
        return Joined(int(generation), int(first), admitted, waiting, room_state, int(clock))

    async def visit(self, visits: Sequence[Visit]) -> list[Visited]:
        """Looks up tickets, in order. Visitors who were skipped become waiting again."""
        arguments: list[str | int] = []
        for visit in visits:
            arguments += (visit.place, visit.generation, visit.purpose)
            arguments += (visit.waited_seconds, visit.promised_seconds)
        replies = await self._run("visit", *arguments)
        return [Visited(fate.decode(), left, moved_to) for fate, left, moved_to in replies]

    async def seen(self, places: Iterable[int]) -> None:
        """Marks waiting visitors as present now."""
        everyone = list(places)
        for start in range(0, len(everyone), SEEN_BATCH):
            chunks: dict[int, list[str]] = {}
            for place in everyone[start : start + SEEN_BATCH]:
                chunks.setdefault(place // CHUNK, []).append(str(place % CHUNK))
            await self._run("seen", *(part for chunk, marks in chunks.items() for part in (chunk, " ".join(marks))))

    async def change_sessions(self, changes: Sequence[SessionChange]) -> list[int]:
        """Keeps or ends sessions, in order.

        Returns:
            For each 0 if it is over; else, for ``resume``, the milliseconds left until its end, and 1 for the others.
        """
        arguments: list[str | int] = []
        for change in changes:
            arguments += (change.operation, change.session, change.ms)
        return list(await self._run("session", "", "", *arguments))

    async def command_session(self, change: SessionChange, audit_event: str = "") -> bool:
        """Executes a command by the API; False if no such session is active.

        A session that was released or ended recently counts as released.

        Args:
            change: The command, an operation that begins with ``api_``.
            audit_event: As for `change`.
        """
        key = secrets.token_hex(8) if audit_event else ""  # without an event, a repetition changes nothing
        (done,) = await self._run("session", audit_event, key, change.operation, change.session, change.ms)
        return bool(done)

    async def leave(self, place: int, pass_ms: int, *, has_pass: bool = False) -> bool:
        """Gives up a place or its session.

        Args:
            place: The place, or the session.
            pass_ms: How long a pass for it may remain in circulation.
            has_pass: Whether the visitor has presented a pass for it. A place that only waits leaves no trace.
        """
        return bool(await self._run("leave", place, pass_ms, int(has_pass)))

    async def tick(self, look_ups: int = LOOK_UPS_PER_TICK) -> Ticked:
        """Ends expired entries and calls the visitors who are due. Looks at no more than ``look_ups`` visitors."""
        called, stepped, ended, missed, dropped, early = await self._run("tick", look_ups)
        return Ticked(called, stepped, ended, missed, dropped, bool(early))

    async def set_limits(self, changes: Mapping[str, str]) -> None:
        """Changes fields of `Limits.fields` while the room is open, on behalf of the shop."""
        await self._run("set", _SHOP, "", *(part for pair in changes.items() for part in pair))

    async def set_state(self, state: RoomState, message: str | None = None) -> None:
        """Opens, pauses, closes or sells out the room for the shop, optionally with a message to waiting visitors."""
        changes = {STATE.stored: str(state)}
        await self.set_limits(changes if message is None else {**changes, MESSAGE.stored: message})

    async def report_sold_out(self, *, age_ms: int = 0) -> None:
        """Sells out the room for the shop, unless nothing was on sale: before an event, or in a closed room.

        Args:
            age_ms: How many milliseconds ago the shop said so.
        """
        await self._run("set", _SHOP, age_ms, STATE.stored, str(RoomState.SOLD_OUT))

    async def set_remaining(self, remaining: int, *, age_ms: int = 0, by_api: bool = False) -> None:
        """Takes in the number of units left, as reported by the shop. At zero the room sells out by itself.

        Args:
            remaining: The units left.
            age_ms: How many milliseconds ago the shop reported them.
            by_api: Whether the report came by the API. One that came with a response may have been under way for a
                while; it doesn't raise the number from zero within two seconds.
        """
        await self._run("stock", remaining, age_ms, "1" if by_api else "", _SHOP)

    async def events(self) -> list[EventRecord]:
        """The events of the room, by start: those to come and in progress, and those that ended in the last 90 days."""
        found: Any = await self._ask(lambda: self._redis.hvals(self.keys["events"]))
        records = await self._parsed(lambda: [parse_record(text.decode()) for text in found])
        return sorted(records, key=lambda record: (record.event.start_ms, record.event.name))

    async def event(self, name: str) -> EventRecord | None:
        """An event, with its totals and figures up to now if it is in progress; None if it doesn't exist."""

        async def read() -> Any:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hget(self.keys["events"], name)
                pipeline.hgetall(self.keys["room"])
                pipeline.hgetall(self.keys["event_stats"])
                return await pipeline.execute()

        record, room, stats = await self._ask(read)
        return None if record is None else await self._parsed(lambda: _current_record(record, room, stats))

    async def change_event(
        self,
        action: EventAction,
        name: str,
        *,
        expected: int | None,
        who: str,
        audit_event: str,
        definition: tuple[Event, str] | None = None,
    ) -> Changed | EventRefusal:
        """Changes an event if the room's version is the expected one; None skips the check.

        Args:
            action: The change; see ``scripts/change_event.lua``.
            name: The event's name.
            expected: The version the change was based on.
            who: The actor recorded with the change.
            audit_event: As for `change`.
            definition: For ``set``, the event and its seed; see `waitroom.queue.schedule.shuffle_seed`.

        Returns:
            The result, without old values; or why it can't be done.
        """
        version = "" if expected is None else expected
        text = "" if definition is None else encode_event(*definition)
        reply = await self._run("change_event", version, secrets.token_hex(8), who, audit_event, action, name, text)
        if reply[0] == 2:
            refusal: EventRefusal = reply[1].decode()
            return refusal
        return Changed(bool(reply[0]), int(reply[1]), {})

    async def limits_without_event(self) -> dict[str, Any]:
        """The limits and ``autopilot`` by public name, as they are without the running event and will be after it."""
        found = await self._ask(lambda: self._redis.hmget(self.keys["room"], [*EVERY_LIMIT, "before_event"]))
        texts = {name: text.decode() for name, text in zip(EVERY_LIMIT, found[:-1], strict=True) if text is not None}
        if RATE.stored not in texts:
            raise RoomNotOpen("the room was never opened")
        before: dict[str, str] = await self._parsed(lambda: json.loads(found[-1] or "{}"))
        return await self._parsed(lambda: from_hash(texts | before))

    async def limits(self) -> Limits:
        """The limits in force. Raises `RoomNotOpen` if the room was never opened."""
        stored = [field.stored for field in LIMITS]
        found = await self._ask(lambda: self._redis.hmget(self.keys["room"], stored))
        texts = {field.stored: text.decode() for field, text in zip(LIMITS, found, strict=True) if text is not None}
        if RATE.stored not in texts:
            raise RoomNotOpen("the room was never opened")
        values = await self._parsed(lambda: from_hash(texts))
        # A room stored by an older version lacks these until it is opened.
        values.setdefault("claim_after_told_seconds", min(90.0, values["claim_seconds"]))
        values.setdefault("session_max_seconds", 14_400.0)
        values.setdefault("recovery_seconds", 30.0)
        return Limits(**values)

    async def change(
        self,
        changes: Mapping[str, str],
        *,
        expected: int | None,
        who: str = "",
        undoable: bool = True,
        audit_event: str = "",
    ) -> Changed:
        """Changes fields of the room if its version is the expected one; None skips the check.

        Args:
            changes: Fields of the room's hash and their values.
            expected: The version the change was based on.
            who: The actor recorded with the last change; "" leaves the record as it is.
            undoable: Whether it can be undone.
            audit_event: The event for the audit log, without the values, as JSON from
                `waitroom.control.rooms.audit_outbox`; "" for nothing.
        """
        pairs = [part for pair in changes.items() for part in pair]
        version = "" if expected is None else expected
        reply = await self._run("change", version, secrets.token_hex(8), who, int(undoable), audit_event, *pairs)
        if not reply[0]:
            return Changed(False, int(reply[1]), {})
        return Changed(True, int(reply[1]), dict(zip(changes, (value.decode() for value in reply[2]), strict=True)))

    async def audit_events(self) -> list[bytes]:
        """The events in the room's audit outbox, oldest first; no more than `AUDIT_EVENTS_PER_READ`."""
        outbox = self.keys["audit_outbox"]
        found = await self._ask(lambda: self._redis.lrange(outbox, 0, AUDIT_EVENTS_PER_READ - 1))
        return list(found)

    async def remove_audit_event(self, event: bytes) -> None:
        """Removes one of `audit_events` that the audit log has."""
        # No two events are equal, so removing one twice removes no other.
        await call_twice(lambda: self._redis.lrem(self.keys["audit_outbox"], 1, event))  # type: ignore[arg-type]

    async def call_out_of_order(self, place: int, audit_event: str) -> Called:
        """Calls one visitor out of order, if there is a slot. ``audit_event`` as for `change`."""
        outcome: Called = (await self._run("call_out_of_order", place, audit_event, secrets.token_hex(8))).decode()
        return outcome

    async def end_session(self, session: int, pass_ms: int, audit_event: str) -> bool:
        """Ends a session at an operator's request; False if no such session is active.

        Args:
            session: The session.
            pass_ms: How long a pass for it may remain in circulation.
            audit_event: As for `change`.
        """
        return bool(await self._run("end", session, pass_ms, audit_event, secrets.token_hex(8)))

    async def view(self, known: RoomView | None = None) -> RoomView:
        """The room as an edge keeps it. Reports to the store if it has lost what this client had seen.

        ``known`` avoids sending its rank index again while it is current, and determines which ended sessions are new.
        """
        view = await self._view(known)
        if self.newest.exceeds_start_of(view):
            await self._run("recover", *self.newest.arguments())
            view = await self._view(known)
        self.newest.add_view(view)
        return view

    async def _view(self, known: RoomView | None) -> RoomView:
        seen = self.newest.changes, self.newest.generation
        if known is None:
            reply = await self._run("view", "", "0", "", *seen)
            return await self._parsed(lambda: parse_view(reply, None))
        reply = await self._run("view", known.rank_index.stamp, known.ends_read or "0", known.generation, *seen)
        return await self._parsed(lambda: parse_view(reply, known.rank_index))


def _current_record(text: bytes, room: Mapping[bytes, bytes], stats: Mapping[bytes, bytes]) -> EventRecord:
    record = parse_record(text.decode())
    if record.phase not in (Phase.PREQUEUE, Phase.RUNNING):
        return record
    names = [name.decode().removeprefix("total:") for name in room if name.startswith(b"total:")]
    return replace(
        record,
        totals={name: int(room[f"total:{name}".encode()]) - record.begin.get(name, 0) for name in names},
        stats={name.decode(): int(value) for name, value in stats.items()},
    )


@cache
def _scripts() -> dict[str, str]:
    return {
        name: load_script(
            "waitroom.queue", name, preludes=("common", "schedule"), keys=list(KEYS), constants=_CONSTANTS
        )
        for name in SCRIPTS
    }
