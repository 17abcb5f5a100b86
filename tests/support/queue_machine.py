"""A room under test: a real store and the reference model do the same, and all that is stored is compared each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine

from support.examples import LONG
from support.room_history import Memory
from support.stored_room import READ, Contents, StoredRoom, assert_as_expected, contents_of, parse_reply
from waitroom.queue.constants import EPOCH_MS, PLACES_PER_MS
from waitroom.queue.fields import Limits
from waitroom.queue.positions import Forecast
from waitroom.queue.reference_model import QueueModel
from waitroom.queue.schedule import Event, encode_event
from waitroom.queue.store import EventAction, Newest, QueueStore, RoomNotOpen, SessionChange, Visit
from waitroom.queue.view import RoomState, RoomView
from waitroom.store.connection import connect

Answer = TypeVar("Answer")

NOON = 1_790_000_000_000
HOUR_MS = 3_600_000
SERVER_SECONDS = 10.0
TOLD = '{"who": "ada", "via": "api", "action": "admit"}'


def seed_of(name: str) -> str:
    return sha256(name.encode()).hexdigest()


class QueueMachine(RuleBasedStateMachine):
    """One room, its visitors, its workers and controllers, on a server that may fail; the rules are in subclasses."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.wall = NOON
        self.run_id = "run 0"
        self.clients = [connect(url, timeout_seconds=SERVER_SECONDS) for _ in range(2)]
        self.stores = [
            QueueStore(client, "shop", clock=lambda: self.wall, run_id=lambda: self.run_id)
            for client in self.clients
            for _ in range(2)
        ]
        self.reader = self.clients[0].register_script(READ)
        self.file_events: dict[str, Event] = {}
        self.planned = 0
        self.model = QueueModel(self.run_id)
        self.tickets: dict[int, int] = {}
        self.known_view: RoomView | None = None
        self.newest_generation = 0
        self.saved: tuple[dict[Any, Any], QueueModel, Memory] | None = None
        self.runner.run(self._restore({}))

    def teardown(self) -> None:
        for client in self.clients:
            self.runner.run(client.aclose())
        self.runner.close()

    def _clock_is_right(self) -> None:
        """A server that has forgotten the newest places can tell only by its clock that they were given."""
        given = EPOCH_MS + self.history.greatest_place // PLACES_PER_MS + 1
        self.wall = max(self.wall, given, self.newest_generation + 1)

    def _new_server(self, before: Contents | None = None) -> None:
        self.wall += 1
        self.run_id = self.model.run_id = f"run {int(self.run_id.split()[1]) + 1}"
        self._begin_again(before)

    def _begin_again(self, before: Contents | None) -> None:
        """``before``: what was there before a loss, if all workers know it."""
        self.known_view = None
        self._refused()
        self._open(self.history.memory.file)
        self.history.loss = None
        if before is not None:
            self.history.workers_know(before, self.history.contents)
        # Workers report sessions; some inside go on and one has done; who has had a turn tries the old ticket of an
        # older generation.
        inside = list(self.history.passes)
        clock = self.history.memory.clock
        self._change_sessions(
            [SessionChange("restore", session, self.history.passes[session] - clock) for session in inside[1::2]]
            + [SessionChange("keep", session, HOUR_MS) for session in inside[::4]]
            + [SessionChange("end", session, 0) for session in inside[1:2]]
        )
        self._visit([place for place in self.tickets if place in self.history.memory.gone], "tell")

    # How it is all done.

    def _do(
        self, ask: Callable[[QueueStore], Coroutine[Any, Any, Answer]], expect: Callable[[], Answer]
    ) -> tuple[Answer, Contents]:
        """The same of the store, through one worker after the other, and of the model."""
        self.stores.append(self.stores.pop(0))
        recovery, is_new = self.model.recovery, self.model.opened_under is None
        expected = expect()
        answer = self.runner.run(ask(self.stores[-1]))
        assert answer == expected
        room, after = self.runner.run(self._read())
        assert_as_expected(room, self.model)
        assert after == contents_of(self.model)
        self.history.look(self.wall)
        self.history.holding = self.model.resume_at > 0
        self.history.recovery_has_just_begun = False
        if self.model.recovery is not None and self.model.recovery is not recovery:
            self.history.recovery_begins()
        assert room.fields["clock"] == str(self.history.memory.clock)
        self.history.follow(room, after, is_new=is_new)
        return answer, after

    def _refused(self) -> None:
        """Until the room is opened nothing is done."""
        before = self.runner.run(self._read())
        asks: list[Callable[[QueueStore], Coroutine[Any, Any, object]]] = [
            lambda store: store.join(1),
            lambda store: store.visit([Visit(1, 1, claim=True)]),
            lambda store: store.tick(),
            lambda store: store.seen([1]),
            lambda store: store.view(),
        ]
        for ask in asks:
            with pytest.raises(RoomNotOpen):
                self.runner.run(ask(self.stores[0]))
        with pytest.raises(RoomNotOpen):
            self.model.join(self.wall, 1)
        assert self.runner.run(self._read()) == before

    def _open(self, limits: Limits) -> None:
        self.history.memory.file_read(limits)
        events = {name: encode_event(event, seed_of(name)) for name, event in self.file_events.items()}
        generation, after = self._do(
            lambda store: store.open(limits, events, run_id=self.run_id),
            lambda: self.model.open(self.wall, limits, self.stores[-1].newest, events),
        )
        self.newest_generation = max(self.newest_generation, generation)
        self.history.nothing_moved(after)

    def _set_limits(self, limits: Limits) -> None:
        old, new = self.history.memory.limits.fields(), limits.fields()
        changes = {name: new[name] for name in new if new[name] != old[name]}
        _, after = self._do(lambda store: store.set_limits(changes), lambda: self.model.set_limits(self.wall, changes))
        self.history.nothing_moved(after)

    def _set_state(self, state: RoomState) -> None:
        _, after = self._do(
            lambda store: store.set_state(state, "soon"), lambda: self.model.set_state(self.wall, state, "soon")
        )
        self.history.nothing_moved(after)

    def _change(self, change: tuple[str, Any] | RoomState, expected: int | None) -> None:
        limits = self.history.memory.limits
        if isinstance(change, RoomState):
            changes = {"state": str(change), "draining": "1" if change is RoomState.PAUSED else ""}
        else:
            old, limits = limits.fields(), replace(limits, **dict([change]))
            changes = {name: value for name, value in limits.fields().items() if value != old[name]}
        version = self.model.version
        changed, after = self._do(
            lambda store: store.change(changes, expected=expected, who="ada", audit_event=TOLD),
            lambda: self.model.change(self.wall, changes, expected, "ada"),
        )
        assert changed.done or expected is not None
        assert not changed.done or expected in (None, version) or self.model.version > version + 1
        self.history.nothing_moved(after)

    def _change_event(
        self, action: EventAction, name: str, expected: int | None = None, event: Event | None = None
    ) -> None:
        definition = None if event is None else (event, seed_of(name))
        text = "" if definition is None else encode_event(*definition)
        _, after = self._do(
            lambda store: store.change_event(
                action, name, expected=expected, who="ada", audit_event=TOLD, definition=definition
            ),
            lambda: self.model.change_event(self.wall, action, name, expected=expected, who="ada", definition=text),
        )
        self.history.nothing_moved(after)

    def _report_stock(self, units: int, age_ms: int, *, by_api: bool) -> None:
        _, after = self._do(
            lambda store: store.set_remaining(units, age_ms=age_ms, by_api=by_api),
            lambda: self.model.set_remaining(self.wall, units, age_ms, by_api=by_api),
        )
        self.history.nothing_moved(after)

    def _pick(self, crowd: Iterable[int], picks: list[int]) -> list[int]:
        members = list(crowd)
        return [members[pick % len(members)] for pick in picks] if members else []

    def _join(self, count: int) -> None:
        joined, after = self._do(lambda store: store.join(count), lambda: self.model.join(self.wall, count))
        if joined.first_place:
            for place in range(joined.first_place, joined.first_place + count):
                self.tickets[place] = joined.generation
        self.history.joined(joined, count, after)

    def _visit(self, places: list[int], purpose: str) -> None:
        visits = [
            Visit(
                *(place, self.tickets[place], purpose == "claim", purpose == "more", purpose != "look"),
                *(place % 50, place % 3 * 20),
            )
            for place in places
        ]
        if visits:
            answers, after = self._do(lambda store: store.visit(visits), lambda: self.model.visit(self.wall, visits))
            for answer in answers:
                if answer.moved_to:
                    self.tickets.setdefault(answer.moved_to, self.model.generation)
            self.history.visited(visits, answers, after)

    def _poll(self, places: list[int]) -> None:
        if places:
            _, after = self._do(lambda store: store.seen(places), lambda: self.model.seen(self.wall, places))
            self.history.seen(places, after)

    def _leave(self, place: int, pass_ms: int, *, has_pass: bool = False) -> None:
        young = self.tickets[place] == self.model.generation
        answer, after = self._do(
            lambda store: store.leave(place, pass_ms, has_pass=has_pass),
            lambda: self.model.leave(self.wall, place, pass_ms, has_pass),
        )
        self.history.left(place, pass_ms, answer, after, has_pass=has_pass, young=young)

    def _change_sessions(self, changes: list[SessionChange]) -> None:
        if changes:
            alive, after = self._do(
                lambda store: store.change_sessions(changes), lambda: self.model.change_sessions(self.wall, changes)
            )
            self.history.sessions_changed(changes, alive, after)

    def _tick(self, look_ups: int) -> None:
        recovering = self.model.recovery is not None
        ticked, after = self._do(lambda store: store.tick(look_ups), lambda: self.model.tick(self.wall, look_ups))
        self.history.ticked(ticked, after, recovered=recovering and self.model.recovery is None)

    def _look(self) -> None:
        """The view as an edge gets it, with a new rank index."""
        self.wall += 1001
        views: list[RoomView] = []

        async def look(store: QueueStore) -> dict[str, object]:
            views.append(await store.view(self.known_view))
            seen = {name: getattr(views[0], name) for name in self.model.view(self.wall)}
            return seen | {"draws": views[0].draws.text}

        known = self.known_view
        _, after = self._do(look, lambda: self._expected_view(self.stores[-1].newest))
        self.history.nothing_moved(after)
        self._check_ends(known, views[0])
        view = self.known_view = views[0]
        for place in (*after.called, *after.away):
            # Else an edge would go on telling from memory that they wait.
            rank = view.draws.rank(place)
            assert rank <= view.high_water_mark or place in view.invited or self.tickets[place] != view.generation
        # The room's clock stands still after a wall clock was set back, and so does the table.
        is_new = known is None or known.rank_index.stamp != view.rank_index.stamp
        ranks = [view.draws.rank(place) for place in after.waiting]
        if (
            is_new
            and view.rank_index.stamp == str(view.clock_ms)
            and len(after.waiting) <= 64
            and ranks == sorted(ranks)
        ):
            positions = [view.rank_index.position(rank) for rank in ranks]
            assert positions == [*range(1, len(after.waiting) + 1)]
            open_draw = [place for place in after.waiting if view.draws.is_open(place)]
            assert all((view.position(place) is None) == (place in open_draw) for place in after.waiting)
        waits = [
            Forecast(view.rate_per_minute, view.throughput, view.free_slots).wait(position)
            for position in range(1, len(after.waiting) + 2)
        ]
        known = [wait for wait in waits if wait is not None]
        assert known == sorted(known)
        assert waits[: len(known)] == known

    def _expected_view(self, newest: Newest) -> dict[str, object]:
        """Reads a view as a worker that has seen this much before; the worker reports to a store that is behind."""
        if newest.generation and newest.generation != self.model.generation:
            self.model.recover(self.wall, newest)
        return self.model.view(self.wall)

    def _check_ends(self, known: RoomView | None, view: RoomView) -> None:
        """A view tells all that ended since the one before it, once."""
        same = known is not None and known.generation == view.generation
        ends, read = self.model.ends(self.wall, int(known.ends_read) if known is not None and same else 0)
        assert (view.ended, view.released, view.ends_read) == (ends["ended"], ends["released"], str(read))
        assert view.prolonged == ends["prolonged"]

    async def _read(self) -> tuple[StoredRoom, Contents]:
        """All that is stored, and who is where."""
        return parse_reply(await self.reader(keys=list(self.stores[0].keys.values())))

    async def _dump(self) -> dict[Any, Any]:
        return {key: await self.clients[0].dump(key) for key in await self.clients[0].keys("*")}

    async def _restore(self, dump: dict[Any, Any]) -> None:
        await self.clients[0].flushall()
        for key, value in dump.items():
            await self.clients[0].restore(key, 0, value)


def machine_settings(count: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=40,
        deadline=None,
        # What is wrong must be found by whoever brings it; the long profile tries new examples.
        derandomize=settings.get_current_profile_name() != LONG,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
