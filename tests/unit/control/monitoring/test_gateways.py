"""What a gateway compares with its store and with the others over it."""

from __future__ import annotations

import pytest

from waitroom.control.monitoring.gateways import (
    ClockReading,
    GatewayInfo,
    clock_differs,
    clock_text,
    fingerprint,
    gateway_hints,
    with_other_secrets,
)

OLD, NEW, OTHER = "the old secret of them", "the new secret of them", "somebody else's secret"


def gateway(host: str, *secrets: str) -> GatewayInfo:
    return GatewayInfo.of(host, secrets)


def test_fingerprints_compare_secrets_without_revealing_them() -> None:
    assert fingerprint(OLD) == fingerprint(OLD)
    assert len({fingerprint(secret) for secret in (OLD, NEW, OTHER)}) == 3
    stored = gateway("a", OLD, NEW).json()
    assert OLD not in stored
    assert NEW not in stored


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([], ()),
        ([("b", OLD)], ()),
        ([("b", NEW, OLD)], ()),  # has the new one already
        ([("b", OLD, "an even older secret")], ()),
        ([("b", OTHER)], ("b",)),
        ([("b", NEW)], ("b",)),
        ([("b", OTHER, "another one"), ("a", OTHER), ("b", OTHER)], ("a", "b")),
    ],
)
def test_only_gateways_without_a_common_secret_are_strangers(
    others: list[tuple[str, ...]], found: tuple[str, ...]
) -> None:
    own = gateway("own", OLD)
    assert with_other_secrets(own, [gateway(*one) for one in others]) == found


def test_a_rotation_warns_on_neither_side() -> None:
    rotated, behind = gateway("a", NEW, OLD), gateway("b", OLD)
    assert with_other_secrets(rotated, [behind]) == with_other_secrets(behind, [rotated]) == ()


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"[]", b"null", b'{"host": "a"}', b'{"host": "a", "secrets": []}', b'{"secrets": 5}', b"\xff"]
)
def test_what_no_gateway_wrote_is_ignored(stored: bytes) -> None:
    assert GatewayInfo.parse(stored) is None


def test_the_name_of_a_machine_is_bounded_and_printable() -> None:
    found = GatewayInfo.parse(b'{"host": "a\\u001b[31m' + b"b" * 1000 + b'", "secrets": ["1"]}')
    assert found is not None
    assert found.host.startswith("a[31mb")
    assert len(found.host) == 64


def test_half_of_the_round_trip_is_taken_off() -> None:
    assert ClockReading.of(1000.0, 1009.9, 0.2) == ClockReading(pytest.approx(10.0), 0.1)
    assert ClockReading.of(1000.0, 989.9, 0.2).ahead == pytest.approx(-10.0)


@pytest.mark.parametrize(
    ("ahead", "error", "differed", "warns"),
    [
        (0.0, 0.0, False, False),
        (2.0, 0.0, False, False),
        (2.1, 0.0, False, True),
        (-2.1, 0.0, False, True),
        (2.1, 0.2, False, False),  # may be the network
        (1.5, 0.0, True, True),  # hysteresis
        (0.9, 0.0, True, False),
    ],
)
def test_when_a_clock_differs(ahead: float, error: float, differed: bool, warns: bool) -> None:
    assert clock_differs(ClockReading(ahead, error), differed) is warns


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (25_200.0, "7 h ahead of the store's clock"),
        (-300.0, "5 min behind the store's clock"),
        (2.34, "2.3 s ahead of the store's clock"),
    ],
)
def test_a_difference_in_words(ahead: float, text: str) -> None:
    assert clock_text(ClockReading(ahead, 0.0)) == text


def test_hints_say_what_to_do() -> None:
    assert gateway_hints(None, False, ()) == []
    assert gateway_hints(ClockReading(1.0, 0.0), False, ()) == []
    secrets, clock = gateway_hints(ClockReading(25_200.0, 0.0), True, [f"gw{number}" for number in range(9)])
    assert "(gw0, gw1, gw2, \N{HORIZONTAL ELLIPSIS})" in secrets
    assert secrets.endswith("Give all gateways the same secrets.")
    assert "7 h ahead of the store's clock" in clock
    assert clock.endswith("Synchronize it with NTP.")
    assert all(len(hint) < 250 for hint in (secrets, clock))
