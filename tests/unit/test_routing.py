"""Which room a request belongs to, and that no spelling of a path escapes its room or slips through a bypass."""

from __future__ import annotations

import pytest

from waitroom.edge.routing import LONGEST_KEPT, MEMO_SIZE, Route, Router, host_name, readings
from waitroom.settings import BypassRule, RoomSettings


def room(name: str = "shop", **settings: object) -> RoomSettings:
    return RoomSettings(name=name, upstream="http://127.0.0.1:3000", **settings)  # type: ignore[arg-type]


def route(router: Router, path: bytes, host: bytes = b"shop.example") -> Route:
    found = router.route(host, path)
    assert found is not None
    return found


SALE = Router([room(paths=("/sale", "/checkout/"))])
WEBHOOK = BypassRule(paths=("/webhooks/",), methods=("POST",))
HOOKED = Router([room(bypass=(BypassRule(paths=("/healthz",)), WEBHOOK))])


def test_a_room_without_hosts_and_paths_covers_everything():
    router = Router([room()])
    for path in (b"/", b"/a", b"//", b"*", b"/..", b"/a%20"):
        for host in (b"", b"a", b"[::1]:80"):
            assert router.route(host, path) == Route("shop", True, False, ())


@pytest.mark.parametrize(
    ("path", "gated"),
    [
        (b"/sale", True),
        (b"/sale/", True),
        (b"/sale/a", True),
        (b"/sales", False),
        (b"/", False),
        (b"/a/sale", False),
        (b"/checkout", True),
        (b"/checkout/a", True),
        (b"/checkouts/a", False),
    ],
)
def test_a_prefix_ends_where_a_segment_does(path, gated):
    assert route(SALE, path) == Route("shop", gated, False, ())


@pytest.mark.parametrize(
    "path",
    [
        *(b"/SALE", b"/Sale/A", b"//sale", b"/sale//a", b"/./sale", b"/a/../sale", b"/a/./../sale/", b"/../sale"),
        *(b"/%73ale", b"/%53ALE", b"/sale%2fa", b"/%2fsale", b"/sale%2Fa", b"/a/%2e%2e/sale", b"/a/%2E./sale"),
        *(b"/a/..%2fsale", b"\\sale", b"/a\\..\\sale", b"/a/..%5csale", b"/%5csale", b"/a%2f..%2fsale"),
        *(b"/sale;v=1", b"/sale;v=1/a", b"/;/sale", b"/a/..;/sale", b"/a/..;x=y/sale", b"/a;b/../sale", b"/.;/sale"),
        # Some shops see a path whose dots lead out of the room as one in it: those that don't follow the dots.
        *(b"/sale/../a", b"/sale/..;/a", b"/sale/%2e%2e/a", b"/sale/..%2fa", b"/sale/..%5ca", b"/sale;x/../a"),
        *(b"/sale%2f..%2fa", b"/sale/./../a", b"/sale/..", b"/SALE/%2E%2E"),
    ],
)
def test_no_other_spelling_escapes_the_room(path):
    assert route(SALE, path).gated


@pytest.mark.parametrize(
    "path", [b"/a/..", b"/;sale", b"/%", b"/%7", b"/%zzsale", b"/sal%65s", b"/a?/sale"[:2], b"/..."]
)
def test_other_paths_stay_outside(path):
    assert not route(SALE, path).gated


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/", "all"),
        (b"/sale", "sale"),
        (b"/sale/shoes", "shoes"),
        (b"/sale/shoes/1", "shoes"),
        (b"/sale/shoes2", "sale"),
        (b"/sale/shoes/../hats", "shoes"),
        (b"/sale/hats", "sale"),
    ],
)
def test_the_longest_path_wins_whatever_the_order(path, name):
    rooms = [room("all"), room("sale", paths=("/sale",)), room("shoes", paths=("/x", "/sale/shoes/"))]
    for order in (rooms, rooms[::-1], [rooms[1], rooms[2], rooms[0]]):
        assert route(Router(order), path) == Route(name, True, False, ())


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"www.shop.example", "www"),
        (b"WWW.Shop.Example:8080", "www"),
        (b"www.shop.example.", "www"),
        (b"a.shop.example", "any"),
        (b"a.b.shop.example", "any"),
        (b"a.www.shop.example", "deep"),
        (b"shop.example", "rest"),
        (b"evilshop.example", "rest"),
        (b"www.shop.example.evil", "rest"),
        (b"", "rest"),
    ],
)
def test_the_most_specific_host_wins_whatever_the_order(host, name):
    rooms = [
        room("rest"),
        room("any", hosts=("*.shop.example",)),
        room("deep", hosts=("*.www.shop.example",)),
        room("www", hosts=("other.example", "www.shop.example")),
    ]
    for order in (rooms, rooms[::-1]):
        assert route(Router(order), b"/", host).room == name


def test_a_host_that_no_room_has():
    assert Router([room(hosts=("shop.example",))]).route(b"other.example", b"/") is None
    assert Router([room(hosts=("*.shop.example",))]).route(b"shop.example", b"/") is None


