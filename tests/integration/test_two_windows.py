"""One settings file with two sales three weeks apart, and an operator who changes something in the middle of each."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from waitroom.queue.fields import limits_of
from waitroom.queue.schedule import Phase, file_events
from waitroom.queue.store import QueueStore, Visit
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings.loader import load_settings
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

SETTINGS = """
secrets = ["a secret of at least sixteen characters"]
data_dir = "data"

[[rooms]]
name = "shop"
upstream = "http://127.0.0.1:3000"
rate_per_minute = 600
max_active = 5

[[rooms.events]]
name = "first"
title = "The first sale"
prequeue_start = 2026-12-12T10:30:00+07:00
start = 2026-12-12T11:00:00+07:00
end = 2026-12-12T13:00:00+07:00
method = "random"
before = "open"
after = "sold_out"
units = 5000
rate_per_minute = 3000
max_active = 50

[[rooms.events]]
name = "second"
start = 2027-01-02T11:00:00+07:00
end = 2027-01-02T13:00:00+07:00
units = 300
max_active = 20
"""
FIRST = datetime.fromisoformat("2026-12-12T11:00:00+07:00")
SECOND = FIRST + timedelta(weeks=3)


def ms(at: datetime, hours: float = 0) -> int:
    return round((at + timedelta(hours=hours)).timestamp() * 1000)


async def test_two_windows_with_an_operators_change_in_each(tmp_path: Path, valkey: str) -> None:
    (tmp_path / "waitroom.toml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "waitroom.toml", {}, {})
    [room] = settings.rooms
    now = ms(FIRST, hours=-48)

    async with connect(valkey, timeout_seconds=10) as redis:
        store = QueueStore(redis, "shop", clock=lambda: now, run_id=lambda: "first")

        async def at(when: int) -> RoomView:
            nonlocal now
            now = when
            # Somebody restarts the gateway all the time.
            await store.open(limits_of(room), file_events(room, settings.secrets[0]))
            return await store.view()

        def told(view: RoomView) -> tuple[str, Phase, RoomState, float, int, int | None]:
            assert view.event is not None
            event = view.event
            limits = (view.rate_per_minute, view.max_active)
            return event.event.name, event.phase, view.state, *limits, view.remaining

        opened, running = RoomState.OPEN, Phase.RUNNING
        assert told(await at(now)) == ("first", Phase.SCHEDULED, opened, 600, 5, None)
        assert told(await at(ms(FIRST, -0.5))) == ("first", Phase.PREQUEUE, RoomState.PREQUEUE, 600, 5, None)
        early = await store.join(40)
        assert told(await at(ms(FIRST))) == ("first", running, opened, 3000, 50, 5000)
        await store.change({"rate": "1200.0", "max_active": "60"}, expected=None, who="ada")
        assert told(await at(ms(FIRST, 1))) == ("first", running, opened, 1200, 60, 5000)

        # What was set for the first sale ends with it, and so do its places; the next one keeps the room closed.
        assert told(await at(ms(FIRST, 2)))[:5] == ("second", Phase.SCHEDULED, RoomState.SOLD_OUT, 600, 5)
        [visited] = await store.visit([Visit(early.first_place, early.generation, claim=True)])
        assert visited.fate == "unknown"
        assert told(await at(ms(SECOND, -1)))[:2] == ("second", Phase.SCHEDULED)
        assert (await store.join(1)).first_place == 0
        assert told(await at(ms(SECOND))) == ("second", running, opened, 600, 20, 300)
        await store.change({"state": "paused", "max_active": "2"}, expected=None, who="ada")
        assert told(await at(ms(SECOND, 1))) == ("second", running, RoomState.PAUSED, 600, 2, 300)
        await store.change({"state": "open"}, expected=None, who="ada")
        assert told(await at(ms(SECOND, 2)))[:5] == ("second", Phase.ENDED, opened, 600, 5)
        phases = {record.event.name: (record.phase, record.started_ms) for record in await store.events()}
        assert phases == {"first": (Phase.ENDED, ms(FIRST)), "second": (Phase.ENDED, ms(SECOND))}
