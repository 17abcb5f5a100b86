"""The line's rarer promises, one by one, on a real store."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from waitroom.process.embedded_store import EmbeddedStore
from waitroom.queue.constants import CHUNK, SETTLE_MS
from waitroom.queue.fields import Limits
from waitroom.queue.store import ApiCommand, QueueStore, RoomNotOpen, SessionChange, Visit
from waitroom.queue.view import RoomState
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

SERVER_SECONDS = 10.0
NOON = 1_790_000_000_000
COMMANDS: tuple[ApiCommand, ...] = ("api_release", "api_hold", "api_extend")
LIMITS = Limits(600, 5, 900, 180, 180, 3600)


@dataclass
class Server:
    """A server whose clock and run id are set by hand."""

    now: int = NOON
    run_id: str = "first"


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def store(valkey: str, server: Server) -> AsyncIterator[QueueStore]:
    async with connect(valkey, timeout_seconds=SERVER_SECONDS) as redis:
        yield QueueStore(redis, "shop", clock=lambda: server.now, run_id=lambda: server.run_id)


async def restart(store: QueueStore, server: Server, *, empty: bool = False) -> int:
    """Another run of the server, a minute later, perhaps with nothing left; returns the generation."""
    if empty:
        await store._redis.flushall()
    server.now += 60_000
    server.run_id += " and another"
    return await store.open(LIMITS)


async def fate(store: QueueStore, place: int, generation: int, *, claim: bool = False) -> str:
    [visited] = await store.visit([Visit(place, generation, claim)])
    return visited.fate


async def test_a_room_is_refused_until_it_is_opened_under_this_run_of_the_server(
    store: QueueStore, server: Server
) -> None:
    with pytest.raises(RoomNotOpen):
        await store.join(1)
    await store.open(LIMITS)
    await store.join(1)
    server.run_id = "promoted"
    for refused in (store.join(1), store.visit([]), store.tick(), store.view(), store.seen([1]), store.leave(1, 0)):
        with pytest.raises(RoomNotOpen):
            await refused


async def test_opening_again_changes_nothing(store: QueueStore) -> None:
    generation = await store.open(LIMITS)
    first = await store.join(1)
    assert await store.open(LIMITS) == generation
    assert (await store.join(1)).first_place == first.first_place + 1


async def test_a_limit_in_the_file_counts_when_the_file_changes(store: QueueStore) -> None:
    await store.open(LIMITS)
    await store.set_limits({"max_active": "7"})
    await store.open(LIMITS)
    assert (await store.view()).max_active == 7
    await store.open(replace(LIMITS, rate_per_minute=60))
    assert (await store.view()).max_active == 7
    await store.open(replace(LIMITS, max_active=9))
    assert (await store.view()).max_active == 9


async def test_a_higher_rate_in_the_file_does_not_apply_to_the_past(store: QueueStore, server: Server) -> None:
    await store.open(replace(LIMITS, rate_per_minute=6))
    await store.join(20)
    server.now += 5_000
    await store.open(replace(LIMITS, rate_per_minute=6_000))
    assert (await store.tick()).called == 0


async def test_every_new_version_names_the_author_of_the_change(store: QueueStore) -> None:
    await store.open(LIMITS)
    said: list[tuple[str, dict[str, str], dict[str, str]]] = []
    version = (await store.view()).version
    changes = (
        lambda: store.change({"rate": "60.0"}, expected=None, who="ada"),
        lambda: store.set_state(RoomState.SOLD_OUT, "All gone"),
        lambda: store.open(replace(LIMITS, max_active=9, session_seconds=60)),
        lambda: store.set_remaining(3),
        lambda: store.set_state(RoomState.SOLD_OUT),
        lambda: store.open(replace(LIMITS, max_active=9, session_seconds=60)),
        lambda: store.change({"rate": "70.0"}, expected=None),
    )
    for change in changes:
        await change()
        view = await store.view()
        last = json.loads(view.last_change)
        if view.version != version:
            version = view.version
            said.append((last["who"], last["old"], last["new"]))
        assert (last["who"], last["old"], last["new"]) == said[-1]
        assert json.loads(view.operator_change)["who"] == "ada"
    assert said == [
        ("ada", {"rate": "600.0"}, {"rate": "60.0"}),
        ("the shop", {"state": "open", "message": ""}, {"state": "sold_out", "message": "All gone"}),
        (
            "the settings file",
            {"max_active": "5", "session_ms": "900000"},
            {"max_active": "9", "session_ms": "60000"},
        ),
    ]


@pytest.mark.parametrize("rate", [0.01, 1.0, 59.0])
async def test_a_slow_rate_is_kept_however_often_the_room_is_ticked(
    store: QueueStore, server: Server, rate: float
) -> None:
    await store.open(replace(LIMITS, rate_per_minute=rate))
    await store.join(1)
    for _ in range(500):
        server.now += 1
        await store.tick()
    room = store.keys["room"]
    tokens = await store._redis.hget(room, "tokens")
    assert tokens is not None
    assert float(tokens) == pytest.approx(500 * rate / 60_000, rel=1e-9)


async def test_lost_visitors_are_restored_ahead_of_newcomers(store: QueueStore, server: Server) -> None:
    old = await store.open(LIMITS)
    places = [(await store.join(1)).first_place for _ in range(4)]
    await restart(store, server, empty=True)
    new = await store.join(3)
    assert await fate(store, places[3], old) == "waiting"
    assert await fate(store, places[2], old) == "waiting"
    view = await store.view()
    assert [view.rank_index.position(place) for place in (places[2], places[3], new.first_place + 1)] == [1, 2, 3]


async def test_a_visitor_who_returns_after_a_second_restart_is_restored(store: QueueStore, server: Server) -> None:
    """Meanwhile others were called whose places are greater."""
    old = await store.open(LIMITS)
    places = [(await store.join(1)).first_place for _ in range(4)]
    await restart(store, server, empty=True)
    await store.join(3)
    server.now += 1_000
    assert (await store.tick()).called > 0
    await restart(store, server)
    assert await fate(store, places[3], old) == "waiting"
    server.now += SETTLE_MS
    assert (await store.tick()).called == 1
    assert await fate(store, places[3], old, claim=True) == "admitted"


async def test_a_used_ticket_gets_no_other_turn(store: QueueStore, server: Server) -> None:
    old = await store.open(LIMITS)
    await store.join(2)
    place = (await store.join(1)).first_place
    server.now += 1_000
    await store.tick()
    assert await fate(store, place, old, claim=True) == "admitted"
    for _ in range(2):
        await restart(store, server)
        for _ in range(100):
            server.now += 10_000
            await store.tick()
        assert await fate(store, place, old) == "unknown"


@pytest.mark.parametrize("ending", ["end", "expire", "leave"])
async def test_a_used_ticket_gets_no_other_turn_after_a_loss_of_the_store(
    store: QueueStore, server: Server, ending: str
) -> None:
    old = await store.open(LIMITS)
    place = (await store.join(1)).first_place
    await restart(store, server, empty=True)
    assert await store.change_sessions([SessionChange("keep", place, 1_000)]) == [True]
    if ending == "end":
        await store.change_sessions([SessionChange("end", place, 0)])
    elif ending == "leave":
        await store.leave(place, 0)
    for _ in range(6):
        server.now += 10_000
        await store.tick()
    assert (await store.view()).active == 0
    assert await fate(store, place, old) == "unknown"


async def test_an_adopted_session_leaves_the_queue(store: QueueStore, server: Server) -> None:
    """The store has fallen back behind the claim: the visitor's turn is still there, and is theirs no more."""
    await store.open(LIMITS)
    place = (await store.join(2)).first_place + 1
    server.now += 1_000
    assert (await store.tick()).called == 1
    assert await store.change_sessions([SessionChange("keep", place, 60_000)]) == [True]
    view = await store.view()
    assert (view.called, view.active) == (0, 2)
    assert "overshoot" not in view.totals


