"""Commands of the shops by the API: what the store is asked, what is counted, and what is audited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.rooms import shop_api
from waitroom.control.rooms.changes import InvalidChangeError
from waitroom.control.rooms.shop_api import MAX_CONCURRENT, ShopApi, UnknownSessionError
from waitroom.errors import StoreUnavailable
from waitroom.logs import RateLimitedLog
from waitroom.queue.store import SessionChange
from waitroom.shop_commands import ShopCommand
from waitroom.store.connection import POOL_CONNECTIONS

SHOP = Actor("token:till", Role.SHOP, "192.0.2.7", "api", ("sale",))
OTTO = Actor("otto", Role.OPERATOR, "192.0.2.8", "api")
HOLD = ShopCommand("hold", 900)


class Store:
    """A `QueueStore` that knows one session, and may be slow or gone."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.gone = False
        self.busy = 0
        self.most_busy = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.full = asyncio.Event()

    async def command_session(self, change: SessionChange, audit_event: str = "") -> bool:
        await self._call(change, audit_event)
        return change.session == 0x5A

    async def set_remaining(self, remaining: int, *, by_api: bool = False) -> None:
        assert by_api
        await self._call(remaining)

    async def _call(self, *call: Any) -> None:
        self.calls.append(call)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        if self.busy == MAX_CONCURRENT:
            self.full.set()
        try:
            await self.answers.wait()
        finally:
            self.busy -= 1
        if self.gone:
            raise StoreUnavailable("gone")


class Diary:
    def __init__(self) -> None:
        self.entries: list[tuple[str, str, str, dict[str, object]]] = []

    async def record(self, actor: Actor, action: str, *, outcome: str = "done", new: Any = None, **_: Any) -> None:
        self.entries.append((actor.name, action, outcome, dict(new)))


class Desk:
    """A `ShopApi` of one room, and what is around it."""

    def __init__(self) -> None:
        self.store, self.diary = Store(), Diary()
        self.api = ShopApi({"sale": self.store}, self.diary)  # type: ignore[dict-item, arg-type]

    def counted(self) -> dict[str, int]:
        return {f"{command} {outcome}": count for (_, command, outcome), count in self.api.counts() if count}


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as logs:
        monkeypatch.setattr(shop_api, "log", RateLimitedLog(structlog.get_logger(), lambda: 0.0))
        yield logs


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (ShopCommand("release", 0), SessionChange("api_release", 0x5A, 0)),
        (HOLD, SessionChange("api_hold", 0x5A, 900_000)),
        (ShopCommand("extend", 300), SessionChange("api_extend", 0x5A, 300_000)),
    ],
)
async def test_a_shop_s_command_is_executed_and_counted_and_not_audited(
    desk: Desk, command: ShopCommand, change: SessionChange
) -> None:
    for _ in range(3):
        await desk.api.command_session("sale", 0x5A, command, actor=SHOP)
    assert desk.store.calls == [(change, "")] * 3
    assert desk.counted() == {f"{command.name} done": 3}
    assert desk.diary.entries == []


async def test_the_stock_is_stored_and_counted_and_not_audited(desk: Desk) -> None:
    await desk.api.report_stock("sale", 0, actor=SHOP)
    assert desk.store.calls == [(0,)]
    assert desk.counted() == {"stock done": 1}
    assert desk.diary.entries == []


async def test_an_operator_s_command_is_audited(desk: Desk) -> None:
    """In the store, together with its effect."""
    await desk.api.command_session("sale", 0x5A, HOLD, actor=OTTO)
    ((_, event),) = desk.store.calls
    assert json.loads(event) == {
        "who": "otto",
        "role": "operator",
        "address": "192.0.2.8",
        "via": "api",
        "note": "",
        "action": "session_command",
        "new": {"session": "5a", "command": "hold", "seconds": 900},
    }
    await desk.api.report_stock("sale", 5, actor=OTTO)
    assert desk.diary.entries == [("otto", "stock", "done", {"remaining": 5})]


async def test_a_refused_command_is_audited_for_operators_and_logged_once_for_shops(
    desk: Desk, logs: list[MutableMapping[str, Any]]
) -> None:
    for _ in range(50):
        with pytest.raises(UnknownSessionError):
            await desk.api.command_session("sale", 1, HOLD, actor=SHOP)
        await desk.api.refuse_invalid("sale", "stock", InvalidChangeError({"remaining": "Must."}), {}, actor=SHOP)
    assert desk.diary.entries == []
    assert [line["event"] for line in logs] == ["command for an unknown session", "invalid command of the shop"]
    assert logs[0]["session"] == "1"
    with pytest.raises(UnknownSessionError):
        await desk.api.command_session("sale", 1, HOLD, actor=OTTO)
    await desk.api.refuse_invalid("sale", "stock", InvalidChangeError({"remaining": "Must."}), {}, actor=OTTO)
    assert [entry[:3] for entry in desk.diary.entries] == [
        ("otto", "session_command", "refused"),
        ("otto", "stock", "refused"),
    ]
    assert desk.counted() == {"hold unknown": 51}


async def test_a_failure_of_the_store_is_counted(desk: Desk, logs: list[MutableMapping[str, Any]]) -> None:
    desk.store.gone = True
    with pytest.raises(StoreUnavailable):
        await desk.api.command_session("sale", 0x5A, HOLD, actor=SHOP)
    with pytest.raises(StoreUnavailable):
        await desk.api.report_stock("sale", 5, actor=SHOP)
    assert desk.counted() == {"hold failed": 1, "stock failed": 1}
    assert [line["event"] for line in logs] == ["command of the shop failed"]


async def test_every_count_is_there_from_the_start(desk: Desk) -> None:
    assert {(command, outcome) for (_, command, outcome), _ in desk.api.counts()} == {
        *((command, outcome) for command in ("release", "hold", "extend") for outcome in ("done", "unknown", "failed")),
        *(("stock", outcome) for outcome in ("done", "failed")),
    }


async def test_connections_are_left_for_the_admission_loop(desk: Desk) -> None:
    assert MAX_CONCURRENT < POOL_CONNECTIONS
    desk.store.answers.clear()
    commands = [
        asyncio.create_task(desk.api.command_session("sale", 0x5A, HOLD, actor=SHOP)) for _ in range(3 * MAX_CONCURRENT)
    ]
    await desk.store.full.wait()
    desk.store.answers.set()
    await asyncio.gather(*commands)
    assert desk.store.most_busy == MAX_CONCURRENT
    assert desk.counted() == {"hold done": 3 * MAX_CONCURRENT}


async def test_a_command_that_would_wait_too_long_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop_api, "MAX_WAIT_SECONDS", 0.01)
    desk.store.answers.clear()
    commands = [
        asyncio.create_task(desk.api.command_session("sale", 0x5A, HOLD, actor=SHOP)) for _ in range(MAX_CONCURRENT)
    ]
    await desk.store.full.wait()
    with pytest.raises(StoreUnavailable, match="too many commands"):
        await desk.api.report_stock("sale", 5, actor=SHOP)
    desk.store.answers.set()
    await asyncio.gather(*commands)
    await desk.api.report_stock("sale", 5, actor=SHOP)
