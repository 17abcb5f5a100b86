"""What an operator may do, by the API and through to its effect on visitors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from support.admin_client import Operator
from support.gateway_process import Gateway, eventually, room
from support.visitor_client import Visitor
from waitroom.control.autopilot.model import Memory, Move
from waitroom.control.autopilot.state import DecisionLog, RecordedDecision

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SMALL = {"max_active": 1}
ROOMS = [
    room("tune", rate_per_minute=60, max_active=5),
    room("stale"),
    room("pause"),
    room("shut", **SMALL),
    room("drain"),
    room("admit", **SMALL),
    room("full", **SMALL),
    room("end"),
    room("undo"),
    room("wrong"),
    room("audit"),
    room("quick", rate_per_minute=600_000, max_active=1),
]
EVERY_EDGE = 24  # so many requests surely meet all workers


async def told_everywhere(gateway: Gateway, visitor: Visitor, **expected: object) -> None:
    """Every edge tells a waiting visitor so."""

    async def look() -> bool:
        for _ in range(EVERY_EDGE):
            status = await visitor.status()
            assert {name: status[name] for name in expected} == expected
        return True

    await eventually(look)


async def test_a_change_reaches_every_edge_and_reports_its_effect(gateway: Gateway) -> None:
    operator = Operator(gateway, "pause")

    async def all_alive() -> bool:
        return (await operator.look())["workers"] == {"alive": 2, "wanted": 2}

    await eventually(all_alive)
    before = await operator.look()
    assert (before["state"], before["last_change"]) == ("open", None)

    told = await operator.change(state="paused", message="Back at noon", note="the bank is down")

    assert told.status == 200
    assert told.body["version"] == before["version"] + 1
    assert (told.body["state"], told.body["message"]) == ("paused", "Back at noon")
    last = told.body["last_change"]
    assert (last["who"], last["undoable"]) == ("local", True)
    assert last["what"] in (
        'state open → paused, message "" → "Back at noon"',
        'message "" → "Back at noon", state open → paused',
    )
    visitor = Visitor(gateway, "pause")
    await visitor.navigate()
    await told_everywhere(gateway, visitor, state="paused", message="Back at noon")

    assert (await operator.change(state="open", message="")).status == 200
    await visitor.is_let_in()


async def test_raising_max_active_admits_the_next_visitor(gateway: Gateway) -> None:
    operator = Operator(gateway, "quick")
    inside, outside = Visitor(gateway, "quick"), Visitor(gateway, "quick")
    await inside.goes_in()
    await outside.waits()
    await operator.look()
    assert (await operator.change(max_active=2)).body["max_active"] == 2
    await outside.is_let_in()


async def test_a_change_based_on_stale_values_is_refused(gateway: Gateway) -> None:
    ada, ben = Operator(gateway, "stale"), Operator(gateway, "stale")
    await ada.look()
    await ben.look()
    assert (await ada.change(rate_per_minute=900)).status == 200

    told = await ben.change(rate_per_minute=100)

    assert (told.status, told.kind, told.version) == (412, "application/problem+json", ada.seen)
    assert told.body["type"] == "urn:waitroom:problem:stale-version"
    assert told.body["room"]["rate_per_minute"] == 900
    assert (await ben.look())["rate_per_minute"] == 900
    assert (await ben.change(rate_per_minute=100)).status == 200
    assert (await ada.undo()).status == 412


async def test_one_of_two_concurrent_changes_is_refused(gateway: Gateway) -> None:
    operators = [Operator(gateway, "stale") for _ in range(8)]
    for one in operators:
        await one.look()
    told = await asyncio.gather(*(one.change(rate_per_minute=1000 + number) for number, one in enumerate(operators)))
    assert sorted(one.status for one in told) == [200] + [412] * 7
    (won,) = (number for number, one in enumerate(told) if one.status == 200)
    assert (await operators[0].look())["rate_per_minute"] == 1000 + won


async def test_setting_current_values_changes_nothing(gateway: Gateway) -> None:
    operator = Operator(gateway, "stale")
    before = await operator.look()
    told = await operator.change(rate_per_minute=before["rate_per_minute"])
    assert (told.status, told.body["version"]) == (200, before["version"])


async def test_a_dry_run_reports_the_effect_and_changes_nothing(gateway: Gateway) -> None:
    operator = Operator(gateway, "tune")
    before = await operator.look()
    entries = await operator.audit()

    told = await operator.change("?dry_run=true", rate_per_minute=600)

    assert told.status == 200
    effect = told.body["effect"]
    assert effect["summary"].startswith("A newcomer would wait ")
    assert effect["warnings"] == ["The rate rises 10 times in one step; it reaches the shop within a second."]
    after = await operator.look()
    assert (after["rate_per_minute"], after["version"]) == (60, before["version"])
    assert await operator.audit() == entries
    assert (await operator.ask("PATCH", "?dry_run=true", {"max_active": 1}, If_Match='"999"')).status == 412


async def test_closing_rejects_newcomers_and_ends_no_session(gateway: Gateway) -> None:
    operator = Operator(gateway, "shut")
    inside, waiting = Visitor(gateway, "shut"), Visitor(gateway, "shut")
    await inside.goes_in()
    await waiting.waits()
    await operator.look()

    for state in ("closed", "sold_out"):
        assert (await operator.change(state=state)).status == 200
        await waiting.state(state)
        await inside.goes_in()


async def test_draining_pauses_and_opening_ends_it(gateway: Gateway) -> None:
    operator = Operator(gateway, "drain")
    await operator.look()
    told = await operator.change(draining=True)
    assert (told.body["state"], told.body["draining"]) == ("paused", True)
    visitor = Visitor(gateway, "drain")
    assert (await visitor.navigate()).status == 503
    assert (await operator.change(state="paused")).body["draining"] is True
    told = await operator.change(draining=False)
    assert (told.body["state"], told.body["draining"]) == ("paused", False)
    await operator.change(draining=True)
    told = await operator.change(state="open")
    assert (told.body["state"], told.body["draining"]) == ("open", False)
    await visitor.is_let_in()
    assert (await operator.change(state="paused")).body["draining"] is False  # a pause of its own
    told = await operator.change(draining=True, state="closed")
    assert (told.status, list(told.body["errors"])) == (422, ["draining"])


async def test_one_ticket_is_called_ahead_of_the_queue_in_a_paused_room(gateway: Gateway) -> None:
    operator = Operator(gateway, "admit")
    inside = Visitor(gateway, "admit")
    line = [Visitor(gateway, "admit") for _ in range(3)]
    await inside.goes_in()
    for visitor in line:
        await visitor.waits()
    await operator.look()
    ticket = line[2].cookies[line[2].ticket_cookie]

    told = await operator.admit(ticket)
    assert (told.status, told.body["type"]) == (409, "urn:waitroom:problem:not-possible")
    assert "full" in told.body["detail"]

    await operator.change(max_active=2, state="paused")
    told = await operator.admit(ticket, note="the minister's daughter")
    assert told.status == 204
    await line[2].state("called")
    assert (await operator.admit(f"{line[2].ticket.place:x}")).status == 204  # called already is done
    await line[2].is_let_in()
    await line[0].state("paused")  # the other worker may not have looked yet
    assert len(await gateway.members("admit", "active")) == 2
    assert (await operator.admit(ticket)).status == 204

    newest, *_ = [one for one in await operator.audit() if one["outcome"] == "refused"]
    assert newest["action"] == "admit"
    assert "full" in newest["new"]["because"]


@pytest.mark.parametrize(
    ("ticket", "status"),
    [("ffff", 409), ("1.2.3.4.5." + "A" * 43, 409), ("", 422), ("Hello", 422), ("1" * 300, 422)],
)
async def test_an_invalid_ticket_admits_nobody(gateway: Gateway, ticket: str, status: int) -> None:
    assert (await Operator(gateway, "full").admit(ticket)).status == status


async def test_a_ticket_of_another_room_admits_nobody(gateway: Gateway) -> None:
    inside, waiting = Visitor(gateway, "full"), Visitor(gateway, "full")
    await inside.goes_in()
    await waiting.waits()
    ticket = waiting.cookies[waiting.ticket_cookie]
    told = await Operator(gateway, "admit").admit(ticket)
    assert (told.status, "not valid in this room" in told.body["detail"]) == (409, True)
    assert ticket not in json.dumps(await Operator(gateway, "admit").audit())


async def test_the_pass_of_an_ended_session_admits_nobody(gateway: Gateway) -> None:
    operator = Operator(gateway, "end")
    visitor = Visitor(gateway, "end")
    await visitor.goes_in()
    session = visitor.pass_.session
    await operator.look()
    await operator.change(state="paused")
    assert (await operator.end_session(f"{session + 1:x}")).status == 409

    assert (await operator.end_session(f"{session:x}")).status == 204

    async def is_out() -> bool:
        return (await visitor.navigate()).status == 503

    await eventually(is_out)
    assert await gateway.members("end", "active") == {}
    told = await operator.end_session(f"{session:x}")
    assert told.status == 409
    await operator.change(state="open")
    # Whoever had the number that nobody had was not ended beforehand.
    another = Visitor(gateway, "end")
    await another.is_let_in()
    for _ in range(4):
        await another.goes_in()
        await asyncio.gather(*(another.fetch() for _ in range(4)))
    assert set(await gateway.members("end", "active")) >= {another.pass_.session}


async def test_the_last_change_can_be_undone_once(gateway: Gateway) -> None:
    operator = Operator(gateway, "undo")
    before = await operator.look()
    told = await operator.undo()
    assert (told.status, told.body["detail"]) == (409, "There is no change by an operator to undo.")
    await operator.change(rate_per_minute=5, state="closed", message="No")

    told = await operator.undo()

    assert told.status == 200
    for name in ("rate_per_minute", "state", "message"):
        assert told.body[name] == before[name]
    assert told.body["last_change"]["undoable"] is False
    assert (await operator.undo()).status == 409
    newest = (await operator.audit())[0:3]
    assert [one["action"] for one in newest] == ["undo", "undo", "change"]
    assert [one["outcome"] for one in newest] == ["refused", "done", "done"]
    assert newest[1]["old"] == {"rate_per_minute": 5.0, "state": "closed", "message": "No"}


async def test_later_changes_by_the_shop_are_not_undone(gateway: Gateway) -> None:
    operator = Operator(gateway, "undo")
    await operator.look()
    assert (await operator.change(state="paused")).status == 200
    async with gateway.store() as redis:
        await redis.hset("waitroom:{undo}:room", mapping={"state": "sold_out", "version": operator.seen + 1})

    async def noticed() -> bool:
        room = await operator.look()
        return (room["state"], room["last_change"]["undoable"]) == ("sold_out", False)

    await eventually(noticed)
    told = await operator.undo()
    assert (told.status, "changed since" in told.body["detail"]) == (409, True)
    assert (await operator.look())["state"] == "sold_out"


WRONG: list[tuple[Any, list[str]]] = [
    ({"rate_per_minute": 0}, ["rate_per_minute"]),
    ({"rate_per_minute": -1}, ["rate_per_minute"]),
    ({"rate_per_minute": "600"}, ["rate_per_minute"]),
    ({"rate_per_minute": True}, ["rate_per_minute"]),
    ({"rate_per_minute": 10**400}, ["rate_per_minute"]),
    ({"rate_per_minute": None}, ["rate_per_minute"]),
    ({"max_active": 0}, ["max_active"]),
    ({"max_active": 1.5}, ["max_active"]),
    ({"max_active": 10**9}, ["max_active"]),
    ({"state": "opened"}, ["state"]),
    ({"state": 1}, ["state"]),
    ({"message": "x" * 501}, ["message"]),
    ({"message": "bell\a"}, ["message"]),
    ({"message": "\ud800"}, ["message"]),
    ({"draining": "yes"}, ["draining"]),
    ({"max_active": 5, "note": "x" * 501}, ["note"]),
    ({"note": "nothing"}, ["change"]),
    ({}, ["change"]),
    ({"\ud800": 1}, ["\ud800"]),
    ({"max_actve": 3, "rate": 2, "state": "open"}, ["max_actve", "rate"]),
    ({"max_active": 0, "rate_per_minute": 0, "message": "\0"}, ["rate_per_minute", "max_active", "message"]),
]


@pytest.mark.parametrize(("body", "fields"), WRONG)
async def test_errors_are_reported_and_audited(gateway: Gateway, body: Any, fields: list[str]) -> None:
    operator = Operator(gateway, "wrong")
    before = await operator.look()

    told = await operator.change(**body)

    assert (told.status, told.kind) == (422, "application/problem+json")
    assert sorted(told.body["errors"]) == sorted(fields)
    assert {**await operator.look(), "totals": 0} == {**before, **_passing(await operator.look()), "totals": 0}
    newest = (await operator.audit(1))[0]
    assert (newest["action"], newest["outcome"]) == ("change", "refused")
    assert all(name.encode(errors="replace").decode() in newest["new"]["because"] for name in fields)


def _passing(room: dict[str, Any]) -> dict[str, Any]:
    """What changes by itself."""
    return {name: room[name] for name in room if name.endswith("_per_minute") or name in ("shop", "workers")}


@pytest.mark.parametrize(
    ("data", "kind", "version", "status"),
    [
        (b"{", "application/json", '"0"', 400),
        (b"[]", "application/json", '"0"', 400),
        (b"\xff", "application/json", '"0"', 400),
        (b'{"max_active": NaN}', "application/json", '"0"', 400),
        (b'{"max_active": 3, "max_active": 4}', "application/json", '"0"', 400),
        (b"[" * 9000, "application/json", '"0"', 400),
        (b'{"max_active": ' + b"9" * 9000 + b"}", "application/json", '"0"', 400),
        (b'{"max_active": 3}', "text/plain", '"0"', 415),
        (b"max_active=3", "application/x-www-form-urlencoded", '"0"', 415),
        (b'{"message": "' + b"x" * 20_000 + b'"}', "application/json", '"0"', 413),
        (b'{"max_active": 3}', "application/json", None, 428),
        (b'{"max_active": 3}', "application/json", "0", 400),
        (b'{"max_active": 3}', "application/json", 'W/"0"', 400),
        (b'{"max_active": 3}', "application/json", "*", 400),
        (b'{"max_active": 3}', "application/json", '"0", "1"', 400),
        (b'{"max_active": 3}', "application/json", '"77"', 412),
    ],
)
async def test_malformed_changes_are_refused(
    gateway: Gateway, data: bytes, kind: str, version: str | None, status: int
) -> None:
    headers = {"Content-Type": kind} | ({} if version is None else {"If-Match": version})
    url = f"{gateway.admin}/api/v1/rooms/wrong"
    async with gateway.http.patch(url, data=data, headers=headers) as answer:
        assert answer.status == status
        assert answer.content_type == "application/problem+json"
        assert (await answer.json(content_type=None))["status"] == status
    assert (await Operator(gateway, "wrong").look())["max_active"] == 10_000


async def test_an_endless_body_is_refused_in_time(gateway: Gateway) -> None:
    async def endless() -> Any:
        for _ in range(2000):
            yield b" " * 1024

    url = f"{gateway.admin}/api/v1/rooms/wrong"
    headers = {"Content-Type": "application/json", "If-Match": '"0"'}
    async with gateway.http.patch(url, data=endless(), headers=headers) as answer:
        assert answer.status == 413


async def test_a_client_that_disconnects_during_a_change_changes_nothing(gateway: Gateway) -> None:
    """And it is no mistake of ours: the log, looked at when the gateway ends, tells of none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.admin_port)
    writer.write(
        b"PATCH /api/v1/rooms/wrong HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'If-Match: "0"\r\nContent-Length: 17\r\nExpect: 100-continue\r\n\r\n'
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
    writer.write(b'{"max_active"')
    writer.transport.abort()
    assert (await Operator(gateway, "wrong").look())["max_active"] == 10_000


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rooms/nowhere", 404),
        ("/rooms/nowhere/history", 404),
        ("/nothing", 404),
        ("/rooms/wrong/history?seconds=0", 422),
        ("/rooms/wrong/history?seconds=21601", 422),
        ("/rooms/wrong/history?seconds=x", 422),
        ("/rooms/wrong/history?second=5", 422),
        ("/rooms/wrong/history?seconds=5&seconds=6", 422),
        ("/rooms/nowhere/decisions", 404),
        ("/rooms/wrong/decisions?count=0", 422),
        ("/rooms/wrong/decisions?count=501", 422),
        ("/audit?count=1001", 422),
        ("/audit?before=now", 422),
    ],
)
async def test_invalid_requests_get_a_problem(gateway: Gateway, path: str, status: int) -> None:
    async with gateway.http.get(f"{gateway.admin}/api/v1{path}") as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_an_unsupported_method_gets_a_problem_with_the_supported_ones(gateway: Gateway) -> None:
    async with gateway.http.delete(f"{gateway.admin}/api/v1/rooms/wrong") as answer:
        assert (answer.status, answer.content_type) == (405, "application/problem+json")
        assert "PATCH" in answer.headers["Allow"]


