"""Routing: the room of a request, and that no spelling of a path escapes its room or matches a bypass."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from waitroom.edge.rooms.router import CACHE_SIZE, MAX_CACHED_BYTES, Route, Router, host_name, path_interpretations
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
def test_no_spelling_escapes_the_room(path):
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
        (b"/sale/hats", "sale"),
    ],
)
def test_the_longest_path_wins_whatever_the_order(path, name):
    rooms = [room("all"), room("sale", paths=("/sale",)), room("shoes", paths=("/x", "/sale/shoes/"))]
    for order in (rooms, rooms[::-1], [rooms[1], rooms[2], rooms[0]]):
        assert route(Router(order), path) == Route(name, True, False, ())


# What shops serve under the same name.


@pytest.mark.parametrize(
    "path",
    [
        *(b"/sale.json", b"/sale.html", b"/sale.", b"/sale%20", b"/sale~", b"/sale;x", b"/sale%", b"/sale%3Fa=1"),
        *(b"/sale%23a", b"/sale::$DATA", b"/sale.json/a", b"/SALE.JSON", b"/checkout.php", b"/sale%2ejson"),
        *(b"/index.php/sale", b"/index.php/sale/a", b"/INDEX.PHP/Sale", b"/app_dev.php/sale", b"/shop.aspx/sale"),
        *(b"/index.php//sale", b"/index%2ephp/sale", b"/index.php/x/../sale", b"/x/../index.php/sale", b"/a.cgi/sale"),
        *(b"/pub/index.php/sale", b"/index.php/b.php/sale", b"/index.php;a/sale", b"/index.php./sale"),
        *(
            b"/sale./a",
            b"/sale%20/a",
            b"/sale%20.%20/a",
            b"/x/..%20/sale",
            b"/%u0073ale",
            b"/sale//..",
            b"/x//../../sale",
            b"/sale%u002fa",
        ),
    ],
)
def test_a_prefix_covers_what_is_served_under_the_same_name(path):
    assert route(SALE, path).gated


@pytest.mark.parametrize(
    "path", [b"/sales", b"/sale-2", b"/sale_2", b"/index.php/sales", b"/index.html/sale", b"/a.php", b"/php/sale"]
)
def test_a_prefix_does_not_cover_other_names(path):
    assert route(SALE, path) == Route("shop", False, False, ())


def test_a_prefix_behind_a_script_covers_the_same_without_it():
    router = Router([room(paths=("/index.php/sale",)), room("rest")])
    for path in (b"/index.php/sale", b"/sale/a", b"/index.php/sale/a"):
        assert route(router, path) == Route("shop", True, False, ())
    assert route(router, b"/index.php") == Route("rest", True, False, ())
    only = Router([room(paths=("/index.php",))])
    assert route(only, b"/index.php/sale").gated
    assert not route(only, b"/sale").gated


@pytest.mark.parametrize(
    "path", [b"/sale%00", b"/sale%09", b"/a%0d%0ab", b"/%7f", b"/a%2500", b"/%u0000", b"/.waitroom/%00", b"/a;%1f/b"]
)
def test_control_characters_are_refused(path):
    for router in (SALE, Router([room()]), Router([room()], strict=False)):
        got = route(router, path)
        assert got.refused == "control characters in the path"
        assert not got.rooms


# Several rooms on one host.

INFORMATION = [room("sale"), room("information", paths=("/information",), method="passthrough")]
# One path in seven spellings, as gateways and shops disagree about them.
SPELLED = (
    *(b"/information/../sale/buy", b"/information/%2e%2e/sale/buy", b"/information/..%2fsale/buy"),
    *(b"/information/;/../sale/buy", b"/information/..;/sale/buy", b"/information\\..\\sale\\buy"),
    b"/information/%252e%252e/sale/buy",
)


@pytest.mark.parametrize("path", SPELLED)
def test_a_path_of_several_rooms_is_refused(path):
    for order in (INFORMATION, INFORMATION[::-1]):
        got = route(Router(order), path)
        assert (got.refused, got.rooms) == ("path in several rooms", ("information", "sale"))
        assert not got.gated
        assert not got.bypass


@pytest.mark.parametrize("path", SPELLED)
def test_without_strict_paths_the_longest_prefix_wins(path):
    assert route(Router(INFORMATION, strict=False), path) == Route("information", True, False, ())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/information", "information"),
        (b"/information/", "information"),
        (b"/INFORMATION//faq", "information"),
        (b"/information/faq.html", "information"),
        (b"/information/a/../b", "information"),
        (b"/information/;v=1/b", "information"),
        (b"/sale/buy", "sale"),
        (b"/a/../b", "sale"),
        (b"/a/./b/..;/c", "sale"),
        (b"/a%2fb", "sale"),
        (b"/index.php/sale", "sale"),
        (b"/informations", "sale"),
        (b"/", "sale"),
    ],
)
def test_a_path_of_one_room_is_routed_there(path, name):
    assert route(Router(INFORMATION), path) == Route(name, True, False, ())


def test_a_possible_path_end_counts_as_two_rooms_unless_it_is_listed():
    """A shop may serve /information.html as /information, or as a page of its own that another room covers."""
    assert route(Router(INFORMATION), b"/information.html").rooms == ("information", "sale")
    listed = [room("sale"), room("information", paths=("/information", "/information.html"))]
    assert route(Router(listed), b"/information.html") == Route("information", True, False, ())


def test_a_path_covered_in_one_interpretation_is_covered():
    router = Router([room("a", paths=("/a",)), room("b", paths=("/b",))])
    assert route(router, b"/a/../x") == Route("a", True, False, ())
    assert route(router, b"/x/../a") == Route("a", True, False, ())
    assert route(router, b"/a/../b").rooms == ("a", "b")


# What servers make of a path; each of them is one that many shops run.


def _split(path: bytes) -> list[bytes]:
    return [segment for segment in path.lower().replace(b"\\", b"/").split(b"/") if segment]


def _follow(segments: list[bytes]) -> list[bytes]:
    left: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            left = left[:-1]
        elif segment != b".":
            left.append(segment)
    return left


def _unescaped(path: bytes) -> list[bytes]:
    return _split(unquote_to_bytes(path))


def _twice(path: bytes) -> list[bytes]:
    return _follow(_split(unquote_to_bytes(unquote_to_bytes(path))))


def _nginx(path: bytes) -> list[bytes]:
    return _follow(_unescaped(path))


def _tomcat(path: bytes) -> list[bytes]:
    return _follow(_unescaped(b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))))


def _jetty(path: bytes) -> list[bytes]:
    return _follow([bare for segment in _unescaped(path) if (bare := segment.partition(b";")[0])])


def _to_the_letter(path: bytes) -> list[bytes]:
    """As RFC 3986 has it: an empty segment is a segment."""
    segments = unquote_to_bytes(path).lower().replace(b"\\", b"/").split(b"/")[1:]
    return [segment for segment in _follow(segments) if segment]


def _windows(path: bytes) -> list[bytes]:
    return [name for segment in _nginx(path) if (name := segment.rstrip(b". "))]


def _php(path: bytes) -> list[bytes]:
    segments = _nginx(path)
    first = next((index for index, name in enumerate(segments[:-1]) if name.endswith(b".php")), None)
    return segments if first is None else segments[first + 1 :]


SERVERS = (_unescaped, _twice, _nginx, _to_the_letter, _tomcat, _jetty, _windows, _php)
PIECES = st.sampled_from(
    [
        *(b"/", b"//", b"\\", b"%2f", b"%5c", b"%252f", b".", b"..", b"%2e", b"%252e", b";", b";x", b"%3b", b"%20"),
        *(b"sale", b"information", b"webhooks", b"x", b"SALE", b"s%61le", b"index.php", b"index.php/", b".json"),
        *(b"/../", b"/./", b"/..;/", b"/.. /".replace(b" ", b"%20")),
    ]
)
PATHS = st.lists(PIECES, max_size=10).map(lambda pieces: b"/" + b"".join(pieces))


def _below(prefix: bytes, segments: list[bytes]) -> bool:
    return segments[:1] == [prefix]


@settings(max_examples=examples(100, long=5000), deadline=None)
@given(PATHS)
def test_every_servers_interpretation_is_among_ours(path):
    found = path_interpretations(path)
    for server in SERVERS:
        assert b"".join(b"/" + segment for segment in server(path)) in found, server


@settings(max_examples=examples(100, long=5000), deadline=None)
@given(PATHS)
def test_no_server_serves_a_room_without_the_gate(path):
    covered, by = route(SALE, path), route(HOOKED, path)
    rooms = route(Router(INFORMATION), path)
    owners = {"information" if _below(b"information", server(path)) else "sale" for server in SERVERS}
    assert rooms.refused or owners == {rooms.room}
    for server in SERVERS:
        assert covered.gated or not _below(b"sale", server(path)), server
        assert not by.bypass or _below(b"webhooks", server(path)), server


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


def test_an_unknown_host():
    assert Router([room(hosts=("shop.example",))]).route(b"other.example", b"/") is None
    assert Router([room(hosts=("*.shop.example",))]).route(b"shop.example", b"/") is None


def test_the_host_takes_precedence_over_the_path():
    router = Router([room("a", hosts=("a.example",)), room("b", paths=("/sale",))])
    assert route(router, b"/sale", b"a.example").room == "a"
    assert route(router, b"/sale", b"c.example").room == "b"


def test_an_uncovered_path_is_routed_to_a_room_of_its_host():
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
def test_reserved_paths_in_any_spelling(path):
    assert route(Router([room()]), path).reserved
    assert route(SALE, path).reserved


@pytest.mark.parametrize("path", [b"/", b"/waitroom", b"/.waitroomx", b"/a/.waitroom", b"/.wait/room"])
def test_paths_that_are_not_reserved(path):
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
        *(b"/webhooks;/pay", b"/buy/..;/webhooks/pay", b"/webhooks.json", b"/webhooks.php/pay", b"/webhooks~/pay"),
        *(b"/index.php/webhooks/pay", b"/webhooks/index.php/buy", b"/webhooks/..%20/buy", b"/webhooks/%u002e./buy"),
        *(b"/healthz.json", b"/healthz;a", b"/healthz%20", b"/healthz./..", b"/healthz/../buy"),
    ],
)
def test_no_other_spelling_matches_a_bypass(path):
    """Neither one that the shop may read as another path, nor another spelling of the bypass itself."""
    assert route(HOOKED, path) == Route("shop", True, False, ())


def test_an_uncovered_path_needs_no_bypass():
    router = Router([room(paths=("/sale",), bypass=(BypassRule(paths=("/webhooks/",)),))])
    assert route(router, b"/webhooks/a") == Route("shop", False, False, ())


# What it costs.


def test_routes_are_cached_within_a_bound():
    router = Router([room()])
    assert route(router, b"/a") is route(router, b"/a")
    for number in range(CACHE_SIZE + 10):
        route(router, b"/%d" % number)
        assert len(router._cache) <= CACHE_SIZE
    router._cache.clear()
    route(router, b"/" + b"a" * MAX_CACHED_BYTES)
    route(router, b"/", b"a" * MAX_CACHED_BYTES)
    assert not router._cache, "thousands of the longest ones would fill the memory"


def test_a_plain_path_has_one_interpretation():
    assert path_interpretations(b"/A/b%20c/") == {b"/a/b c"}
    assert path_interpretations(b"/assets/app.js") == {b"/assets/app.js"}


def test_a_long_path_has_few_interpretations():
    """And those that would take long are not read at all: anybody can send them."""
    odd = (b"/x.php/%2e./a.;%75", b"/.a.%20;/b.php", b"/%u0061;.%2520/c.php/..;%2f")
    for path in (b"/..;/a;b/." * 3000, b"/%25" * 8000, b"/%" + b"25" * 16000, *(one * 1000 for one in odd)):
        assert len(path_interpretations(path)) <= 64
        assert route(SALE, path).refused == "long path with escapes or dots"
    assert route(SALE, b"/sale" + b"/a" * 16000) == Route("shop", True, False, ())
