"""The operator's commands, as processes of their own, against a real gateway and through to its visitors."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.gateway_process import Gateway, eventually, room
from support.visitor_client import Visitor, filled
from waitroom.cli.console import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

COMMAND_SECONDS = 60.0
ROOMS = [
    room("set", rate_per_minute=300, max_active=50),
    room("pause"),
    room("close", max_active=1),
    room("drain"),
    room("admit", max_active=2),
    room("end", max_active=1),
    room("undo", rate_per_minute=300),
    room("raced", rate_per_minute=300),
    room("event", rate_per_minute=300, max_active=1),
]
SETTINGS = {"workers": 1}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


async def run(gateway: Gateway, *arguments: str, to: Sequence[str] = (), stdin: int | None = None) -> Ended:
    """Runs the command as somebody would, away from the gateway's folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAITROOM_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "waitroom", *arguments, *(to or ("--config", str(gateway.config)))),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE if stdin is None else stdin,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, (out or b"").decode(), err.decode())


async def good(gateway: Gateway, *arguments: str) -> str:
    ended = await run(gateway, *arguments)
    assert ended.code == ExitCode.SUCCESS, ended
    return ended.out


async def takes_a_place(visitor: Visitor) -> None:
    """In a room that is just being paused, whether the edge knows it yet or not."""
    assert (await visitor.navigate()).status == 503
    assert visitor.ticket_cookie in visitor.cookies


async def test_status_shows_every_room(gateway: Gateway) -> None:
    shown = (await good(gateway, "status")).splitlines()
    assert [line.split()[0] for line in shown[1 : 1 + len(ROOMS)]] == [one["name"] for one in ROOMS]
    rooms = json.loads(await good(gateway, "status", "--json"))
    assert rooms[0]["rate_per_minute"] == 300
    ended = await run(gateway, "status", to=("--admin", gateway.admin))
    assert ended.code == ExitCode.SUCCESS


async def test_set_holds_differs_from_the_file_and_is_in_the_audit(gateway: Gateway) -> None:
    tried = await good(gateway, "set", "set", "rate_per_minute=600", "max_active=80", "--dry-run")
    assert "nothing was changed" in tried
    assert (await gateway.room("set"))["rate_per_minute"] == 300

    said = await good(gateway, "set", "set", "rate_per_minute=600", "max_active=80", "--note", "agreed")

    assert "Done: rate_per_minute 300 -> 600, max_active 50 -> 80." in said

    async def holds() -> bool:
        return (await gateway.room("set"))["rate_per_minute"] == 600

    await eventually(holds)
    shown = (await good(gateway, "diff", "set")).splitlines()
    assert [line.split() for line in shown[1:]] == [
        ["set", "rate_per_minute", "300", "600"],
        ["set", "max_active", "50", "80"],
    ]
    (entry,) = json.loads(await good(gateway, "audit", "show", "--room", "set", "--json"))
    assert (entry["note"], entry["new"]["rate_per_minute"], entry["outcome"]) == ("agreed", 600, "done")
    assert "agreed" in await good(gateway, "audit")


async def test_bad_values_and_rooms_are_refused(gateway: Gateway) -> None:
    ended = await run(gateway, "set", "set", "rate_per_minute=99999999")
    assert ended.code == ExitCode.INVALID_INPUT
    assert "rate_per_minute: " in ended.err
    ended = await run(gateway, "pause", "paus")
    assert ended.code == ExitCode.INVALID_INPUT
    assert "did you mean pause?" in ended.err


async def test_pause_message_and_resume_reach_a_visitor(gateway: Gateway) -> None:
    await good(gateway, "pause", "pause", "--message", "Back at noon")
    visitor = Visitor(gateway, "pause")
    await takes_a_place(visitor)
    assert (await visitor.state("paused"))["message"] == "Back at noon"
    await good(gateway, "message", "pause", "")

    async def silent() -> bool:
        return (await visitor.status())["message"] == ""

    await eventually(silent)
    await good(gateway, "resume", "pause")
    await visitor.state("called")
    await visitor.is_let_in()


async def test_close_reaches_waiting_visitors_and_ends_no_session(gateway: Gateway) -> None:
    inside = await filled(gateway, "close")
    waiting = Visitor(gateway, "close")
    await waiting.waits()
    await good(gateway, "close", "close", "--sold-out", "--message", "All gone")
    assert (await waiting.state("sold_out"))["message"] == "All gone"
    assert (await inside.navigate()).status == 200


async def test_drain_waits_for_the_last_one(gateway: Gateway) -> None:
    inside = Visitor(gateway, "drain")
    await inside.goes_in()

    async def known() -> bool:
        return (await gateway.room("drain"))["active"] == 1

    await eventually(known)
    draining = asyncio.create_task(run(gateway, "drain", "drain", "--wait"))

    async def drains() -> bool:
        return (await gateway.room("drain"))["draining"]

    await eventually(drains)
    assert not draining.done()
    await inside.call("leave")
    ended = await draining
    assert ended.code == ExitCode.SUCCESS
    assert "1 active or called" in ended.out
    assert ended.out.endswith("drain is empty.\n")


async def test_admit_calls_one_ticket_when_there_is_a_slot(gateway: Gateway) -> None:
    await good(gateway, "pause", "admit")
    visitors = [Visitor(gateway, "admit") for _ in range(4)]
    for visitor in visitors:
        await takes_a_place(visitor)
    for visitor in visitors[2:]:
        await good(gateway, "admit", "admit", visitor.cookies[visitor.ticket_cookie])
        await visitor.state("called")
    ended = await run(gateway, "admit", "admit", visitors[1].cookies[visitors[1].ticket_cookie])
    assert ended.code == ExitCode.FAILURE, ended
    await visitors[0].state("paused")


