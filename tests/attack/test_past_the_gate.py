"""Ways past the line without waiting: what reached the shop is counted in the shop's own log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from support.admin_client import Operator
from support.attackers import ONE_ADDRESS, address, flood, navigation, preflight, request
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.real_shops import Arrival, DjangoShop, RealShop, django_shop, nginx_shop, php_shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MANY = 500
PREFLIGHTS_PER_SECOND = 2.0  # the default
STRANGER = "127.0.0.2"  # an address that is no trusted proxy
# A request beyond a budget waits for a moment before it is refused: a short one here, so that a flood is soon over.
SOON = {"upstream_wait_seconds": 0.2}
SMALL = {"rate_per_minute": 60, "max_active": 100_000, **SOON}
FULL = {"max_active": 1, **SOON}


@dataclass
class Street:
    """A gateway with rooms before three shops."""

    gateway: Gateway
    php: RealShop
    django: DjangoShop
    nginx: RealShop

    def shop(self, name: str) -> RealShop:
        return {"php": self.php, "django": self.django, "nginx": self.nginx}[name]

    async def quiet(self) -> None:
        """Forgets what has reached the shops so far."""
        for shop in (self.php, self.django, self.nginx):
            await shop.arrived()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def street(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    async with AsyncExitStack() as stack:
        php = await stack.enter_async_context(php_shop(folder))
        django = await stack.enter_async_context(django_shop(folder))
        nginx = await stack.enter_async_context(nginx_shop(folder))
        two = {"hosts": ["two.test"]}
        rooms = [
            room("php", upstream=php.address, **SMALL),
            room("django", upstream=django.address, **SMALL),
            room("nginx", upstream=nginx.address, **SMALL),
            room("full", upstream=php.address, **FULL),
            room("closed", upstream=php.address, **SOON),
            room("soldout", upstream=php.address, **SOON),
            room("shut", upstream=php.address, without_pass="refuse", **SMALL),
            room("wide", upstream=php.address, without_pass="all", without_pass_per_second=5, **SMALL),
            room("watch", upstream=nginx.address, method="passthrough", **SMALL),
            room("crossed", upstream=nginx.address, **FULL) | two,
            room("information", upstream=nginx.address, paths=["/information"], method="passthrough") | two,
            *(
                room(f"prefix-{name}", upstream=shop.address, paths=["/sale"], **FULL)
                for name, shop in (("php", php), ("django", django), ("nginx", nginx))
            ),
        ]
        gateway = await stack.enter_async_context(
            running_gateway(folder / "gateway", rooms, workers=2, trusted_proxies=["127.0.0.1"])
        )
        for name in ("full", "crossed", "prefix-php", "prefix-django", "prefix-nginx"):
            await fill(gateway, name)
        for name, state in (("closed", "closed"), ("soldout", "sold_out")):
            operator = Operator(gateway, name)
            await operator.look()
            assert (await operator.change(state=state, message=state)).status == 200
            await eventually(lambda name=name, state=state: shows(gateway, name, message=state))
        yield Street(gateway, php, django, nginx)


def host(name: str) -> str:
    return "two.test" if name == "crossed" else f"{name}.test"


async def fill(gateway: Gateway, name: str) -> None:
    """Takes the only slot of a room, and waits until all workers know."""
    inside = Visitor(gateway, name, host=host(name), headers={"X-Forwarded-For": "203.0.113.1"})
    await inside.is_let_in("/sale")
    outside = Visitor(gateway, name, host=host(name), headers={"X-Forwarded-For": "203.0.113.2"})
    await outside.waits("/sale")
    await eventually(lambda: shows(gateway, name, outside.cookies, state="waiting"))


async def shows(gateway: Gateway, name: str, cookies: dict[str, str] | None = None, **expected: str) -> bool:
    """Whether every worker tells a visitor so."""
    client = {"X-Forwarded-For": "203.0.113.2"}
    visitor = Visitor(gateway, name, host=host(name), cookies=cookies or {}, headers=client)
    for _ in range(16):
        status = await visitor.status()
        assert {key: status[key] for key in expected} == expected
    return True


def without_pass(arrivals: Iterable[Arrival]) -> list[Arrival]:
    return [one for one in arrivals if not one.session]


def reached(arrivals: Iterable[Arrival], part: str) -> int:
    return sum(part in one.target for one in without_pass(arrivals))


def sources(one: bool) -> Iterable[str]:
    return (ONE_ADDRESS if one else address(number) for number in range(MANY))


# Preflights.


@pytest.mark.parametrize("one", [True, False], ids=["one address", "many addresses"])
@pytest.mark.parametrize("shop", ["php", "django", "nginx"])
async def test_preflights_are_limited(street: Street, shop: str, one: bool) -> None:
    await street.quiet()
    asked = [
        preflight(f"/api/order/{number}?item={number}", f"{shop}.test", source=source)
        for number, source in enumerate(sources(one))
    ]
    found = await flood(street.gateway, asked)
    arrived = await street.shop(shop).arrived()
    assert len(arrived) <= found.allows(PREFLIGHTS_PER_SECOND), found.statuses
    assert not [each for each in arrived if "?" in each.target], "asked for with the query"


@pytest.mark.parametrize("room_name", ["full", "closed", "soldout"])
async def test_preflights_are_limited_while_visitors_wait(street: Street, room_name: str) -> None:
    await street.quiet()
    bodies = [None, b"item=1"]
    asked = [
        preflight(f"/api/order/{number}?item={number}", f"{room_name}.test", source=source, body=bodies[number % 2])
        for number, source in enumerate(sources(one=False))
    ]
    found = await flood(street.gateway, asked)
    arrived = await street.php.arrived()
    allowed = found.allows(PREFLIGHTS_PER_SECOND) if room_name == "full" else 0
    assert len(arrived) <= allowed, found.statuses
    assert not [each for each in arrived if "?" in each.target or each.length], "asked for with a query or a body"


async def test_a_preflight_orders_nothing_in_a_shop_that_ignores_methods(street: Street) -> None:
    """The same address over and over: the answer is kept, so the shop is asked a few times at most."""
    await street.quiet()
    baskets = street.django.baskets()
    php = [preflight("/api/order", "php.test", source=source, body=b"item=1") for source in sources(one=False)]
    django = [preflight("/api/order", "django.test", source=source, body=b"item=1") for source in sources(one=False)]
    first, second = await flood(street.gateway, php), await flood(street.gateway, django)
    orders = sum(one.more["order"] for one in await street.php.arrived())
    assert orders <= first.allows(PREFLIGHTS_PER_SECOND), first.statuses
    assert street.django.baskets() - baskets <= second.allows(PREFLIGHTS_PER_SECOND), second.statuses
    assert not [one for one in await street.django.arrived() if one.length]


async def test_requests_that_only_look_like_preflights(street: Street) -> None:
    await street.quiet()
    asked = [
        request("OPTIONS", "/api/order", "php.test", source=source, **{name: "https://app.test"})
        for source in sources(one=False)
        for name in ("Origin", "Access_Control_Request_Method")
    ]
    found = await flood(street.gateway, asked)
    assert await street.php.arrived() == [], found.statuses


# Requests without a pass.


@pytest.mark.parametrize("one", [True, False], ids=["one address", "many addresses"])
@pytest.mark.parametrize("shop", ["php", "django", "nginx"])
async def test_orders_without_a_pass(street: Street, shop: str, one: bool) -> None:
    await street.quiet()
    methods = ["POST", "POST", "PUT", "PATCH", "DELETE"]
    asked = [
        request(methods[number % 5], "/api/order", f"{shop}.test", source=source, body=b"item=1", Accept="*/*")
        for number, source in enumerate(sources(one))
    ]
    found = await flood(street.gateway, asked)
    assert await street.shop(shop).arrived() == [], found.statuses
    assert street.django.baskets() == 0 or shop != "django"


@pytest.mark.parametrize("one", [True, False], ids=["one address", "many addresses"])
async def test_reads_without_a_pass_stay_within_their_budget(street: Street, one: bool) -> None:
    """A tenth of 60 a minute, and at least one a second."""
    await street.quiet()
    asked = [
        request(("GET", "HEAD")[number % 2], f"/api/item/{number}", "nginx.test", source=source, Accept="*/*")
        for number, source in enumerate(sources(one))
    ]
    found = await flood(street.gateway, asked)
    arrived = await street.nginx.arrived()
    assert len(arrived) <= found.allows(1.0), found.statuses
    assert not [each for each in arrived if each.session], "took an admission"
    metrics = await street.gateway.metrics_of("nginx")
    counted = sum(value for key, value in metrics.items() if key[0] == "waitroom_requests_total")
    assert counted >= MANY, "what is refused counts as well"


async def test_nothing_passes_without_a_pass_if_set_to_refuse(street: Street) -> None:
    await street.quiet()
    asked = [
        request(("GET", "HEAD", "POST")[number % 3], "/api/item", "shut.test", source=source, Accept="*/*")
        for number, source in enumerate(sources(one=False))
    ]
    found = await flood(street.gateway, asked)
    assert await street.php.arrived() == [], found.statuses


async def test_all_methods_stay_within_the_budget_if_allowed(street: Street) -> None:
    await street.quiet()
    asked = [
        request("POST", "/api/order", "wide.test", source=source, body=b"item=1", Accept="*/*")
        for source in sources(one=False)
    ]
    found = await flood(street.gateway, asked)
    assert 1 <= len(await street.php.arrived()) <= found.allows(5.0), found.statuses


async def test_a_passthrough_room_refuses_nothing(street: Street) -> None:
    await street.quiet()
    asked = [
        request("POST", f"/api/order/{number}", "watch.test", source=address(number), body=b"item=1", Accept="*/*")
        for number in range(100)
    ]
    found = await flood(street.gateway, asked)
    assert len(await street.nginx.arrived()) == 100, found.statuses


async def test_refused_requests_are_logged_with_the_bypass_rule_they_need(street: Street) -> None:
    asked = [
        request("POST", f"/hooks/provider/{number}", "nginx.test", source=address(number), body=b"{}", Accept="*/*")
        for number in range(200)
    ]
    await flood(street.gateway, asked)
    lines = [line for line in street.gateway.log.splitlines() if "/hooks" in line]
    assert 1 <= len(lines) <= street.gateway.settings["workers"], lines
    assert "POST" in lines[0]
    assert "bypass" in lines[0]


async def test_clicks_without_cookies_are_admitted_at_the_rate(street: Street) -> None:
    """A robot that calls each of its orders a navigation takes one admission for each."""
    await street.quiet()
    asked = [
        navigation("/api/order", "django.test", source=source).replace(b"GET", b"POST", 1)
        for source in sources(one=False)
    ]
    found = await flood(street.gateway, asked)
    arrived = await street.django.arrived()
    assert len(arrived) <= found.allows(1.0), found.statuses
    assert all(one.session for one in arrived)


# Other names for a path.

CROSSING = [
    "/information/../sale/buy",
    "/information/%2e%2e/sale/buy",
    "/information/..%2fsale/buy",
    "/information/%2e%2e%2fsale/buy",
    "/information/;/../sale/buy",
    "/information/..;/sale/buy",
    "/information\\..\\sale/buy",
    "/information/.%2e/sale/buy",
]


@pytest.mark.parametrize("path", CROSSING)
async def test_a_pass_of_one_room_does_not_open_another_room_of_the_host(street: Street, path: str) -> None:
    await street.quiet()
    asked = [
        make(path, "two.test", source=address(number))
        for number, make in enumerate([navigation, lambda *args, **more: request("POST", *args, body=b"x", **more)])
    ]
    found = await flood(street.gateway, asked)
    assert await street.nginx.arrived() == [], found.statuses
    assert set(found.statuses) == {400}


SUFFIXES = [
    *("/sale.json", "/sale.html", "/sale.", "/sale.php", "/sale.xml?x=1", "/sale.json/", "/sale%2ejson"),
    *("/sale~", "/sale;jsessionid=1", "/sale%3bx", "/sale%20", "/sale%20/x", "/sale%09", "/sale%0a"),
    *("/sale%00", "/sale%00.png", "/sale%7f", "/sale%7e"),
]
PREFIXES = [
    *("/index.php/sale", "/index.php/sale/order", "/Index.PHP/sale", "/index.php//sale", "//index.php/sale"),
    *("/SALE", "//sale", "/%73ale", "/sale/order", "/x/../sale"),
]
# Those that each shop takes for the sale, among others.
TAKEN = {
    "php": {"/sale~", "/sale%7e", "/sale.json", "/sale;jsessionid=1", "/sale%00", "/sale%20", "/index.php/sale"},
    "django": {"/sale~", "/sale%7e", "/sale.json", "/sale;jsessionid=1", "/sale%09", "/sale%20", "/index.php/sale"},
    "nginx": {"/sale~", "/sale%7e", "/sale.json", "/sale;jsessionid=1", "/sale%09", "/sale%20", "/index.php/sale"},
}


async def answer_of(shop: RealShop, path: str) -> bytes:
    """A shop's own answer, with no gateway in between."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    try:
        writer.write(request("GET", path, "shop.test", Connection="close"))
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("name", ["php", "django", "nginx"])
async def test_other_spellings_of_a_covered_path_are_covered(street: Street, name: str) -> None:
    shop, host = street.shop(name), f"prefix-{name}.test"
    paths = PREFIXES + SUFFIXES
    taken = {path for path in paths if b"ordered\n" in await answer_of(shop, path)}
    assert taken >= TAKEN[name], "the shop reads them so"
    await street.quiet()
    asked = []
    for number, path in enumerate(paths):
        asked.append(request("POST", path, host, source=address(number), body=b"item=1", Accept="*/*"))
        asked.append(request("GET", path, host, source=address(number), Accept="*/*"))
        asked.append(navigation(path, host, source=address(number)))
    found = await flood(street.gateway, asked)
    assert [one.target for one in await shop.arrived()] == [], found.statuses