async def test_only_its_owner_reaches_the_embedded_store(tmp_path: Path) -> None:
    embedded = EmbeddedStore(tmp_path)
    await embedded.start()
    try:
        assert stat.S_IMODE(embedded.socket.stat().st_mode) == 0o700
        async with connect(embedded.url, timeout_seconds=SERVER_SECONDS) as redis:
            assert await redis.config_get("port", "tls-port") == {"port": "0", "tls-port": "0"}
    finally:
        await embedded.stop()


async def test_a_real_restart_keeps_the_queue(tmp_path: Path) -> None:
    embedded = EmbeddedStore(tmp_path)
    await embedded.start()
    try:
        async with connect(embedded.url, timeout_seconds=SERVER_SECONDS) as redis:
            store = QueueStore(redis, "shop")
            old = await store.open(LIMITS, run_id=await store.run_id())
            before = await store.join(10)
        await embedded.stop()
        await embedded.start()
        async with connect(embedded.url, timeout_seconds=SERVER_SECONDS) as redis:
            store = QueueStore(redis, "shop")
            with pytest.raises(RoomNotOpen):
                await store.view()
            assert await store.open(LIMITS) > old
            after = await store.join(1)
            assert after.first_place > before.first_place + 10
            assert after.waiting == before.waiting + 1
            assert await fate(store, before.first_place + 9, old) == "waiting"
    finally:
        await embedded.stop()


