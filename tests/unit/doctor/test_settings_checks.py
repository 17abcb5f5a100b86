"""Settings that are legal and unwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from waitroom.doctor.settings_checks import check_settings, is_weak
from waitroom.settings import BypassRule, EventSettings, RoomSettings, Settings

STRONG = "mJ8Zr2vLq0TfXw5yKc7uNb"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
START = datetime(2026, 12, 12, 4, tzinfo=UTC)


def found(*, has_accounts: bool = False, room: dict[str, Any] | None = None, **settings: Any) -> list[str]:
    rooms = (RoomSettings(name="shop", upstream="http://127.0.0.1:3000", **(room or {})),)
    whole = Settings(rooms=rooms, **{"secrets": (STRONG,), **settings})
    return [finding.id for finding in check_settings(whole, has_accounts=has_accounts, now=NOW)]


def test_the_defaults_are_wise() -> None:
    assert found(listen="0.0.0.0:8080") == []


@pytest.mark.parametrize(
    "secret",
    ["a" * 16, "abababababababab", "abcdefghabcdefgh", "changemechangeme", "my-secret-secret", "secretpassword12"],
)
def test_secrets_that_can_be_guessed(secret: str) -> None:
    assert is_weak(secret)
    assert found(secrets=(STRONG, secret)) == ["weak-secret"]


@pytest.mark.parametrize("secret", [STRONG, "0f1e2d3c4b5a69788796a5b4", "correct horse battery staple"])
def test_secrets_that_cannot(secret: str) -> None:
    assert not is_weak(secret)


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"admin_listen": "0.0.0.0:8081"}, ["admin-without-users", "admin-without-tls"]),
        ({"admin_listen": "0.0.0.0:8081", "has_accounts": True}, ["admin-without-tls"]),
        ({"redis_url": "redis://10.0.0.5"}, ["redis-without-password", "redis-without-tls"]),
        ({"redis_url": "redis://:pw@10.0.0.5"}, ["redis-without-tls"]),
        ({"redis_url": "rediss://:pw@10.0.0.5"}, []),
        ({"redis_url": "rediss://:pw@10.0.0.5?ssl_cert_reqs=none"}, ["redis-tls-unverified"]),
        ({"redis_url": "redis://127.0.0.1"}, []),
        ({"redis_url": "unix:///run/valkey.sock"}, []),
        ({"redis_url": "redis://localhost", "secrets": ()}, ["secrets-not-set"]),
        ({"trusted_proxies": ("0.0.0.0/0",)}, ["trusted-proxies-wide"]),
        ({"trusted_proxies": ("::/0",)}, ["trusted-proxies-wide"]),
        ({"trusted_proxies": ("10.0.0.0/8", "192.168.0.7")}, []),
        ({"listen": "127.0.0.1:8080"}, ["trusted-proxies-missing"]),
        ({"listen": "127.0.0.1:8080", "trusted_proxies": ("127.0.0.1",)}, []),
        ({"room": {"without_pass": "all"}}, ["without-pass-all"]),
        ({"room": {"shop_secret": "abcdefgh" * 4}}, ["weak-shop-secret"]),
        ({"room": {"shop_secret": STRONG * 2}}, ["weak-shop-secret"]),
        ({"room": {"shop_secret": STRONG + STRONG[::-1]}}, []),
        ({"room": {"on_store_error": "admit"}}, ["on-store-error-admit"]),
        ({"room": {"method": "reject"}}, ["method-reject"]),
        ({"room": {"session_seconds": 60}}, ["claim-longer-than-session"]),
        ({"room": {"session_max_seconds": 900}}, ["session-hardly-slides"]),
        ({"room": {"away_after_seconds": 60, "keep_place_seconds": 60}}, ["away-too-soon"]),
        ({"room": {"bypass": (BypassRule(paths=("/",)),)}}, ["bypass-everything"]),
        ({"room": {"bypass": (BypassRule(paths=("/",), addresses=("10.0.0.1",)),)}}, []),
        ({"room": {"bypass": (BypassRule(paths=("/",), dry_run=True),)}}, []),
        ({"room": {"bypass": (BypassRule(paths=("/hook",), query=("key",)),)}}, ["bypass-guessable"]),
        ({"room": {"bypass": (BypassRule(paths=("/hook",), query=("key=v8x",)),)}}, []),
    ],
)
def test_unwise_settings(settings: dict[str, Any], ids: list[str]) -> None:
    assert found(**{"listen": "0.0.0.0:8080", **settings}) == ids


def sale(**settings: Any) -> dict[str, Any]:
    """A wise event, but for these settings."""
    wise = {"start": START, "end": START + timedelta(hours=2), "units": 5000}
    return {"events": (EventSettings("sale", **{**wise, **settings}),)}


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({}, []),
        ({"end": None}, []),
        ({"units": None}, ["event-without-units"]),
        ({"prequeue_start": START - timedelta(seconds=60)}, []),
        ({"prequeue_start": START - timedelta(seconds=59)}, ["event-prequeue-short"]),
        ({"prequeue_start": START - timedelta(hours=1), "before": "open"}, []),
        ({"prequeue_start": START - timedelta(hours=1), "method": "random"}, []),
        (
            {"prequeue_start": START - timedelta(hours=1), "before": "open", "method": "random"},
            ["event-open-before-shuffle"],
        ),
        ({"units": 72_000}, []),
        ({"units": 72_001}, ["event-rate-below-units"]),
        ({"units": 72_001, "end": None}, []),
        ({"units": 72_001, "autopilot": True}, []),
        ({"rate_per_minute": 41.0}, ["event-rate-below-units"]),
        ({"rate_per_minute": 42.0}, []),
        ({"start": NOW - timedelta(hours=1), "end": NOW + timedelta(hours=1)}, []),
        ({"start": NOW - timedelta(hours=2), "end": NOW}, ["event-over"]),
    ],
)
def test_unwise_events(settings: dict[str, Any], ids: list[str]) -> None:
    assert found(listen="0.0.0.0:8080", room=sale(**settings)) == ids


def test_the_autopilot_of_the_room_has_no_rate_to_check() -> None:
    assert found(listen="0.0.0.0:8080", room={**sale(units=72_001), "autopilot": True}) == []
    room = {**sale(units=72_001, rate_per_minute=600.0), "autopilot": True}
    assert found(listen="0.0.0.0:8080", room=room) == ["event-rate-below-units"]


def test_findings_quote_no_secrets() -> None:
    weak, password = "hunter2hunter2hunter2", "hunter2"
    whole = Settings(
        rooms=(RoomSettings(name="shop", upstream="http://127.0.0.1:3000"),),
        secrets=(weak,),
        redis_url=f"redis://:{password}@10.0.0.5?db=1",
        admin_listen="0.0.0.0:8081",
    )
    for finding in check_settings(whole, has_accounts=False, now=NOW):
        assert password not in finding.what + finding.do
        assert finding.what.endswith(".")
        assert finding.do.endswith(".")
