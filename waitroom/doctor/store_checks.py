"""Requirements on the store. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from waitroom.control.monitoring.gateways import MAX_NAMED, clock_differs, clock_text
from waitroom.doctor.facts import StoreFacts
from waitroom.doctor.findings import Finding
from waitroom.store.eviction import SAFE_POLICY

OLDEST_REDIS: Final = (6, 2)
SLOW_SECONDS: Final = 0.02  # per call; a newcomer waits for two, and a call is given up after 0.3 s
VERY_SLOW_SECONDS: Final = 0.1


def check_store(store: StoreFacts) -> Iterator[Finding]:
    """Judges the store."""
    if store.failure:
        yield _unreachable(store)
        return
    for refused in store.refused:
        yield Finding(
            "store-refuses",
            "error",
            f"The store refuses what every call needs: {refused}.",
            "Allow the user of redis_url `+@all -@dangerous +info +script ~waitroom:*`, and rename no commands.",
        )
    yield from _check_server(store)
    yield from _check_memory(store)
    yield from _check_persistence(store)
    yield from _check_replicas(store)
    yield from _check_latency(store)
    yield from _check_gateways(store)


def _unreachable(store: StoreFacts) -> Finding:
    if store.embedded:
        what = "The embedded store doesn't respond: the gateway isn't running, or runs as another user."
        return Finding("store-unreachable", "error", what, "Start the gateway, or run this command as its user.")
    what = f"The store can't be used: {store.failure}."
    return Finding("store-unreachable", "error", what, "Correct redis_url, or start the store.")


def _check_server(store: StoreFacts) -> Iterator[Finding]:
    info = store.info
    found = re.match(r"(\d+)\.(\d+)", info.get("redis_version", ""))
    if found and (int(found[1]), int(found[2])) < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        yield Finding(
            "store-version",
            "error",
            f"The store is Redis {info['redis_version']}; the scripts need {oldest} or newer, or any Valkey.",
            "Upgrade the store.",
        )
    if info.get("role") == "slave":
        yield Finding(
            "store-replica",
            "error",
            "redis_url leads to a replica, which refuses writes.",
            "Let redis_url lead to the primary.",
        )
    if info.get("redis_mode") == "cluster":
        yield Finding(
            "store-cluster",
            "error",
            "redis_url leads to a node of a cluster, which holds only some of the rooms.",
            "Let redis_url lead to a single primary.",
        )


def _check_memory(store: StoreFacts) -> Iterator[Finding]:
    info = store.info
    policy = info.get("maxmemory_policy", SAFE_POLICY)
    if policy != SAFE_POLICY:
        yield Finding(
            "store-evicts",
            "error",
            f"The store's maxmemory-policy is {policy}: when memory is short it deletes the queue.",
            "Set maxmemory-policy noeviction; give the shop's cache a store of its own.",
        )
    if int(info.get("evicted_keys", "0")) > 0:
        yield Finding(
            "store-evicted",
            "warning",
            f"The store has evicted {info['evicted_keys']} keys since its start.",
            "Give Waitroom a store of its own, or more memory.",
        )
    limit, used = int(info.get("maxmemory", "0")), int(info.get("used_memory", "0"))
    if limit and used > 0.8 * limit:
        yield Finding(
            "store-memory",
            "warning",
            f"The store uses {100 * used // limit} % of its maxmemory; beyond it, newcomers get no places.",
            "Raise maxmemory. A visitor in the queue takes about 130 bytes.",
        )


def _check_persistence(store: StoreFacts) -> Iterator[Finding]:
    info = store.info
    if not info:
        return
    if info.get("aof_enabled") == "0":
        snapshots = store.config.get("save")
        if snapshots == "":
            what = "The store keeps nothing on disk: after its restart the queue is rebuilt from the visitors' tickets."
            yield Finding("store-not-persistent", "warning", what, "Set appendonly yes in the store.")
        else:
            what = "The store has no append-only file: a crash loses the changes since its last snapshot."
            yield Finding("store-snapshots-only", "note", what, "Set appendonly yes in the store.")
    for key, named in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(key, "ok") != "ok":
            what = f"The store's last write of its {named} failed."
            yield Finding("store-not-saving", "error", what, "See the store's log; check its disk and permissions.")


def _check_replicas(store: StoreFacts) -> Iterator[Finding]:
    replicas = int(store.info.get("connected_slaves", "0"))
    least = store.config.get("min-replicas-to-write")
    if replicas and least == "0":
        yield Finding(
            "store-min-replicas",
            "warning",
            f"The store has {replicas} replicas and min-replicas-to-write 0: an old primary that is cut off goes on "
            "admitting, and a failover takes those writes back.",
            "Set min-replicas-to-write 1 and min-replicas-max-lag 2 in the store.",
        )


def _check_latency(store: StoreFacts) -> Iterator[Finding]:
    seconds = store.round_trip_seconds
    if seconds is not None and seconds > SLOW_SECONDS:
        yield Finding(
            "store-slow",
            "error" if seconds > VERY_SLOW_SECONDS else "warning",
            f"A call to the store takes {seconds * 1000:.0f} ms; newcomers wait for it, and 300 ms count as a failure.",
            "Move the store next to the gateways, and find out what else uses it (SLOWLOG GET).",
        )


def _check_gateways(store: StoreFacts) -> Iterator[Finding]:
    if store.clock is not None and clock_differs(store.clock, False):
        yield Finding(
            "clock-differs",
            "warning",
            f"The clock of this machine is {clock_text(store.clock)}. Visitors aren't affected, but logs, one-time "
            "codes and certificates are.",
            "Synchronize both machines with NTP.",
        )
    if store.strangers:
        named = ", ".join(store.strangers[:MAX_NAMED])
        yield Finding(
            "other-secrets",
            "error",
            f"Gateways with other secrets use this store ({named}): visitors lose their places between them.",
            "Give all gateways the same secrets, newest first.",
        )
    if not store.info:
        what = "The store's user may not run INFO, so version, memory and persistence could not be checked."
        yield Finding("store-info", "warning", what, "Allow +info in the store's ACL.")
    elif not store.config and not store.embedded:
        what = "The store's user may not run CONFIG GET, so snapshots and min-replicas-to-write could not be checked."
        yield Finding("store-config", "note", what, "Check both in the store's own configuration.")
