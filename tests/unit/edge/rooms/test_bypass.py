"""Bypass rules: conditions, budgets, dry runs, and presets that let no order through."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.edge_world import OK, PAGE, World, answer, get
from waitroom.edge.http.message import Request, parse_request
from waitroom.edge.rooms.bypass import Bypass, Refusal
from waitroom.edge.rooms.router import Router
from waitroom.settings import BypassRule, RoomSettings
from waitroom.settings.path_patterns import LONGEST_PATH, InvalidPatternError, PathPattern
from waitroom.settings.presets import PRESETS

JSON = b"Accept: application/json"
DOCS = Path(__file__).parents[4] / "docs"


def rule(**settings: Any) -> BypassRule:
    return BypassRule(**{"max_per_second_per_address": 50.0, "paths": ("/hook",), **settings})


def request(target: bytes, *lines: bytes, method: bytes = b"POST", body: bytes | None = None) -> Request:
    head = get(target, *lines, method=method, body=body).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    return parse_request(head)[0]


def let_by(made: BypassRule, target: bytes, *lines: bytes, method: bytes = b"POST", body: bytes | None = None) -> bool:
    """Whether a rule lets a request by, as far as its head tells."""
    asked = request(target, *lines, method=method, body=body)
    room = RoomSettings(name="shop", upstream="http://127.0.0.1:3000", bypass=(made,))
    route = Router([room]).route(b"shop.example", asked.path)
    assert route is not None
    return any(Bypass(made, 1).matches_head(asked, entries) for _, entries in route.bypass)


def outcomes(world: World) -> dict[str, int]:
    return dict(world.room.metrics.requests)


def ask(world: World, request: bytes, *, address: str = "203.0.113.9") -> int:
    """The status a request is answered with; the shop answers 200 to what reaches it."""
    attempts = len(world.shop.got)
    wire = world.client(address)
    wire.send(request)
    if len(world.shop.got) > attempts:
        world.shop.wire.send(OK)
    status = answer(wire, request.partition(b" ")[0]).status
    wire.reset()
    return status


# What a rule asks of a path.


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        (b"/payment/notify", True),
        (b"/payment/notify?a=1", True),
        (b"/payment/notify/", False),
        (b"/payment/notify/x", False),
        (b"/payment/notify.json", False),
        (b"/payment/notify;x", False),
        (b"/payment//notify", False),
        (b"/Payment/notify", False),
        (b"/payment/notif%79", False),
    ],
)
def test_an_exact_path(path, fits):
    assert let_by(BypassRule(exact_paths=("/payment/notify",)), path) is fits


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        (b"/orders/12/paid", True),
        (b"/Orders/12/paid", False),
        (b"/orders/12/paid/", False),
        (b"/orders/12/paid/x", False),
        (b"/x/orders/12/paid", False),
        (b"/orders/1%32/paid", False),
        (b"/orders//12/paid", False),
        (b"/orders/../orders/12/paid", False),
    ],
)
def test_a_regular_expression_matches_the_whole_path(path, fits):
    assert let_by(BypassRule(path_regex="/orders/[0-9]+/paid"), path) is fits


@pytest.mark.parametrize(
    "path",
    [
        b"/hook/../buy",
        b"/hook/%2e%2e/buy",
        b"/hook/..%2fbuy",
        b"/hook/..;/buy",
        b"/hook/..\\buy",
        b"/hook/%252e%252e/buy",
    ],
)
def test_a_regular_expression_must_match_every_interpretation(path):
    assert not let_by(BypassRule(path_regex="/hook/.*"), path)
    assert let_by(BypassRule(path_regex="/hook/.*"), b"/hook/Pay")


def test_a_regular_expression_may_require_a_trailing_slash():
    assert let_by(BypassRule(path_regex="/hook/"), b"/hook/")
    assert not let_by(BypassRule(path_regex="/hook/"), b"/hook")
    assert let_by(BypassRule(path_regex="/"), b"/")


def test_expressions_that_backtrack_elsewhere_are_matched_in_linear_time():
    """Where one backtracks, this would take longer than the universe has."""
    pattern = PathPattern("/(a*)*(a|aa)+b")
    assert not pattern.matches(b"/" + b"a" * (LONGEST_PATH - 1), ())
    assert not PathPattern("/a*").matches(b"/" + b"a" * LONGEST_PATH, ()), "it is too long"
    for bad in ("/(a", "/(?=a)", r"/(a)\1", "/(((a{1,100}){1,100}){1,100})", "/" + "a" * 500):
        with pytest.raises(InvalidPatternError):
            PathPattern(bad)


def test_all_conditions_must_match():
    made = BypassRule(paths=("/hook/", "/ping"), path_regex="/[a-z]+/[0-9]+", methods=("POST", "PUT"))
    assert let_by(made, b"/hook/1")
    assert let_by(made, b"/ping/1", method=b"PUT")
    assert not let_by(made, b"/hook/x")
    assert not let_by(made, b"/other/1")
    assert not let_by(made, b"/hook/1", method=b"GET")


# What else it asks.


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        (b"X-Monitoring: Secret", True),
        (b"x-monitoring: Secret", True),
        (b"X-Monitoring: secret", False),
        (b"X-Monitoring: Secret2", False),
        (b"X-Monitoring: Secre", False),
        (b"X_Monitoring: Secret", False),
        (b"X-Monitoring:", False),
        (b"X-Present:", True),
        (b"Cookie: X-Monitoring=Secret", False),
        (b"", False),
    ],
)
def test_headers(line, fits):
    assert let_by(rule(headers=("x-monitoring:Secret", "x-present")), b"/hook", line) is fits


def test_one_of_several_headers_with_the_same_name_is_enough():
    made = rule(headers=("x-key:b",))
    assert let_by(made, b"/hook", b"X-Key: a", b"X-Key: b")
    assert not let_by(made, b"/hook", b"X-Key: a, b")


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (b"?token=a%20b", True),
        (b"?token=a+b", True),
        (b"?x=1&t%6fken=a%20b&y", True),
        (b"?token=a", False),
        (b"?token", False),
        (b"?xtoken=a%20b", False),
        (b"?x=token=a+b", False),
        (b"?ping", True),
        (b"?ping=anything", True),
        (b"", False),
    ],
)
def test_the_query(query, fits):
    assert let_by(rule(query=("token=a b", "ping")), b"/hook" + query) is fits


@pytest.mark.parametrize(
    ("cookies", "fits"),
    [
        ([b"staff=s3cret"], True),
        ([b'a=1; staff="s3cret"; b=2'], True),
        ([b"a=1", b"staff=s3cret"], True),
        ([b"staff=x; staff=s3cret"], True),
        ([b"crew"], True),
        ([b"staff=s3cre"], False),
        ([b"xstaff=s3cret"], False),
        ([b"a=staff=s3cret"], False),
        ([], False),
    ],
)
def test_cookies(cookies, fits):
    assert Bypass(rule(cookies=("staff=s3cret", "crew")), 1).matches_visitor("192.0.2.1", cookies) is fits


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("198.51.100.200", True),
        ("::ffff:198.51.100.200", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
    ],
)
def test_addresses(address, fits):
    made = rule(addresses=("192.0.2.7", "198.51.100.0/24", "2001:db8::/32"))
    assert Bypass(made, 1).matches_visitor(address, ()) is fits


def test_the_address_is_the_one_forwarded_by_trusted_proxies():
    made = rule(addresses=("192.0.2.7",))
    with World(bypass=(made,), trusted=("10.0.0.1",)) as world:
        line = b"X-Forwarded-For: 192.0.2.7"
        assert ask(world, get(b"/hook", JSON, line), address="10.0.0.1") == 200
        assert ask(world, get(b"/hook", JSON, line), address="203.0.113.9") == 503
        assert ask(world, get(b"/hook", JSON, b"X-Forwarded-For: 192.0.2.7, 203.0.113.1"), address="10.0.0.1") == 503
        assert ask(world, get(b"/hook", JSON), address="192.0.2.7") == 200
        assert outcomes(world)["bypass"] == 2


def test_equal_heads_are_distinguished_by_cookies_and_address():
    """They share what was found out about their head."""
    made = rule(cookies=("staff=s3cret",), addresses=("203.0.113.9",))
    with World(bypass=(made,)) as world:
        for _ in range(3):
            assert ask(world, get(b"/hook", JSON, b"Cookie: staff=s3cret")) == 200
            assert ask(world, get(b"/hook", JSON, b"Cookie: staff=other1")) == 503
            assert ask(world, get(b"/hook", JSON, b"Cookie: staff=s3cret"), address="203.0.113.8") == 503


def test_secrets_are_not_logged():
    made = rule(headers=("x-key:hunter2",), cookies=("staff=hunter2",), query=("token=hunter2",))
    assert "hunter2" not in repr(made)
    assert "hunter2" not in repr(RoomSettings(name="a", upstream="http://127.0.0.1:1", bypass=(made,)))
    with World(bypass=(made,)) as world:
        for target in (b"/hook?token=hunter2", b"/hook?token=hunter3"):
            got = world.ask(get(target, PAGE, b"X-Key: hunter3", b"Cookie: staff=hunter3"))
            assert b"hunter" not in got.body
        assert "hunter" not in repr(world.logs)


# How many.


def test_junk_from_one_address_does_not_block_others():
    made = BypassRule(paths=("/webhooks/",), methods=("POST",))
    with World(bypass=(made,)) as world:
        hook = get(b"/webhooks/x", JSON, method=b"POST", body=b"{}")
        junk: list[int] = []
        for tick in range(80):  # two seconds
            junk += [ask(world, hook, address="203.0.113.66") for _ in range(11)]
            if tick % 4 == 0:
                assert ask(world, hook, address=f"192.0.2.{tick + 1}") == 200
            world.pass_time(0.025)
        assert len(junk) == 880
        assert junk.count(200) <= 12.5 + 2 * 12.5 + 1
        assert set(junk) == {200, 429}
        assert outcomes(world) == {"bypass": junk.count(200) + 20, "bypass_capped": junk.count(429)}


def test_many_addresses_together_stay_within_the_rules_budget():
    made = BypassRule(paths=("/hook",), max_per_second=8.0)
    with World(bypass=(made,)) as world:
        statuses = [ask(world, get(b"/hook", JSON), address=f"192.0.2.{number}") for number in range(20)]
        assert statuses == [200] * 8 + [503] * 12


def test_an_ipv6_network_is_one_neighbourhood():
    limited = Bypass(BypassRule(paths=("/hook",), max_per_second_per_address=1.0), 1)
    refusals = [limited.take(address, 0.0) for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")]
    assert refusals == [None, Refusal(429, 1.0), None]


@pytest.mark.parametrize(
    ("settings", "workers", "each"),
    [
        ({}, 1, 12),
        ({"max_per_second": 2.0}, 1, 1),
        ({"max_per_second": 40.0}, 4, 2),
        ({"max_per_second_per_address": 3.0}, 1, 3),
    ],
)
def test_an_address_gets_a_quarter_of_the_budget_by_default(settings, workers, each):
    limited = Bypass(BypassRule(paths=("/hook",), **settings), workers)
    assert [limited.take("192.0.2.1", 0.0) for _ in range(30)].count(None) == each


@pytest.mark.parametrize(
    ("settings", "status", "wait"),
    [
        ({"max_per_second_per_address": 0.25}, 429, b"4"),
        ({"max_per_second": 0.1}, 503, b"10"),
        ({"max_per_second_per_address": 5.0, "max_per_second": 1.0}, 503, b"1"),
    ],
)
def test_excess_requests_get_retry_after(settings, status, wait):
    with World(bypass=(rule(**settings),)) as world:
        ask(world, get(b"/hook", JSON))
        got = world.ask(get(b"/hook", JSON))
        assert (got.status, got[b"Retry-After"]) == (status, wait)


def test_a_bypassed_request_has_no_session_even_with_a_pass():
    """Decides which requests may use the connections reserved for admitted visitors."""
    with World(bypass=(rule(),)) as world:
        wire = world.client()
        wire.send(get(b"/hook", JSON, world.inside()))
        assert b"Waitroom-Session" not in world.shop.got
        world.shop.wire.send(OK)
        assert answer(wire).status == 200


# Drafts.


def test_a_dry_run_only_counts():
    with World(bypass=(rule(dry_run=True, max_per_second=1.0),)) as world:
        for _ in range(3):
            assert ask(world, get(b"/hook", JSON)) == 503
        assert ask(world, get(b"/other", JSON)) == 503
        assert world.shop.attempts == 0
        counted = outcomes(world)
        assert (counted["bypass_draft"], counted["bypass_draft_capped"]) == (1, 2)
        assert "bypass" not in counted


def test_a_dry_run_does_not_hide_later_rules():
    with World(bypass=(rule(dry_run=True), rule())) as world:
        assert ask(world, get(b"/hook", JSON)) == 200
        assert outcomes(world) == {"bypass_draft": 1, "bypass": 1}


def test_an_admitted_visitor_is_forwarded_despite_a_dry_run():
    with World(bypass=(rule(dry_run=True),)) as world:
        assert ask(world, get(b"/hook", JSON, world.inside())) == 200
        assert outcomes(world) == {"bypass_draft": 1, "admitted": 1}


# Paths that are refused.


def test_a_refused_path_is_not_forwarded_and_its_log_is_rate_limited():
    rooms = (
        RoomSettings(name="sale", upstream="http://shop.internal:3000"),
        RoomSettings(name="information", upstream="http://shop.internal:3000", paths=("/information",)),
    )
    with World(*rooms) as world:
        for _ in range(20):
            assert world.ask(get(b"/information/..%2fsale/buy", PAGE)).status == 400
        lines = [line for line in world.logs if line["event"] == "path refused"]
        assert 1 <= len(lines) <= 5
        assert lines[0]["rooms"] == ("information", "sale")
        assert lines[0]["path"] == "/information/..%2fsale/buy"
        got = world.ask(get(b"/a%00", PAGE))
        assert (got.status, got[b"Connection"]) == (400, b"close")
        assert world.shop.attempts == 0
        assert world.store.calls == []


def test_a_forward_auth_request_for_a_refused_path_is_refused():
    rooms = (
        RoomSettings(name="sale", upstream="http://shop.internal:3000"),
        RoomSettings(name="information", upstream="http://shop.internal:3000", paths=("/information",)),
    )
    with World(*rooms, trusted=("203.0.113.9",)) as world:
        for uri, status in ((b"/information/../sale", 403), (b"/a%00", 403), (b"/information", 401), (b"/sale", 401)):
            assert world.ask(get(b"/.waitroom/check", b"X-Forwarded-Uri: " + uri)).status == status


# Presets.


def preset(name: str) -> BypassRule:
    return BypassRule(preset=name, max_per_second_per_address=50.0)


JSON_BODY = b"Content-Type: application/json; charset=utf-8"
FORM_BODY = b"Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("name", "method", "target", "lines", "body"),
    [
        ("stripe", b"POST", b"/?wc-api=wc_stripe", [JSON_BODY], b"{}"),
        ("stripe", b"POST", b"/fr/module/stripe_official/webhook", [JSON_BODY], b"{}"),
        ("stripe", b"POST", b"/index.php?fc=module&module=stripe_official&controller=webhook", [JSON_BODY], b"{}"),
        ("adyen", b"POST", b"/adyen/webhook", [JSON_BODY], b"{}"),
        ("adyen", b"POST", b"/adyen/return?merchantReference=1", [FORM_BODY], b"MD=1&PaRes=2"),
        ("adyen", b"GET", b"/adyen/return?redirectResult=x", [], None),
        ("adyen", b"POST", b"/store-api/adyen/notification/0123456789abcdef0123456789abcdef", [JSON_BODY], b"{}"),
        ("paypal", b"POST", b"/wp-json/paypal/v1/incoming", [JSON_BODY], b"{}"),
        ("paypal", b"POST", b"/paypal/ipn/", [FORM_BODY], b"txn_id=1"),
        ("paypal", b"POST", b"/api/_action/paypal/webhook/execute?sw-token=a", [JSON_BODY], b"{}"),
        (
            "mollie",
            b"POST",
            b"/wp-json/mollie/v1/webhook?mollie_webhook_secret=a",
            [FORM_BODY],
            b"id=tr_5B8cwPMGnU6qLbRvo7qEZo",
        ),
        ("mollie", b"POST", b"/module/mollie/webhook", [FORM_BODY], b"id=tr_7UhSN1zuXS"),
        ("mollie", b"GET", b"/mollie/checkout/process?order_id=1", [], None),
        ("mollie", b"POST", b"/mollie/webhook/0123456789abcdef0123456789abcdef", [FORM_BODY], b"id=tr_1"),
        ("klarna", b"POST", b"/wc-api/KP_WC_AUTHORIZATION", [JSON_BODY], b"{}"),
        ("klarna", b"POST", b"/wc-api/KCO_WC_Push/?kco-action=push&kco_wc_order_id=1&kco_session_id=2", [], b""),
        ("woocommerce", b"GET", b"/checkout/order-received/17/?key=wc_order_1", [], None),
        ("magento", b"GET", b"/checkout/onepage/success/", [], None),
        ("magento", b"POST", b"/rest/V1/order/17/ship", [JSON_BODY], b"{}"),
        ("prestashop", b"GET", b"/en/order-confirmation?id_cart=1&id_module=2&id_order=3&key=4", [], None),
        ("prestashop", b"GET", b"/index.php?controller=order-confirmation&id_cart=1&id_order=3&key=4", [], None),
        ("shopware", b"POST", b"/payment/finalize-transaction?_sw_payment_token=a", [FORM_BODY], b"a=b"),
        ("shopware", b"GET", b"/checkout/finish?orderId=1", [], None),
    ],
)
def test_a_preset_matches_its_requests(name, method, target, lines, body):
    assert let_by(preset(name), target, *lines, method=method, body=body)


ORDER = b"woocommerce_checkout_place_order=1&woocommerce-process-checkout-nonce=0123456789"


@pytest.mark.parametrize(
    ("method", "target", "lines", "body"),
    [
        # Orders of the shops' own, wherever they take them.
        (b"POST", b"/?wc-ajax=checkout", [FORM_BODY], ORDER),
        (b"POST", b"/checkout/", [FORM_BODY], ORDER),
        (b"GET", b"/?add-to-cart=17", [], None),
        (b"POST", b"/wp-json/wc/store/v1/checkout", [JSON_BODY], b"{}"),
        (b"POST", b"/rest/V1/guest-carts/a/payment-information", [JSON_BODY], b"{}"),
        (b"POST", b"/rest/default/V1/carts/mine/payment-information", [JSON_BODY], b"{}"),
        (b"PUT", b"/rest/V1/guest-carts/a/order", [JSON_BODY], b"{}"),
        (b"POST", b"/rest/V1/orders", [JSON_BODY], b"{}"),
        (b"POST", b"/graphql", [JSON_BODY], b"{}"),
        (b"POST", b"/order", [FORM_BODY], b"confirmDeliveryOption=1"),
        (b"POST", b"/module/ps_wirepayment/validation", [FORM_BODY], b""),
        (b"GET", b"/module/ps_wirepayment/validation", [], None),
        (b"POST", b"/store-api/checkout/order", [JSON_BODY], b"{}"),
        (b"POST", b"/checkout/order", [FORM_BODY], b"tos=on"),
        # Orders by way of a path that a preset lets by.
        (b"POST", b"/wc-api/wc_stripe", [FORM_BODY], ORDER),
        (b"POST", b"/wc-api/any", [FORM_BODY], ORDER),
        (b"POST", b"/wc-api/any?wc-ajax=checkout", [JSON_BODY], b"{}"),
        (b"GET", b"/wc-api/any?add-to-cart=17", [], None),
        (b"GET", b"/wc-api/any?key=1;add-to-cart=17", [], None),
        (b"GET", b"/wc-api/?wc-ajax=checkout", [], None),
        (b"POST", b"/?wc-api=wc_stripe&wc-ajax=checkout", [JSON_BODY], b"{}"),
        (b"POST", b"/?wc-api=wc_stripe&wc-api=", [JSON_BODY], b"{}"),
        (b"POST", b"/?wc-api=wc_stripe", [FORM_BODY], ORDER),
        (b"POST", b"/?wc-api=wc_stripe", [JSON_BODY, FORM_BODY], ORDER),
        (b"POST", b"/?wc-api=wc_stripe", [], ORDER),
        (b"GET", b"/?wc-api=wc_stripe", [], None),
        (b"POST", b"/wp-json/mollie/v1/webhook", [FORM_BODY], ORDER),
        (b"POST", b"/wp-json/mollie/v1/webhook", [FORM_BODY, b"Transfer-Encoding: chunked"], None),
        (b"POST", b"/wp-json/mollie/v1/webhook?rest_route=/wc/store/v1/checkout", [FORM_BODY], b"id=tr_1"),
        (b"POST", b"/checkout/order-received/17/?key=1", [FORM_BODY], ORDER),
        (b"GET", b"/checkout/order-received/17/?key=1&add-to-cart=5", [], None),
        (b"POST", b"/module/mollie/webhook", [FORM_BODY], b"fc=module&module=ps_wirepayment&controller=validation"),
        (b"POST", b"/module/stripe_official/webhook?controller=order", [JSON_BODY], b"{}"),
        (b"POST", b"/module/stripe_official/webhook", [FORM_BODY], b"controller=order"),
        (b"GET", b"/index.php?controller=order-confirmation&controller=order", [], None),
        (b"GET", b"/index.php?controller=cart&add=1&id_product=5", [], None),
        (b"GET", b"/order-confirmation?controller=cart", [], None),
        (b"POST", b"/index.php?fc=module&module=ps_wirepayment&controller=validation", [JSON_BODY], b"{}"),
    ],
)
def test_orders_do_not_match_a_preset(method, target, lines, body):
    for name in PRESETS:
        assert not let_by(preset(name), target, *lines, method=method, body=body), name


def test_a_preset_may_be_narrowed():
    narrowed = replace(preset("adyen"), methods=("POST",), headers=("authorization:Basic x",))
    assert not let_by(narrowed, b"/adyen/return", method=b"GET")
    assert not let_by(narrowed, b"/adyen/webhook", JSON_BODY, body=b"{}")
    assert let_by(narrowed, b"/adyen/webhook", JSON_BODY, b"Authorization: Basic x", body=b"{}")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_documented_with_their_sources(name):
    text = (DOCS / "bypass.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    for entry in PRESETS[name]:
        PathPattern(entry.path)
        assert entry.path.replace("|", "\\|") in section[1]
        assert entry.source in section[1]