@pytest.mark.parametrize("path", ["/sale\x01", "/free\x7f", "/free/\x0b/x"])
async def test_a_path_with_control_characters_is_refused(street: Street, path: str) -> None:
    await street.quiet()
    found = await flood(street.gateway, [request("GET", path, "prefix-php.test", source=address(1))])
    assert await street.php.arrived() == []
    assert set(found.statuses) == {400}


async def test_uncovered_paths_are_served(street: Street) -> None:
    """The same shop's other pages, in every method."""
    await street.quiet()
    asked = [
        request(method, path, "prefix-php.test", source=address(1), Accept="*/*")
        for method in ("GET", "POST")
        for path in ("/free", "/sales", "/sale-of-the-year", "/index.php/free", "/about.html")
    ]
    found = await flood(street.gateway, asked)
    assert set(found.statuses) == {200}
    assert len(await street.php.arrived()) == len(asked)


MOVING = {
    "X-Original-URL": "/sale/order",
    "X-Rewrite-URL": "/sale/order",
    "X-HTTP-Method-Override": "POST",
    "X-HTTP-Method": "POST",
    "X-Method-Override": "POST",
    "X-Forwarded-Prefix": "/sale",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Server": "evil.test",
    "X-Real-IP": "192.0.2.66",
    "True-Client-IP": "192.0.2.66",
    "CF-Connecting-IP": "192.0.2.66",
    "Remote-User": "admin",
    "Proxy": "http://192.0.2.66/",
    "Waitroom-Session": "deadbeef",
    "Waitroom-Room": "vip",
    "Waitroom-Anything": "1",
}


@pytest.mark.parametrize("spelling", ["as it is", "with underscores"])
async def test_headers_that_would_move_a_request_are_dropped(street: Street, spelling: str) -> None:
    """PHP follows X-Original-URL to the sale, and takes an underscore for a hyphen, as every CGI does."""
    await street.quiet()
    asked = []
    for name, value in MOVING.items():
        if spelling == "with underscores":
            name = name.replace("-", "_")
        line = f"{name}: {value}\r\n\r\n".encode()
        asked.append(request("POST", "/free", "prefix-php.test", Content_Length="0")[:-2] + line)
    found = await flood(street.gateway, asked, source=STRANGER)
    arrived = await street.php.arrived()
    assert len(arrived) == len(MOVING), found.statuses
    assert not [one for one in arrived if one.more["order"] or one.session]
    names = {name.lower() for name in MOVING} - {"waitroom-room"}
    seen = {name.replace("_", "-") for one in arrived for name in one.more["headers"]}
    assert not seen & names
    rooms = {one.more["headers"].get("waitroom-room") for one in arrived}
    assert rooms <= {"prefix-php", None}
