"""What the store must have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from waitroom.control.monitoring.gateways import ClockReading
from waitroom.doctor.facts import StoreFacts
from waitroom.doctor.store_checks import check_store

INFO = {
    "redis_version": "7.2.4",
    "role": "master",
    "redis_mode": "standalone",
    "maxmemory": "0",
    "used_memory": "1000000",
    "maxmemory_policy": "noeviction",
    "evicted_keys": "0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "connected_slaves": "0",
}
CONFIG = {"save": "3600 1", "min-replicas-to-write": "0"}
GOOD = StoreFacts(embedded=False, info=INFO, config=CONFIG, round_trip_seconds=0.001, clock=ClockReading(0.001, 0.001))


def found(store: StoreFacts) -> list[tuple[str, str]]:
    return [(finding.id, finding.level) for finding in check_store(store)]


def test_a_good_store_has_no_findings() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"redis_version": "6.0.16"}, [("store-version", "error")]),
        ({"redis_version": "6.2.0"}, []),
        ({"role": "slave"}, [("store-replica", "error")]),
        ({"redis_mode": "cluster"}, [("store-cluster", "error")]),
        ({"maxmemory_policy": "allkeys-lru"}, [("store-evicts", "error")]),
        ({"evicted_keys": "7"}, [("store-evicted", "warning")]),
        ({"maxmemory": "1200000"}, [("store-memory", "warning")]),
        ({"aof_enabled": "0"}, [("store-snapshots-only", "note")]),
        ({"aof_last_write_status": "err"}, [("store-not-saving", "error")]),
        ({"rdb_last_bgsave_status": "err"}, [("store-not-saving", "error")]),
        ({"connected_slaves": "2"}, [("store-min-replicas", "warning")]),
    ],
)
def test_what_the_server_says_of_itself(changed: dict[str, str], expected: list[tuple[str, str]]) -> None:
    assert found(replace(GOOD, info=INFO | changed)) == expected


def test_nothing_on_disk_at_all() -> None:
    store = replace(GOOD, info=INFO | {"aof_enabled": "0"}, config=CONFIG | {"save": ""})
    assert found(store) == [("store-not-persistent", "warning")]


def test_replicas_that_must_confirm_writes() -> None:
    store = replace(GOOD, info=INFO | {"connected_slaves": "1"}, config=CONFIG | {"min-replicas-to-write": "1"})
    assert found(store) == []


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (StoreFacts(embedded=False, failure="refused"), [("store-unreachable", "error")]),
        (StoreFacts(embedded=True, failure="refused"), [("store-unreachable", "error")]),
        (replace(GOOD, refused=("may not run EVAL",)), [("store-refuses", "error")]),
        (replace(GOOD, round_trip_seconds=0.03), [("store-slow", "warning")]),
        (replace(GOOD, round_trip_seconds=0.2), [("store-slow", "error")]),
        (replace(GOOD, clock=ClockReading(25_200, 0.01)), [("clock-differs", "warning")]),
        (replace(GOOD, strangers=("gw2",)), [("other-secrets", "error")]),
        (replace(GOOD, info={}), [("store-info", "warning")]),
        (replace(GOOD, config={}), [("store-config", "note")]),
        (replace(GOOD, config={}, embedded=True), []),
    ],
)
def test_what_was_observed(store: StoreFacts, expected: list[tuple[str, str]]) -> None:
    assert found(store) == expected
