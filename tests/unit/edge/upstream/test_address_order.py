"""The order in which the addresses of a name are tried."""

from __future__ import annotations

import socket

from waitroom.edge.upstream.address_order import (
    INITIAL_PENALTY_SECONDS,
    MAX_PENALTY_SECONDS,
    MAX_UNRESPONSIVE,
    AddressInfo,
    UnresponsiveAddresses,
    interleave,
)


def info(address: str, port: int = 80) -> AddressInfo:
    family, where = socket.AF_INET, (address, port)
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (*where, 0, 0)
    return family, socket.SOCK_STREAM, 6, "", where


def hosts(infos: list[AddressInfo]) -> list[str]:
    return [one[4][0] for one in infos]


def test_address_families_alternate() -> None:
    infos = [info(one) for one in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1")]
    assert hosts(interleave(infos)) == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]
    assert interleave(infos[:1]) == infos[:1]


def test_unresponsive_address_is_tried_last_for_a_growing_time() -> None:
    silent = UnresponsiveAddresses()
    both = [info("192.0.2.1"), info("192.0.2.2")]
    now, times = 100.0, []
    for _ in range(6):
        ordered = silent.order(both, now)
        assert hosts(ordered) == ["192.0.2.1", "192.0.2.2"], "it is tried first again"
        silent.record_connected(ordered, ("192.0.2.2", 80), now)
        began = now
        while hosts(silent.order(both, now)) == ["192.0.2.2", "192.0.2.1"]:
            now += 1.0
        times.append(now - began)
    assert times == [30, 60, 120, 240, 300, 300]
    assert (times[0], times[-1]) == (INITIAL_PENALTY_SECONDS, MAX_PENALTY_SECONDS)


def test_successful_connect_resets_the_penalty() -> None:
    silent = UnresponsiveAddresses()
    both = [info("192.0.2.1"), info("192.0.2.2")]
    silent.record_connected(both, ("192.0.2.2", 80), 0.0)
    # The other address fails meanwhile.
    silent.record_connected(silent.order(both, 1.0), ("192.0.2.1", 80), 1.0)
    assert hosts(silent.order(both, 1.0)) == ["192.0.2.1", "192.0.2.2"]
    silent.record_connected(both, ("192.0.2.2", 80), 31.0)
    assert hosts(silent.order(both, 31.0 + INITIAL_PENALTY_SECONDS)) == ["192.0.2.1", "192.0.2.2"]


def test_simultaneous_attempts_count_once() -> None:
    silent = UnresponsiveAddresses()
    both = [info("192.0.2.1"), info("192.0.2.2")]
    for _ in range(10):
        silent.record_connected(both, ("192.0.2.2", 80), 5.0)
    assert hosts(silent.order(both, 5.0 + INITIAL_PENALTY_SECONDS)) == ["192.0.2.1", "192.0.2.2"]


def test_memory_of_addresses_is_bounded() -> None:
    silent = UnresponsiveAddresses()
    for number in range(1000):
        infos = [info("192.0.2.1", number), info("192.0.2.2", number)]
        silent.record_connected(infos, ("192.0.2.2", number), 0.0)
    assert len(silent) == MAX_UNRESPONSIVE


def test_unknown_peer_is_ignored() -> None:
    silent = UnresponsiveAddresses()
    both = [info("192.0.2.1"), info("192.0.2.2")]
    silent.record_connected(both, ("198.51.100.1", 80), 0.0)
    assert len(silent) == 0