async def test_end_session_ends_it(gateway: Gateway) -> None:
    inside = await filled(gateway, "end")
    waiting = Visitor(gateway, "end")
    await waiting.waits()
    await good(gateway, "end-session", "end", f"{inside.pass_.session:x}", "--note", "asked for")
    await waiting.state("called")


async def test_undo_reverts_the_last_change(gateway: Gateway) -> None:
    assert (await run(gateway, "undo", "undo")).code == ExitCode.FAILURE
    await good(gateway, "set", "undo", "rate_per_minute=900")
    assert "Done: rate_per_minute 900 -> 300." in await good(gateway, "undo", "undo")


async def test_a_change_is_refused_if_the_room_changed_while_the_prompt_was_open(gateway: Gateway) -> None:
    """The question stays open while somebody else is quicker."""
    ours, theirs = pty.openpty()
    try:
        asking = asyncio.create_task(run(gateway, "close", "raced", stdin=theirs))
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        shown = b""

        def read() -> None:
            nonlocal shown
            shown += os.read(ours, 4096)
            if b"[y/N]" in shown:
                asked.set()

        loop.add_reader(ours, read)
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await asked.wait()
            await good(gateway, "set", "raced", "max_active=77")
            os.write(ours, b"y\n")
            ended = await asking
        finally:
            loop.remove_reader(ours)
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.code == ExitCode.CONFLICT, ended
    assert "max_active" in ended.err
    assert (await gateway.room("raced"))["state"] == "open"


async def test_a_sale_page_is_shared_until_its_links_are_revoked(gateway: Gateway) -> None:
    link = (await good(gateway, "sale-link", "set", "--hours", "1")).strip()
    assert link.startswith(f"{gateway.admin}/sale/set/")
    async with gateway.http.get(link) as page, gateway.http.get(f"{link}/figures") as figures:
        assert (page.status, figures.status) == (200, 200)
        assert (await figures.json())["waiting"] == "0"
    await good(gateway, "sale-link", "set", "--revoke")
    async with gateway.http.get(link) as page:
        assert page.status == 404
    entries = json.loads(await good(gateway, "audit", "show", "--json"))
    actions = [entry["new"]["link"] for entry in entries if entry["action"] == "sale_link"]
    assert actions[:2] == ["all revoked", "created"]


async def test_history_has_samples(gateway: Gateway) -> None:
    async def sampled() -> bool:
        return bool(json.loads(await good(gateway, "history", "set", "--json")))

    await eventually(sampled)
    assert "waiting" in await good(gateway, "history", "set", "--seconds", "600")


async def test_the_audit_log_is_exported_and_a_removed_entry_is_detected(gateway: Gateway, tmp_path: Path) -> None:
    await good(gateway, "set", "set", "max_active=90", "--note", "first")
    await good(gateway, "set", "set", "max_active=91", "--note", "second")
    assert "entries" in await good(gateway, "audit", "verify")
    await good(gateway, "audit", "export", "--output", str(tmp_path / "audit.jsonl"))
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [one["note"] for one in entries[-2:]] == ["first", "second"]
    async with gateway.store() as redis:
        keys = [key async for key in redis.scan_iter(match="waitroom*audit*", _type="stream")]
        assert sum([await redis.xdel(key, entries[-2]["id"]) for key in keys]) == 1
    ended = await run(gateway, "audit", "verify")
    assert ended.code == ExitCode.FAILURE
    assert entries[-1]["id"] in ended.err


async def test_an_event_is_scheduled_started_extended_and_ended(gateway: Gateway) -> None:
    values = ("start=2096-12-12T11:00:00+07:00", "end=2096-12-12T13:00:00+07:00", "rate_per_minute=600", "max_active=2")
    said = await good(gateway, "event", "set", "event", "drop", *values, "after=sold_out", "--note", "the big one")
    assert 'New event "drop": start at 2096-12-12 04:00 UTC, end at 2096-12-12 06:00 UTC.' in said
    assert "Warning: The room closes now" in said
    assert "While it runs: rate_per_minute 300 → 600, max_active 1 → 2." in said
    early = Visitor(gateway, "event")

    async def is_closed() -> bool:
        return (await early.navigate()).state == "closed"

    await eventually(is_closed)

    said = await good(gateway, "event", "start", "event", "drop")

    assert "Done: phase scheduled -> running" in said
    visitors = [Visitor(gateway, "event") for _ in range(3)]
    for visitor in visitors[:2]:
        await visitor.is_let_in()
    await takes_a_place(visitors[2])
    assert "end " in await good(gateway, "event", "set", "event", "drop", "end=2096-12-12T14:00:00+07:00")
    listed = json.loads(await good(gateway, "events", "event", "--json"))
    assert [(one["from"], one["state"], one["limits"]["rate_per_minute"]) for one in listed["timeline"]] == [
        (None, "open", 600),
        ("2096-12-12T07:00:00Z", "sold_out", 300),
    ]

    said = await good(gateway, "event", "end", "event", "drop")

    assert "Warning: 1 visitor waiting or called lose their places." in said
    found = await gateway.room("event")
    assert (found["state"], found["max_active"], found["active"], found["waiting"]) == ("sold_out", 1, 2, 0)
    async with gateway.http.get(f"{gateway.admin}/api/v1/audit") as answer:
        entries = [entry for entry in (await answer.json())["entries"] if entry["room"] == "event"]
    assert [entry["action"] for entry in entries] == [
        *("event", "end_event", "set_event", "event", "start_event", "set_event"),
    ]
    assert (entries[-1]["note"], entries[-1]["new"]["start"]) == ("the big one", "2096-12-12T04:00:00Z")