def test_the_host_counts_before_the_path():
    router = Router([room("a", hosts=("a.example",)), room("b", paths=("/sale",))])
    assert route(router, b"/sale", b"a.example").room == "a"
    assert route(router, b"/sale", b"c.example").room == "b"


def test_an_uncovered_path_goes_to_a_room_of_its_host():
    router = Router([room("a", paths=("/a",)), room("b", hosts=("b.example",), paths=("/b",))])
    assert route(router, b"/x", b"b.example") == Route("b", False, False, ())
    assert route(router, b"/x", b"c.example") == Route("a", False, False, ())


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"Shop.Example", "shop.example"),
        (b"shop.example:80", "shop.example"),
        (b"shop.example.:80", "shop.example"),
        (b"[2001:DB8::1]:80", "[2001:db8::1]"),
        (b"[::1]", "[::1]"),
        (b"", ""),
    ],
)
def test_names_of_hosts(host, name):
    assert host_name(host) == name


# Our own addresses.


@pytest.mark.parametrize(
    "path",
    [
        *(b"/.waitroom", b"/.waitroom/", b"/.waitroom/status", b"/.WAITROOM/x", b"//.waitroom/x", b"/%2ewaitroom/x"),
        *(b"/a/../.waitroom/x", b"/.waitroom;a/x", b"\\.waitroom\\x", b"/.waitroom/../a", b"/.waitroom%2fstatus"),
    ],
)
def test_our_own_addresses_in_any_spelling(path):
    assert route(Router([room()]), path).reserved
    assert route(SALE, path).reserved


@pytest.mark.parametrize("path", [b"/", b"/waitroom", b"/.waitroomx", b"/a/.waitroom", b"/.wait/room"])
def test_addresses_that_are_the_shop_s(path):
    assert not route(Router([room()]), path).reserved


# Bypasses.


@pytest.mark.parametrize(
    ("path", "rules"),
    [
        (b"/healthz", (0,)),
        (b"/healthz/deep", (0,)),
        (b"/healthzx", ()),
        (b"/webhooks/pay", (1,)),
        (b"/webhooks/", (1,)),
        (b"/webhooks", ()),
        (b"/webhooks/pay%20me/1", (1,)),
        (b"/webhooks/pay//1", (1,)),
        (b"/", ()),
    ],
)
def test_a_bypass_by_its_path(path, rules):
    got = route(HOOKED, path)
    assert got.gated
    assert tuple(index for index, _ in got.bypass) == rules


@pytest.mark.parametrize(
    "path",
    [
        *(
            b"/webhooks/../buy",
            b"/webhooks/%2e%2e/buy",
            b"/webhooks/.%2E/buy",
            b"/webhooks/..%2fbuy",
            b"/webhooks/..%5cbuy",
        ),
        *(
            b"/webhooks/..\\buy",
            b"/webhooks\\..\\buy",
            b"/webhooks/a/../../buy",
            b"/webhooks/..;/buy",
            b"/webhooks/..;a=b/buy",
        ),
        *(b"/webhooks/a;/../../buy", b"/webhooks/.;/..;/buy", b"/webhooks//../buy", b"/webhooks/%2e%2e%3b/buy"),
        *(
            b"/webhooks/%252e%252e/buy",
            b"/webhooks/..%252fbuy",
            b"/webhooks/%25%32%65%25%32%65/buy",
            b"/webhooks/..%255cbuy",
        ),
        *(b"/buy/../webhooks/", b"/WEBHOOKS/pay", b"/%77ebhooks/pay", b"//webhooks/pay", b"/./webhooks/pay"),
        *(b"/webhooks;/pay", b"/buy/..;/webhooks/pay"),
    ],
)
def test_no_other_spelling_slips_through(path):
    """Neither one that the shop may read as another path, nor another spelling of the bypass itself."""
    assert route(HOOKED, path) == Route("shop", True, False, ())


def test_an_uncovered_path_needs_no_bypass():
    router = Router([room(paths=("/sale",), bypass=(BypassRule(paths=("/webhooks/",)),))])
    assert route(router, b"/webhooks/a") == Route("shop", False, False, ())


# What it costs.


def test_what_has_been_found_is_remembered_with_a_bound():
    router = Router([room()])
    assert route(router, b"/a") is route(router, b"/a")
    for number in range(MEMO_SIZE + 10):
        route(router, b"/%d" % number)
        assert len(router._memo) <= MEMO_SIZE
    router._memo.clear()
    route(router, b"/" + b"a" * LONGEST_KEPT)
    route(router, b"/", b"a" * LONGEST_KEPT)
    assert not router._memo, "thousands of the longest ones would fill the memory"


def test_a_plain_path_has_one_reading():
    assert readings(b"/A/b%20c/") == {b"/a/b c"}


def test_the_readings_of_a_long_path_are_few():
    for path in (b"/..;/a;b/." * 3000, b"/%25" * 8000, b"/%" + b"25" * 16000):
        assert len(readings(path)) <= 8
