"""Which room a request belongs to, and what goes by: no other spelling of an address escapes its room."""

from __future__ import annotations

import pytest

from support.gateway_process import Gateway, eventually, room
from support.upstreams.server import Shop
from support.visitor_client import FETCH, Visitor, Wire, filled

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

FULL = {"max_active": 1}
HOOK = {"paths": ["/webhooks/"], "methods": ["POST"]}
ROOMS = [
    room("sale", **FULL, hosts=["site.test"], paths=["/sale", "/checkout/"]),
    room("wild", **FULL, hosts=["*.wild.test"]),
    room("exact", hosts=["exact.wild.test"]),
    room("hooks", **FULL, bypass=[HOOK, {"paths": ["/health"]}]),
    room("capped", **FULL, bypass=[{"paths": ["/hook"], "max_per_second": 2, "max_per_second_per_address": 2}]),
]
SETTINGS = {"workers": 1}

# What a shop may well serve as /sale or /checkout.
COVERED = rb"""
/sale /sale/ /sale/phone /sale?x=1 /SALE /Sale/Phone //sale /sale//phone ///sale/// /./sale /%2e/sale /sale/.
/%73ale /s%61le/ /%53ALE /%2573ale /sale%2Fphone /%2Fsale /sale%2f /x/../sale /x/%2e%2e/sale /x/..\sale /\sale
/sale;jsessionid=1 /sale;a/phone /sale%3Bx /x/..;/sale /sale#top /sale?# /sale/../about
/checkout /checkout/ /checkout/pay /CHECKOUT
""".split()
UNCOVERED = (b"/", b"/about", b"/salesman", b"/sal", b"/x/sale", b"/checkouts", b"/?/sale")


async def ask(gateway: Gateway, target: bytes, host: bytes = b"site.test", method: bytes = b"GET") -> int:
    async with Wire.open(gateway) as wire:
        length = b"Content-Length: 0\r\n" if method == b"POST" else b""
        await wire.send(b"%b %b HTTP/1.1\r\nHost: %b\r\nAccept: */*\r\n%b\r\n" % (method, target, host, length))
        return (await wire.answer()).status


async def test_no_spelling_of_a_path_escapes_its_room(gateway: Gateway, shop: Shop) -> None:
    inside = Visitor(gateway, "sale", host="site.test")
    await filled_at(gateway, inside, "/sale")
    shop.seen.clear()

    for target in COVERED:
        assert await ask(gateway, target) in (400, 503), target
    assert not shop.seen
    for target in UNCOVERED:
        assert await ask(gateway, target) == 200, target
        assert shop.seen.pop().target == target.decode()


async def filled_at(gateway: Gateway, visitor: Visitor, path: str) -> None:
    await visitor.goes_in(path)

    async def noticed() -> bool:
        return await ask(gateway, path.encode(), visitor.host.encode()) == 503

    await eventually(noticed)


@pytest.mark.parametrize("host", [b"SITE.test", b"site.test.", b"site.test:80", b"Site.Test:8080", b"site.test.:1"])
async def test_no_spelling_of_a_host_escapes_its_room(gateway: Gateway, shop: Shop, host: bytes) -> None:
    if not await gateway.members("sale", "active"):
        await filled_at(gateway, Visitor(gateway, "sale", host="site.test"), "/sale")

    assert await ask(gateway, b"/sale", host) == 503
    assert await ask(gateway, b"http://%b/sale" % host, host) == 503


async def test_a_target_and_a_host_that_differ_are_refused(gateway: Gateway, shop: Shop) -> None:
    seen = len(shop.seen)

    assert await ask(gateway, b"http://site.test/sale", b"exact.wild.test") == 400
    assert await ask(gateway, b"/", b"nowhere.test") == 421
    assert await ask(gateway, b"/", b"site.test@nowhere.test") == 400

    assert len(shop.seen) == seen


async def test_the_most_specific_host_wins(gateway: Gateway, shop: Shop) -> None:
    exact = Visitor(gateway, "exact", host="exact.wild.test")
    await exact.goes_in()
    assert shop.seen[-1].one("Waitroom-Room") == "exact"
    wild = Visitor(gateway, "wild", host="any.wild.test")
    await wild.goes_in()
    assert shop.seen[-1].one("Waitroom-Room") == "wild"
    assert (await Visitor(gateway, "wild", host="wild.test").navigate()).status == 421


async def test_a_pass_of_one_room_is_invalid_in_another(gateway: Gateway) -> None:
    await filled(gateway, "hooks")
    exact = Visitor(gateway, "exact", host="exact.wild.test")
    await exact.goes_in()
    value = exact.cookies[exact.pass_cookie]

    for name in ("waitroom_pass_exact", "waitroom_pass_hooks"):
        answer = await Visitor(gateway, "hooks", cookies={name: value}).fetch("/")
        assert answer.status == 503


async def test_a_bypassed_request_needs_no_ticket(gateway: Gateway, shop: Shop) -> None:
    if not await gateway.members("hooks", "active"):
        await filled(gateway, "hooks")
    joined = await gateway.total("hooks")

    answer = await Visitor(gateway, "hooks").request("POST", "/webhooks/paid?id=1", {"Accept": "*/*"}, b"{}")

    assert answer.status == 200
    assert not answer.cookie_lines
    seen = shop.last("/webhooks/paid")
    assert (seen.session, seen.one("Waitroom-Room"), seen.body) == (None, "hooks", b"{}")
    assert await ask(gateway, b"/health", b"hooks.test") == 200
    assert await gateway.total("hooks") == joined
    for method, target in (
        (b"GET", b"/webhooks/paid"),
        (b"POST", b"/Webhooks/paid"),
        (b"POST", b"/webhooks/../sale"),
        (b"POST", b"/webhooks/%2e%2e/sale"),
        (b"POST", b"/webhooks/..;/sale"),
        (b"POST", b"/webhooks/..\\sale"),
        (b"POST", b"//webhooks/paid"),
        (b"POST", b"/x/../webhooks/paid"),
        (b"GET", b"/healthy"),
        (b"GET", b"/health/../sale"),
    ):
        assert await ask(gateway, target, b"hooks.test", method) in (400, 503), target


async def test_bypassed_requests_are_capped(gateway: Gateway, shop: Shop) -> None:
    await filled(gateway, "capped")

    statuses = [(await Visitor(gateway, "capped").request("POST", "/hook", FETCH, b"{}")).status for _ in range(30)]

    assert statuses[:2] == [200, 200]
    assert 429 in statuses
    assert shop.paths().count("/hook") == statuses.count(200)
    metrics = await gateway.metrics_of("capped")
    assert metrics is not None


async def test_the_shop_cannot_serve_pages_under_our_prefix(gateway: Gateway, shop: Shop) -> None:
    visitor = Visitor(gateway, "exact", host="exact.wild.test")
    await visitor.goes_in()
    shop.seen.clear()

    for path in ("/.waitroom/x", "/.WAITROOM/status", "//.waitroom/join", "/%2ewaitroom/x", "/x/../.waitroom/leave"):
        assert await ask(gateway, path.encode(), b"exact.wild.test") == 404, path

    assert not shop.seen
