"""For random mixes of clients with and without passes, what reaches a shop without one keeps to the budgets' sum."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.attackers import ONE_ADDRESS, address, flood, navigation, preflight, request
from support.gateway_process import Gateway, room, running_gateway
from support.upstreams.real_shops import RealShop, nginx_shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WITHOUT_PASS, PREFLIGHTS, BYPASS = 3.0, 2.0, 4.0
ADMISSIONS = 120.0  # a minute
KINDS = ("get", "head", "post", "preflight", "body", "bypass", "navigation", "pass", "prefetch", "upgrade")
INSIDE, INSIDE_ADDRESSES = ("navigation", "pass"), 100_000


@dataclass
class Mixed:
    gateway: Gateway
    shop: RealShop
    loop: asyncio.AbstractEventLoop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mixed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mixed]:
    folder = tmp_path_factory.mktemp("mixed")
    limits = {
        "rate_per_minute": ADMISSIONS,
        "without_pass_per_second": WITHOUT_PASS,
        "preflights_per_second": PREFLIGHTS,
        "upstream_wait_seconds": 0.1,
        "session_requests_per_second": 100_000,
        "session_requests_in_flight": 10_000,
        "bypass": [{"paths": ["/hooks/"], "max_per_second": BYPASS}],
    }
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(nginx_shop(folder))
        rooms = [room("mixed", upstream=shop.address, **limits)]
        gateway = await stack.enter_async_context(
            running_gateway(folder / "gateway", rooms, workers=2, trusted_proxies=["127.0.0.1"])
        )
        yield Mixed(gateway, shop, asyncio.get_running_loop())


def one_of(kind: str, number: int, source: str, pass_: str) -> bytes:
    host, path = "mixed.test", f"/{number % 7}/{number}"
    match kind:
        case "get":
            return request("GET", path, host, source=source, Accept="*/*")
        case "head":
            return request("HEAD", path, host, source=source)
        case "post":
            return request("POST", path, host, source=source, body=b"item=1")
        case "preflight":
            return preflight(f"{path}?{number}", host, source=source)
        case "body":
            return preflight(path, host, source=source, body=b"item=1")
        case "bypass":
            return request("POST", f"/hooks/{number}", host, source=source, body=b"{}")
        case "navigation":
            return navigation(path, host, source=source)
        case "prefetch":
            return navigation(path, host, source=source, Sec_Purpose="prefetch;prerender")
        case "upgrade":
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
            return request("GET", path, host, source=source, Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", **upgrade)
        case _:
            return request("POST", path, host, source=source, body=b"item=1", Waitroom_Pass=pass_)


mixes = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(20, 120), st.sampled_from(["one", "few", "many"])),
    min_size=2,
    max_size=6,
)


# What a mix costs depends on the time it takes, so that a smaller one may well keep to the budgets: nothing is shrunk.
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(mix=mixes)
async def test_requests_to_the_shop_stay_within_the_budgets(mixed: Mixed, mix: list[tuple[str, int, str]]) -> None:
    gateway, shop = mixed.gateway, mixed.shop
    visitor = Visitor(gateway, "mixed", headers={"X-Forwarded-For": "203.0.113.1"})
    await visitor.is_let_in()
    pass_ = visitor.cookies[visitor.pass_cookie]
    asked = []
    for kind, count, where in mix:
        for number in range(count):
            source = {"one": ONE_ADDRESS, "few": address(number % 5), "many": address(number)}[where]
            if kind in INSIDE:  # preflights where a session is active count against its own bound
                source = address(INSIDE_ADDRESSES + number)
            asked.append(one_of(kind, len(asked) + number, source, pass_))
    asked = [one for start in range(7) for one in asked[start::7]]  # all kinds at the same time
    await shop.arrived()
    found = await flood(gateway, asked)
    arrived = await shop.arrived()
    strangers = [one for one in arrived if not one.session]
    allowed = found.allows(WITHOUT_PASS) + found.allows(PREFLIGHTS) + found.allows(BYPASS)
    assert len(strangers) <= allowed, (mix, found.statuses)
    assert len({one.session for one in arrived} - {""}) <= 1 + found.allows(ADMISSIONS / 60)
    hooks = sum(one.target.startswith("/hooks/") for one in strangers)
    options = sum(one.method == "OPTIONS" for one in strangers)
    assert hooks <= found.allows(BYPASS)
    assert options <= found.allows(PREFLIGHTS)
    assert len(strangers) - hooks - options <= found.allows(WITHOUT_PASS)
    passes = sum(count for kind, count, _ in mix if kind == "pass")
    assert sum(one.session == f"{visitor.pass_.session:x}" for one in arrived) >= passes, "those inside are served"