async def test_every_change_is_in_the_log_with_old_and_new(gateway: Gateway) -> None:
    operator = Operator(gateway, "audit")
    await operator.look()
    await operator.change(rate_per_minute=90, note="quieter, please")
    await operator.change(max_active=20)

    second, first = (await operator.audit())[:2]

    assert (first["who"], first["via"], first["address"], first["note"]) == (
        *("local", "api", "127.0.0.1"),
        "quieter, please",
    )
    assert (first["old"], first["new"]) == ({"rate_per_minute": 600_000.0}, {"rate_per_minute": 90.0})
    assert (second["old"], second["new"]) == ({"max_active": 10_000}, {"max_active": 20})
    async with gateway.http.get(f"{gateway.admin}/api/v1/audit/export") as answer:
        assert answer.content_type == "application/jsonl"
        lines = (await answer.text()).splitlines()
    everything = [json.loads(line) for line in lines]
    assert [first, second] == [one for one in everything if one["room"] == "audit"]
    verdict = await operator.verdict()
    assert (verdict["intact"], verdict["entries"]) == (True, len(lines))


async def test_the_autopilots_decisions_are_listed_newest_first(gateway: Gateway) -> None:
    operator = Operator(gateway, "audit")
    assert (await operator.ask("GET", "/decisions")).body == {"decisions": []}
    async with gateway.store() as redis:
        decision_log = DecisionLog(redis, "audit", "another control process")
        await decision_log.acquire()
        for number in range(3):
            said = RecordedDecision(1_790_000_000.0 + number, Move.RAISE, 100.0 + number, f"Raised, {number}.")
            assert await decision_log.record(Memory(), said, keep=True)

    told = await operator.ask("GET", "/decisions?count=2")

    assert told.body["decisions"] == [
        {"at": "2026-09-21T14:13:22Z", "move": "raise", "rate_per_minute": 102.0, "summary": "Raised, 2."},
        {"at": "2026-09-21T14:13:21Z", "move": "raise", "rate_per_minute": 101.0, "summary": "Raised, 1."},
    ]


async def test_differences_to_the_file_are_listed(gateway: Gateway) -> None:
    told = await Operator(gateway, "audit").ask("GET", "/diff")
    assert told.body["file"]["rate_per_minute"] == 600_000
    assert told.body["running"]["rate_per_minute"] == 90
    assert told.body["differs"] == ["rate_per_minute", "max_active"]
