"""What the shop tells the gateway by Waitroom-Command is done, and never reaches the visitor."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.admin_client import Operator
from support.gateway_process import Gateway, eventually, room
from support.upstreams.server import Shop, response
from support.visitor_client import Visitor, filled

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

FULL = {"max_active": 1}
ROOMS = [
    room("release", **FULL),
    room("hold"),
    room("extend", session_seconds=60, session_max_seconds=600),
    room("remaining", **FULL),
    room("sold", **FULL),
    room("gone", **FULL),
    room("told", **FULL),
    room("odd", bypass=[{"paths": ["/hook/"]}]),
]
SETTINGS = {"workers": 1}
NAMES = ("release", "hold=900", "extend=300", "remaining=1200", "sold-out")


@pytest.fixture(autouse=True)
def commands(shop: Shop) -> None:
    for name in NAMES:
        shop.answers[f"/{name.partition('=')[0]}"] = response(b"done", f"Waitroom-Command: {name}")


async def ends_in(gateway: Gateway, name: str, session: int) -> float:
    """Seconds until the store ends a session, by the room's own clock."""
    active = await gateway.members(name, "active")
    async with gateway.store() as redis:
        clock = int(await redis.hget(f"waitroom:{{{name}}}:room", "clock"))
    return (active[session] - clock) / 1000


async def test_release_gives_the_slot_to_the_next(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "release")
    other = Visitor(gateway, "release")
    await other.waits()
    kept = inside.cookies[inside.pass_cookie]

    answer = await inside.navigate("/release")

    assert (answer.status, answer.body) == (200, b"done")
    assert "Waitroom-Command" not in answer.headers
    taken = answer.cookie(inside.pass_cookie)
    assert taken is not None
    assert taken["max-age"] == "30", "for the parts of the last page"
    await other.state("called")
    await other.is_let_in()
    back = Visitor(gateway, "release", cookies={inside.pass_cookie: kept})
    assert (await back.fetch("/order", "POST", b"1")).status == 503  # it is over, though it has not run out
    assert (await back.navigate()).status == 200
    assert list(await gateway.members("release", "active")) == [other.pass_.session]
    assert await gateway.total("release", "left:released") == 1


async def test_hold_keeps_a_session_beyond_its_end(gateway: Gateway, shop: Shop) -> None:
    visitor = Visitor(gateway, "hold")
    await visitor.goes_in()
    shop.answers["/hold-long"] = response(b"done", "Waitroom-Command: hold=20000", "Cache-Control: max-age=600")
    shop.answers["/hold-longer"] = response(b"done", "Waitroom-Command: hold=86400")
    before = time.time()

    answer = await visitor.navigate("/hold-long")

    assert answer.headers.getall("Cache-Control") == ["private, no-store"]
    assert "Waitroom-Command" not in answer.headers
    assert visitor.pass_.expires_at >= before + 19_999
    assert visitor.pass_.ends_at >= before + 19_999

    async def held() -> bool:
        return await ends_in(gateway, "hold", visitor.pass_.session) > 19_900

    await eventually(held)
    await visitor.navigate()  # activity afterwards takes nothing of it away
    await visitor.navigate("/hold")
    await eventually(held)
    # All holds together add at most session_max_seconds.
    await visitor.navigate("/hold-longer")
    assert before + 28_700 < visitor.pass_.ends_at <= time.time() + 28_800


async def test_extend_lengthens_a_session_up_to_its_end(gateway: Gateway, shop: Shop) -> None:
    visitor = Visitor(gateway, "extend")
    await visitor.goes_in()
    before = time.time()
    assert visitor.pass_.expires_at <= before + 61

    await visitor.navigate("/extend")

    assert before + 200 < visitor.pass_.expires_at <= visitor.pass_.ends_at

    async def extended() -> bool:
        return await ends_in(gateway, "extend", visitor.pass_.session) > 200

    await eventually(extended)
    shop.answers["/extend-far"] = response(b"done", "Waitroom-Command: extend=86400")
    await visitor.navigate("/extend-far")
    assert visitor.pass_.expires_at == visitor.pass_.ends_at


