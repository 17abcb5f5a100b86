"""Operations on a real store, without a gateway: what the autopilot and callers in the process rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.rooms.admission_loop import Admission
from waitroom.control.rooms.audit_outbox import AuditOutbox
from waitroom.control.rooms.changes import InvalidChangeError, RoomChanges, RoomStateError, StaleVersionError
from waitroom.control.rooms.operations import Change, Operations
from waitroom.control.rooms.presenter import Rooms
from waitroom.errors import StoreUnavailable
from waitroom.metrics.upstream_window import UpstreamWindow
from waitroom.queue.fields import limits_of
from waitroom.queue.store import QueueStore, Visit
from waitroom.queue.view import RoomState
from waitroom.settings import RoomSettings, Settings
from waitroom.store.connection import connect
from waitroom.tokens import Ticket, Tokens

KEYS = AuditKeys(["the key of the audit log in tests"])
SECRETS = ["a secret of sixteen characters"]
ADA = Actor("ada", Role.OPERATOR, "192.0.2.7", "dashboard")
PILOT = Actor("autopilot", Role.OPERATOR, "", "autopilot")


@dataclass
class Desk:
    """One room and all that an operator needs."""

    store: QueueStore
    admission: Admission
    audit: Audit
    settings: RoomSettings
    flying: bool = False
    notifications: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = Settings(rooms=(self.settings,), workers=2)
        watch = UpstreamWindow(Path("/nowhere"))
        rooms = Rooms(settings, [self.admission], watch, lambda: 2, lambda _room: {"on": self.flying})
        self.rooms = rooms
        stores = {"shop": self.store}
        changes = RoomChanges(rooms, stores, self.audit, lambda: self.notifications.append(None))
        self.operations = Operations(rooms, stores, changes, SECRETS)

    async def change(self, actor: Actor = ADA, expected: int | None = None, note: str = "", **change) -> int:
        return await self.operations.change("shop", Change(**change), expected=expected, actor=actor, note=note)


@pytest.fixture
async def desk(valkey: str) -> AsyncIterator[Desk]:
    async with connect(valkey, timeout_seconds=10) as redis:
        settings = RoomSettings("shop", "http://127.0.0.1:9", rate_per_minute=60.0, max_active=2)
        store = QueueStore(redis, "shop")
        admission = Admission(settings, store)
        await store.open(limits_of(settings))
        await admission.refresh()
        yield Desk(store, admission, Audit(redis, KEYS), settings)


async def test_a_change_shows_at_once_and_notifies_listeners(desk: Desk) -> None:
    version = await desk.change(rate_per_minute=90.0)
    assert desk.admission.view is not None
    assert (desk.admission.view.version, desk.admission.view.rate_per_minute) == (version, 90.0)
    assert desk.notifications == [None]


async def test_a_rate_set_by_hand_switches_the_autopilot_off(desk: Desk) -> None:
    desk.flying = True
    assert desk.operations.preview("shop", Change(rate_per_minute=50.0)).warnings[0].startswith("The autopilot")
    await desk.change(rate_per_minute=50.0)
    assert (await desk.rooms.refresh("shop")).autopilot is False
    await desk.change(rate_per_minute=70.0, autopilot=True)
    assert (await desk.rooms.refresh("shop")).autopilot is True


async def test_changes_by_the_autopilot_keep_versions_and_undo(
    desk: Desk,
) -> None:
    desk.flying = True
    await desk.change(max_active=9)
    version = await desk.change(PILOT, rate_per_minute=0.0)
    assert version == 1
    view = await desk.rooms.refresh("shop")
    assert (view.autopilot, view.rate_per_minute) == (None, 0.0)
    assert desk.rooms.one("shop")["last_change"]["what"] == "max_active 2 → 9"
    assert desk.rooms.one("shop")["wait_seconds"]["newcomer"] is None
    await desk.operations.undo("shop", expected=version, actor=ADA)
    view = await desk.rooms.refresh("shop")
    assert (view.max_active, view.rate_per_minute) == (2, 0.0)
    with pytest.raises(InvalidChangeError):
        await desk.change(rate_per_minute=0.0)


async def test_changes_by_the_shop_and_the_file_are_attributed_and_keep_undo(
    desk: Desk,
) -> None:
    await desk.change(rate_per_minute=90.0)
    await desk.store.set_state(RoomState.SOLD_OUT)
    view = await desk.rooms.refresh("shop")

    room = desk.rooms.one("shop")
    last, undo = room["last_change"], room["undo"]
    assert (last["who"], last["what"], last["undoable"]) == ("the shop", "state open → sold_out", False)
    assert (undo["who"], undo["what"]) == ("ada", "rate_per_minute 60 → 90")

    await desk.operations.undo("shop", expected=view.version, actor=ADA)

    room = desk.rooms.one("shop")
    assert (room["rate_per_minute"], room["state"], room["undo"]) == (60.0, "sold_out", None)
    limits = limits_of(replace(desk.settings, session_seconds=1200.0, session_max_seconds=9000.0, max_active=3))
    await desk.store.open(limits)
    view = await desk.rooms.refresh("shop")
    last = desk.rooms.one("shop")["last_change"]
    assert (last["who"], last["undoable"]) == ("the settings file", False)
    changed = ["max_active 2 → 3", "session_max_seconds 14400 → 9000", "session_seconds 900 → 1200"]
    assert sorted(last["what"].split(", ")) == changed
    with pytest.raises(RoomStateError):
        await desk.operations.undo("shop", expected=view.version, actor=ADA)


async def test_changes_by_the_shop_and_the_file_are_audited_once(desk: Desk, valkey: str) -> None:
    for state in (RoomState.SOLD_OUT, RoomState.OPEN):
        await desk.store.set_state(state)
    await desk.store.open(limits_of(replace(desk.settings, max_active=3)))
    async with connect(valkey, timeout_seconds=10) as other:
        stores = [desk.store, QueueStore(desk.store._redis, "shop"), QueueStore(other, "shop")]
        audits = [desk.audit, Audit(desk.store._redis, KEYS), Audit(other, KEYS)]
        outboxes = [AuditOutbox(audit, {"shop": store}) for audit, store in zip(audits, stores, strict=True)]
        await asyncio.gather(*(one.flush_all() for one in outboxes))
    entries = await desk.audit.read()
    assert [(one.who, one.role, one.via, one.room, one.old, one.new) for one in entries] == [
        ("the settings file", "", "file", "shop", {"max_active": 2}, {"max_active": 3}),
        ("the shop", "", "shop", "shop", {"state": "sold_out"}, {"state": "open"}),
        ("the shop", "", "shop", "shop", {"state": "open"}, {"state": "sold_out"}),
    ]
    assert (await desk.audit.verify()).intact
    assert await desk.store.audit_events() == []


async def test_a_note_that_was_written_but_not_removed_is_not_written_again(desk: Desk) -> None:
    """As where a control process was killed between the two, or one was slow and others have written more since."""
    await desk.store.set_state(RoomState.SOLD_OUT)
    left = await desk.store.audit_events()
    outbox = AuditOutbox(desk.audit, {"shop": desk.store})
    await outbox.flush_all()
    await desk.store.set_state(RoomState.OPEN)
    await outbox.flush_all()

    await desk.store._redis.rpush(desk.store.keys["audit_outbox"], *left)
    await outbox.flush_all()

    assert [one.new["state"] for one in await desk.audit.read()] == ["open", "sold_out"]
    assert await desk.store.audit_events() == []


async def test_only_holds_of_the_autopilot_and_their_ends_are_audited(desk: Desk) -> None:
    for rate in (50.0, 0.0, 40.0, 45.0):
        await desk.change(PILOT, rate_per_minute=rate)
    assert [(one.who, one.old, one.new) for one in await desk.audit.read()] == [
        ("autopilot", {"rate_per_minute": 0.0}, {"rate_per_minute": 40.0}),
        ("autopilot", {"rate_per_minute": 50.0}, {"rate_per_minute": 0.0}),
    ]


async def test_a_stale_change_is_refused_with_the_current_version(desk: Desk) -> None:
    await desk.change(max_active=3)
    with pytest.raises(StaleVersionError) as refused:
        await desk.change(expected=0, max_active=4)
    assert refused.value.version == 1
    with pytest.raises(StaleVersionError):
        await desk.operations.undo("shop", expected=0, actor=ADA)
    assert [entry.outcome for entry in await desk.audit.read()] == ["refused", "refused", "done"]


async def test_an_invalid_change_is_refused_with_all_errors(desk: Desk) -> None:
    with pytest.raises(InvalidChangeError) as refused:
        await desk.change(rate_per_minute=float("nan"), max_active=0, message="x" * 501, note="\0")
    assert set(refused.value.problems) == {"rate_per_minute", "max_active", "message", "note"}
    (entry,) = await desk.audit.read()
    assert (entry.outcome, len(entry.new["message"])) == ("refused", 200)


async def test_a_ticket_lost_by_the_store_is_restored_and_called(desk: Desk) -> None:
    tokens = Tokens(SECRETS, "shop")
    lost = Ticket(place=1, generation=1, joined_at=1_790_000_000, start_position=1, promised_seconds=0)
    with pytest.raises(RoomStateError):
        await desk.operations.admit("shop", "1", actor=ADA)

    await desk.operations.admit("shop", tokens.sign_ticket(lost), actor=ADA)

    (visited,) = await desk.store.visit([Visit(1, 1, claim=True)])
    assert visited.fate == "admitted"
    entry, _ = await desk.audit.read()
    assert (entry.action, entry.new, entry.outcome) == ("admit", {"ticket": "1"}, "done")


async def test_an_unavailable_store_is_reported(tmp_path: Path) -> None:
    async with connect(f"unix://{tmp_path}/nobody.sock", timeout_seconds=0.1) as redis:
        settings = RoomSettings("shop", "http://127.0.0.1:9")
        store = QueueStore(redis, "shop")
        desk = Desk(store, Admission(settings, store), Audit(redis, KEYS), settings)
        with pytest.raises(StoreUnavailable):
            await desk.change(state=RoomState.PAUSED)
        with pytest.raises(StoreUnavailable):
            desk.operations.preview("shop", Change(state=RoomState.PAUSED))
        assert desk.rooms.one("shop") == {"name": "shop", "upstream": "http://127.0.0.1:9", "store_up": False}
