"""The decisions of the gate."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from waitroom.gate import Action, Kind, classify, decide, has_capacity, is_void, needs_lookup
from waitroom.queue.positions import RankIndex, Throughput
from waitroom.queue.view import RoomState, RoomView
from waitroom.tokens import TICKET_SECONDS, Pass, Ticket

NOW = 1_800_000_000.0
QUIET = RoomView(
    generation=1,
    clock_ms=0,
    state=RoomState.OPEN,
    own_state=RoomState.OPEN,
    method="fifo",
    high_water_mark=100,
    waiting=0,
    called=0,
    away=0,
    active=5,
    rate_per_minute=60.0,
    max_active=10,
    session_ms=900_000,
    claim_ms=180_000,
    message="",
    remaining=None,
    version=0,
    draining=False,
    autopilot=None,
    last_change="",
    operator_change="",
    invited=frozenset(),
    totals={},
    rank_index=RankIndex("", (), ()),
    throughput=Throughput(),
)
BUSY = replace(QUIET, waiting=50, active=10)

FRESH = Pass(1, int(NOW) + 900, int(NOW) + 3600)
RUN_OUT = Pass(1, int(NOW), int(NOW) + 1)
ENDED = Pass(1, int(NOW), int(NOW))
WAITING = Ticket(101, 1, int(NOW) - 60, 5, 0)
CALLED = Ticket(100, 1, int(NOW) - 60, 5, 0)
OTHER_GENERATION = Ticket(101, 2, int(NOW) - 60, 5, 0)
TOO_OLD = Ticket(101, 2, int(NOW) - TICKET_SECONDS, 5, 0)
OLD_BUT_KNOWN = Ticket(101, 1, int(NOW) - TICKET_SECONDS, 5, 0)


def action(
    kind: Kind = Kind.NAVIGATION,
    pass_: Pass | None = None,
    ticket: Ticket | None = None,
    view: RoomView | None = BUSY,
    *,
    store_up: bool = True,
    on_store_error: str = "hold",
    without_pass: str = "safe",
    method: bytes = b"GET",
) -> Action:
    return decide(
        kind,
        method in (b"GET", b"HEAD"),
        pass_,
        ticket,
        view,
        store_up=store_up,
        on_store_error=on_store_error,
        without_pass=without_pass,
        now=NOW,
    )


KINDS = [Kind.NAVIGATION, Kind.OTHER, Kind.EMBEDDED, Kind.PREFETCH]
UNREACHABLE = [(BUSY, False), (QUIET, False), (None, False), (None, True)]
ON_STORE_ERROR = ["hold", "admit", "close"]


@pytest.mark.parametrize(("kind", "view", "ticket"), list(product(KINDS, [QUIET, BUSY, None], [None, WAITING, CALLED])))
@pytest.mark.parametrize(("store_up", "on_store_error"), list(product([True, False], ON_STORE_ERROR)))
def test_a_pass_is_sufficient(kind, view, ticket, store_up, on_store_error):
    got = action(kind, FRESH, ticket, view, store_up=store_up, on_store_error=on_store_error)
    assert got is Action.FORWARD


@pytest.mark.parametrize(("kind", "ticket"), list(product(KINDS, [None, WAITING, CALLED])))
def test_an_expired_pass_is_resumed(kind, ticket):
    assert action(kind, RUN_OUT, ticket) is Action.RESUME
    assert action(kind, RUN_OUT, ticket, QUIET) is Action.RESUME


@pytest.mark.parametrize(("kind", "unreachable"), list(product(KINDS, UNREACHABLE)))
def test_an_expired_pass_is_valid_while_the_store_is_unavailable(kind, unreachable):
    view, store_up = unreachable
    for on_store_error in ON_STORE_ERROR:
        got = action(kind, RUN_OUT, None, view, store_up=store_up, on_store_error=on_store_error)
        assert got is Action.FORWARD


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_decides_whether_a_session_has_reached_its_end(kind):
    assert action(kind, ENDED) is Action.RESUME
    assert action(kind, ENDED, WAITING) is Action.RESUME


def test_a_pass_at_its_hard_end_counts_as_none_while_the_store_is_unavailable():
    assert action(pass_=ENDED, store_up=False) is Action.HOLD
    assert action(Kind.OTHER, ENDED, store_up=False) is Action.REFUSE
    assert action(pass_=ENDED, ticket=WAITING, store_up=False) is Action.WAIT


def test_a_ticket_of_the_current_generation_is_never_too_old():
    assert action(ticket=OLD_BUT_KNOWN) is Action.WAIT
    assert action(Kind.OTHER, ticket=OLD_BUT_KNOWN, store_up=False) is Action.WAIT
    assert is_void(TOO_OLD, BUSY, NOW)
    assert is_void(OLD_BUT_KNOWN, None, NOW)


@pytest.mark.parametrize(
    ("kind", "ticket", "view", "expected"),
    [
        (Kind.NAVIGATION, WAITING, BUSY, Action.WAIT),
        (Kind.NAVIGATION, WAITING, QUIET, Action.WAIT),
        (Kind.NAVIGATION, CALLED, BUSY, Action.CLAIM),
        (Kind.NAVIGATION, CALLED, QUIET, Action.CLAIM),
        (Kind.NAVIGATION, OTHER_GENERATION, BUSY, Action.CLAIM),
        (Kind.NAVIGATION, TOO_OLD, BUSY, Action.JOIN),
        (Kind.NAVIGATION, None, BUSY, Action.JOIN),
        (Kind.NAVIGATION, None, QUIET, Action.JOIN),
        (Kind.OTHER, WAITING, BUSY, Action.WAIT),
        (Kind.OTHER, CALLED, BUSY, Action.WAIT),
        (Kind.OTHER, OTHER_GENERATION, BUSY, Action.WAIT),
        (Kind.OTHER, TOO_OLD, BUSY, Action.REFUSE),
        (Kind.OTHER, TOO_OLD, QUIET, Action.WITHOUT_PASS),
        (Kind.OTHER, None, BUSY, Action.REFUSE),
        (Kind.OTHER, None, QUIET, Action.WITHOUT_PASS),
        (Kind.EMBEDDED, WAITING, BUSY, Action.WAIT),
        (Kind.EMBEDDED, CALLED, BUSY, Action.WAIT),
        (Kind.EMBEDDED, None, BUSY, Action.REFUSE),
        (Kind.EMBEDDED, None, QUIET, Action.WITHOUT_PASS),
        (Kind.PREFETCH, WAITING, BUSY, Action.DEFER),
        (Kind.PREFETCH, CALLED, BUSY, Action.DEFER),
        (Kind.PREFETCH, None, BUSY, Action.DEFER),
        (Kind.PREFETCH, None, QUIET, Action.DEFER),
    ],
)
def test_without_a_pass_while_the_store_is_up(kind, ticket, view, expected):
    for on_store_error in ON_STORE_ERROR:
        assert action(kind, None, ticket, view, on_store_error=on_store_error) is expected


@pytest.mark.parametrize("unreachable", UNREACHABLE)
@pytest.mark.parametrize(
    ("kind", "on_store_error", "expected"),
    [
        (Kind.NAVIGATION, "hold", Action.HOLD),
        (Kind.NAVIGATION, "admit", Action.ADMIT),
        (Kind.NAVIGATION, "close", Action.REJECT),
        (Kind.OTHER, "hold", Action.REFUSE),
        (Kind.OTHER, "admit", Action.WITHOUT_PASS),
        (Kind.PREFETCH, "admit", Action.DEFER),
        (Kind.OTHER, "close", Action.REFUSE),
    ],
)
def test_newcomers_while_the_store_is_unavailable(unreachable, kind, on_store_error, expected):
    view, store_up = unreachable
    for ticket in (None, TOO_OLD):
        assert action(kind, None, ticket, view, store_up=store_up, on_store_error=on_store_error) is expected


@pytest.mark.parametrize("on_store_error", ON_STORE_ERROR)
def test_waiting_visitors_keep_waiting_while_the_store_is_unavailable(on_store_error):
    for view, store_up in UNREACHABLE:
        known = view is not None
        for ticket, there in ((WAITING, known), (CALLED, False), (OTHER_GENERATION, False)):
            got = action(Kind.NAVIGATION, None, ticket, view, store_up=store_up, on_store_error=on_store_error)
            assert got is (Action.WAIT if there else Action.HOLD)
            got = action(Kind.OTHER, None, ticket, view, store_up=store_up, on_store_error=on_store_error)
            assert got is Action.WAIT


@pytest.mark.parametrize(("view", "store_up"), [(QUIET, True), (BUSY, True), (None, False)])
def test_preflights(view, store_up):
    for pass_, ticket in product([None, FRESH, RUN_OUT], [None, WAITING, CALLED]):
        assert action(Kind.PREFLIGHT, pass_, ticket, view, store_up=store_up) is Action.PREFLIGHT


PASSTHROUGH = replace(BUSY, method="passthrough")
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND")


@pytest.mark.parametrize("state", [RoomState.PAUSED, RoomState.CLOSED, RoomState.SOLD_OUT])
def test_a_passthrough_room_refuses_requests_without_a_pass_unless_it_is_open(state):
    view = replace(PASSTHROUGH, state=state)
    assert action(Kind.OTHER, view=view, method=b"GET", without_pass="all") is Action.REFUSE
    assert action(Kind.OTHER, view=PASSTHROUGH, method=b"GET", without_pass="all") is Action.PASS_THROUGH


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Kind.OTHER, Kind.EMBEDDED])
def test_requests_without_a_pass_while_nobody_waits(method, kind):
    safe = method in (b"GET", b"HEAD")
    for without_pass, allowed in (("refuse", False), ("safe", safe), ("all", True)):
        got = action(kind, view=QUIET, method=method, without_pass=without_pass)
        assert got is (Action.WITHOUT_PASS if allowed else Action.REFUSE)
        assert action(kind, view=BUSY, method=method, without_pass=without_pass) is Action.REFUSE
        closed = replace(QUIET, state=RoomState.CLOSED)
        assert action(kind, view=closed, method=method, without_pass=without_pass) is Action.REFUSE


@pytest.mark.parametrize("method", METHODS)
def test_an_open_passthrough_room_refuses_nothing(method):
    for without_pass, store_up in product(("refuse", "safe", "all"), (True, False)):
        got = action(Kind.OTHER, view=PASSTHROUGH, method=method, without_pass=without_pass, store_up=store_up)
        assert got is Action.PASS_THROUGH


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"waiting": 1}, False),
        ({"active": 10}, False),
        ({"active": 12}, False),
        ({"called": 5}, False),
        ({"called": 4}, True),
        ({"away": 9}, True),
        ({"state": RoomState.PAUSED}, False),
        ({"state": RoomState.CLOSED}, False),
        ({"state": RoomState.SOLD_OUT}, False),
        ({"method": "passthrough"}, True),
        ({"method": "passthrough", "active": 99, "waiting": 9}, True),
        ({"method": "passthrough", "state": RoomState.CLOSED}, False),
        ({"method": "passthrough", "state": RoomState.SOLD_OUT}, False),
        ({"method": "passthrough", "state": RoomState.PAUSED}, False),
    ],
)
def test_when_a_room_has_capacity(changes, expected):
    assert has_capacity(replace(QUIET, **changes)) is expected


@pytest.mark.parametrize(
    ("ticket", "view", "expected"),
    [
        (WAITING, BUSY, False),
        (WAITING, replace(BUSY, invited=frozenset([WAITING.place])), True),
        (WAITING, replace(BUSY, invited=frozenset([WAITING.place + 1])), False),
        (CALLED, BUSY, True),
        (OTHER_GENERATION, BUSY, True),
        (WAITING, None, True),
        (WAITING, replace(BUSY, high_water_mark=101), True),
        (WAITING, replace(BUSY, generation=3), True),
    ],
)
def test_when_a_ticket_needs_a_lookup(ticket, view, expected):
    assert needs_lookup(ticket, view) is expected


# What sort of request it is.

HTML = {b"accept": b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def fetch(mode: bytes, dest: bytes | None = None, **more: bytes) -> dict[bytes, bytes]:
    fields = {b"sec-fetch-mode": mode, **{name.replace("_", "-").encode(): value for name, value in more.items()}}
    return fields if dest is None else {**fields, b"sec-fetch-dest": dest}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # By the fetch metadata, which all browsers send over HTTPS and to localhost.
        (fetch(b"navigate", b"document"), Kind.NAVIGATION),
        (fetch(b"navigate", b"document", accept=b"*/*"), Kind.NAVIGATION),
        (fetch(b"navigate", b"iframe"), Kind.NAVIGATION),
        (fetch(b"navigate", b"iframe", sec_fetch_site=b"same-origin"), Kind.NAVIGATION),
        (fetch(b"navigate", b"document", sec_fetch_site=b"cross-site"), Kind.NAVIGATION),
        (fetch(b"navigate"), Kind.NAVIGATION),
        # A frame of another site shows no waiting page, and its cookies may not be kept.
        *[
            (fetch(b"navigate", dest, sec_fetch_site=site), Kind.EMBEDDED)
            for dest in (b"iframe", b"frame", b"embed", b"object", b"fencedframe")
            for site in (b"cross-site", b"same-site", b"none")
        ],
        # A service worker passes a navigation on with an empty destination.
        (fetch(b"navigate", b"empty", accept=b"*/*"), Kind.NAVIGATION),
        (fetch(b"navigate", b""), Kind.NAVIGATION),
        (fetch(b"cors", b"empty", accept=b"text/html"), Kind.OTHER),
        (fetch(b"same-origin", b"empty", accept=b"text/html"), Kind.OTHER),
        (fetch(b"no-cors", b"image", accept=b"image/avif,*/*"), Kind.OTHER),
        (fetch(b"no-cors", b"script"), Kind.OTHER),
        (fetch(b"no-cors", b"document", accept=b"text/html"), Kind.OTHER),
        (fetch(b"websocket", b"websocket"), Kind.OTHER),
        (fetch(b"same-origin", b"serviceworker", accept=b"*/*"), Kind.OTHER),
        (fetch(b"navigate, navigate", b"document"), Kind.OTHER),
        # Without any, by what it accepts.
        (HTML, Kind.NAVIGATION),
        ({b"accept": b"Text/HTML"}, Kind.NAVIGATION),
        ({b"accept": b"application/xhtml+xml"}, Kind.NAVIGATION),
        ({b"accept": b"*/*"}, Kind.OTHER),
        ({b"accept": b"application/json"}, Kind.OTHER),
        ({b"accept": b"image/webp,*/*"}, Kind.OTHER),
        ({b"accept": b""}, Kind.OTHER),
        ({}, Kind.OTHER),
        # Nobody has asked for the page yet.
        (fetch(b"navigate", b"document", sec_purpose=b"prefetch"), Kind.PREFETCH),
        (fetch(b"navigate", b"document", sec_purpose=b"prefetch;prerender"), Kind.PREFETCH),
        (fetch(b"navigate", b"document", sec_purpose=b"Prerender;Prefetch;anonymous-client-ip"), Kind.PREFETCH),
        (fetch(b"no-cors", b"empty", purpose=b"prefetch"), Kind.PREFETCH),
        ({**HTML, b"purpose": b"prefetch"}, Kind.PREFETCH),
        ({**HTML, b"purpose": b"Prefetch"}, Kind.PREFETCH),
        ({**HTML, b"x-moz": b"prefetch"}, Kind.PREFETCH),
        ({**HTML, b"x-purpose": b"preview"}, Kind.PREFETCH),
        ({**HTML, b"x-purpose": b"preload, other"}, Kind.PREFETCH),
        ({**HTML, b"purpose": b"visit"}, Kind.NAVIGATION),
    ],
)
def test_navigations_and_other_requests(fields, expected):
    assert classify(b"GET", fields) is expected
    assert classify(b"POST", fields) is expected
    for method in (b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"FETCH"):
        assert classify(method, fields) is Kind.OTHER


def test_classification_of_preflights():
    asked = {b"origin": b"https://a.example", b"access-control-request-method": b"POST"}
    assert classify(b"OPTIONS", asked) is Kind.PREFLIGHT
    assert classify(b"OPTIONS", fetch(b"cors", b"empty") | asked) is Kind.PREFLIGHT
    for missing in asked:
        assert classify(b"OPTIONS", {name: value for name, value in asked.items() if name != missing}) is Kind.OTHER
    for method in (b"GET", b"POST", b"PUT"):
        assert classify(method, asked) is Kind.OTHER
    assert classify(b"OPTIONS", asked | {b"content-length": b"0"}) is Kind.PREFLIGHT
    for body in ({b"content-length": b"1"}, {b"transfer-encoding": b"chunked"}):
        assert classify(b"OPTIONS", asked | body) is Kind.OTHER  # no browser sends one with a body