async def test_remaining_is_shown_to_waiting_visitors(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "remaining")
    other = Visitor(gateway, "remaining")
    await other.waits()
    assert (await other.status())["remaining"] is None

    answer = await inside.navigate("/remaining")

    assert "Waitroom-Command" not in answer.headers
    assert not answer.cookie_lines

    async def told() -> bool:
        assert (await other.status())["remaining"] == 1200
        return True

    await eventually(told)
    assert "1,200" in (await other.navigate()).body.decode()


async def test_sold_out_is_shown_to_everybody_and_ends_no_session(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "sold")
    other = Visitor(gateway, "sold")
    await other.waits()

    answer = await inside.navigate("/sold-out")

    assert answer.status == 200
    assert "Waitroom-Command" not in answer.headers
    status = await other.state("sold_out")
    assert status["eta_seconds"] is None
    page = await other.navigate()
    assert (page.status, page.state) == (503, "sold_out")
    newcomer = Visitor(gateway, "sold")
    page = await newcomer.navigate()
    assert (page.status, page.state) == (503, "sold_out")
    assert not newcomer.cookies
    assert (await newcomer.call("join")).status == 503
    assert (await inside.navigate()).status == 200
    assert await gateway.total("sold") == 2


async def test_the_last_unit_sells_the_room_out_until_units_come_back(gateway: Gateway, shop: Shop) -> None:
    shop.answers["/last"] = response(b"done", "Waitroom-Command: remaining=1")
    shop.answers["/none"] = response(b"done", "Waitroom-Command: remaining=0")
    inside = await filled(gateway, "gone")
    other = Visitor(gateway, "gone")
    await other.waits()

    await inside.navigate("/last")
    await inside.navigate("/none")

    await other.state("sold_out")
    assert (await inside.navigate()).status == 200
    async with gateway.http.post(f"{gateway.admin}/api/v1/rooms/gone/stock", json={"remaining": 1}) as answer:
        assert answer.status == 204
    await other.state("waiting")
    assert await gateway.members("gone", "active")


async def test_sold_out_is_attributed_to_the_shop(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "told")
    operator = Operator(gateway, "told")
    await operator.look()
    assert (await operator.change(max_active=2)).status == 200

    await inside.navigate("/sold-out")

    async def logged() -> list[dict[str, Any]]:
        return [one for one in await operator.audit() if one["who"] == "the shop"]

    (entry,) = await eventually(logged)
    assert (entry["via"], entry["action"], entry["outcome"]) == ("shop", "change", "done")
    assert (entry["old"], entry["new"]) == ({"state": "open"}, {"state": "sold_out"})
    told = await operator.change(max_active=3)
    assert told.status == 412
    last = told.body["room"]["last_change"]
    assert (last["who"], last["what"], last["undoable"]) == ("the shop", "state open → sold_out", False)
    assert told.body["room"]["undo"]["what"] == "max_active 1 → 2"
    assert (await operator.verdict())["intact"]


async def test_unknown_commands_and_requests_without_a_session_are_harmless(gateway: Gateway, shop: Shop) -> None:
    visitor = Visitor(gateway, "odd")
    await visitor.goes_in()
    shop.answers["/odd"] = response(b"ok", "Waitroom-Command: fly, hold=soon, hold=-1, extend, remaining=many, =")
    shop.answers["/hook/paid"] = response(b"ok", "Waitroom-Command: release, hold=900")

    assert (await visitor.fetch("/odd")).body == b"ok"
    assert (await Visitor(gateway, "odd").fetch("/hook/paid", "POST", b"{}")).body == b"ok"

    assert (await visitor.fetch()).status == 200
    assert list(await gateway.members("odd", "active")) == [visitor.pass_.session]
    await eventually(lambda: "ignoring unknown Waitroom-Command" in gateway.log)
    assert gateway.log.count("ignoring unknown Waitroom-Command") == 1, "anybody may bring it about"


async def test_a_command_sent_by_a_client_is_ignored(gateway: Gateway, shop: Shop) -> None:
    visitor = Visitor(gateway, "odd")
    await visitor.goes_in()

    answer = await visitor.fetch(Waitroom_Command="sold-out")

    assert answer.status == 200
    assert shop.seen[-1].one("Waitroom-Command") is None
    assert (await Visitor(gateway, "odd").navigate()).status == 200