async def test_present_visitors_are_found_across_chunks_of_marks(store: QueueStore, server: Server) -> None:
    """Those alone are called, and all others are skipped."""
    await store.open(replace(LIMITS, max_active=1000))
    first = (await store.join(500)).first_place
    last, border = first + 499, (first // CHUNK + 1) * CHUNK
    while last <= border:
        last = (await store.join(500)).first_place + 499
    there = [first + 3, border - 1, border, border + 1]
    for _ in range(int(LIMITS.away_after_seconds) // 10 + 2):
        server.now += 10_000
        await store.seen(there)
    async with asyncio.timeout(60):
        while (await store.view()).called < len(there):
            await store.tick()
    called = store.keys["called"]
    assert [int(member) for member in await store._redis.zrange(called, 0, -1)] == there
    assert await fate(store, border - 2, 0) == "waiting", "visitors who were skipped are taken back"


@pytest.mark.parametrize("way", ["an operator", "a session change"])
async def test_an_ended_session_is_not_counted_as_released(store: QueueStore, way: str) -> None:
    await store.open(LIMITS)
    joined = await store.join(2)
    ended, released = joined.first_place, joined.first_place + 1
    await store.change_sessions([SessionChange("keep", session, 900_000) for session in (ended, released)])
    if way == "an operator":
        assert await store.end_session(ended, 60_000, "{}")
    else:
        await store.change_sessions([SessionChange("end", ended, 60_000)])
    await store.change_sessions([SessionChange("release", released, 60_000)])
    totals = (await store.view()).totals
    assert (totals.get("left:ended"), totals.get("left:released")) == (1, 1)


async def test_a_command_by_a_number_concerns_only_who_is_inside(store: QueueStore, server: Server) -> None:
    await store.open(replace(LIMITS, max_active=1))
    inside = (await store.join(1)).first_place
    waiting = (await store.join(1)).first_place
    never = waiting + 1000
    for session in (waiting, never, 0, (1 << 64) - 1):
        for operation in COMMANDS:
            assert not await store.command_session(SessionChange(operation, session, 900_000), "{}")
    view = await store.view()
    assert (view.active, view.waiting, view.released, view.prolonged) == (1, 1, (), ())
    assert await store.command_session(SessionChange("api_release", inside, 0))
    server.now += 1_000
    assert (await store.tick()).called == 1
    for operation in COMMANDS:
        assert not await store.command_session(SessionChange(operation, waiting, 900_000)), "a call is no session"
    assert (await store.view()).called == 1
    assert await store.audit_events() == []


async def test_workers_learn_of_the_newest_end_once(store: QueueStore) -> None:
    await store.open(LIMITS)
    session = (await store.join(1)).first_place
    view = await store.view()
    for seconds in (1800, 3600):
        assert await store.command_session(SessionChange("api_hold", session, seconds * 1000))
    view = await store.view(view)
    assert view.prolonged == ((session, 3_600_000),)
    view = await store.view(view)
    assert view.prolonged == ()
    assert await store.command_session(SessionChange("api_extend", session, 10_000))
    assert await store.command_session(SessionChange("api_release", session, 0))
    view = await store.view(view)
    assert (view.prolonged, view.released) == ((), (session,)), "it is over"


async def test_an_audited_command_is_recorded_once_with_its_effect(
    store: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the first reply was lost and the call is repeated."""
    await store.open(LIMITS)
    session = (await store.join(1)).first_place
    monkeypatch.setattr("waitroom.queue.store.secrets.token_hex", lambda _: "the same call")
    for _ in range(2):
        assert await store.command_session(SessionChange("api_hold", session, 900_000), '{"who": "otto"}')
    (event,) = await store.audit_events()
    assert b"otto" in event
