"""Hints to operators: observations of the edge workers, each with a remedy."""

from __future__ import annotations

from waitroom.control.monitoring.hints import REFUSED_SECONDS, hints
from waitroom.metrics.upstream_window import Observations
from waitroom.settings import RoomSettings

NOW = 1_800_000_000.0
ROOM = RoomSettings(name="shop", upstream="http://a:1")


def test_an_untrusted_proxy_is_named_with_the_setting() -> None:
    observed = Observations(missing_proxies=frozenset(("10.0.0.1",)))
    (hint,) = hints(ROOM, observed, NOW)
    assert hint.startswith("Most visitors come from 10.0.0.1. ")
    assert "trusted_proxies" in hint


def test_refused_requests_are_named_with_a_remedy() -> None:
    refused = {"POST /hooks": NOW - 10, "GET /a.css": NOW, "HEAD /": NOW, "PUT /api": NOW - 5, "POST /": NOW - 7200}
    (hint,) = hints(ROOM, Observations(refused=refused), NOW)
    assert hint.startswith("Requests without a pass were refused: PUT /api, POST /hooks. ")
    assert "bypass rule" in hint
    assert hints(ROOM, Observations(refused=refused), NOW + REFUSED_SECONDS) == []


def test_hints_are_ordered_by_urgency_and_bounded() -> None:
    observed = Observations(
        shared_sessions=frozenset(range(100)),
        missing_proxies=frozenset(f"10.0.0.{number}" for number in range(9)),
        refused={f"POST /{number}": NOW for number in range(20)},
    )
    found = hints(ROOM, observed, NOW)
    assert [hint.split()[0] for hint in found] == ["Most", "Requests", "100"]
    assert all(len(hint) < 250 for hint in found)


def test_observations_of_workers_are_merged() -> None:
    one = Observations.of({"shared_sessions": [1], "missing_proxy": "10.0.0.1", "refused": {"POST /a": 1.0}})
    other = Observations.of({"shared_sessions": [2], "missing_proxy": "", "refused": {"POST /a": 2.0, "POST /b": 1.0}})
    assert one | other == Observations(frozenset((1, 2)), frozenset(("10.0.0.1",)), {"POST /a": 2.0, "POST /b": 1.0})
    assert Observations.of({}) == Observations()
