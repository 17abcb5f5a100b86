"""The gateway, its shops, and the files and limits of this machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from waitroom.control.monitoring.gateways import GATEWAY_HINTS
from waitroom.doctor.facts import FileFacts, GatewayFacts, UpstreamFacts
from waitroom.doctor.findings import Finding
from waitroom.process.open_files import OTHER_FILES
from waitroom.settings import Settings
from waitroom.store.eviction import EVICTION_HINT

SLOW_SECONDS: Final = 2.0
MIN_FREE_BYTES: Final = 256 << 20


def check_gateway(gateway: GatewayFacts, settings: Settings) -> Iterator[Finding]:
    """Judges the running gateway."""
    if not gateway.admin:
        what = f"No gateway responds at admin_listen, {settings.admin_listen}."
        yield Finding("gateway-unreachable", "error", what, "Start it: waitroom run --config FILE. See its log.")
    elif not gateway.serving:
        what = f"The gateway runs, but nothing responds at listen, {settings.listen}."
        yield Finding("gateway-not-serving", "error", what, "See the gateway's log, and docs/runbook.md.")
    for room, hint in gateway.hints:
        if hint.startswith((*GATEWAY_HINTS, EVICTION_HINT)):  # a finding of its own
            continue
        do = "Do what the hint says; docs/operating.md explains it."
        yield Finding("room-hint", "warning", f'Room "{room}": {hint}', do)


def check_upstreams(upstreams: Sequence[UpstreamFacts]) -> Iterator[Finding]:
    """Judges the shops."""
    for one in upstreams:
        where = f'The shop of room "{one.room}" at {one.address}'
        if one.failure:
            do = "Start the shop, or correct upstream."
            yield Finding("upstream-unreachable", "error", f"{where} doesn't respond: {one.failure}.", do)
        elif one.status >= 500:
            what = f"{where} answers {one.path} with status {one.status}."
            yield Finding("upstream-failing", "warning", what, "See the shop's log.")
        elif one.seconds > SLOW_SECONDS:
            what = f"{where} took {one.seconds:.1f} s to answer {one.path}."
            yield Finding("upstream-slow", "warning", what, "Find out why before the sale; keep max_active low.")


def check_files(files: FileFacts, settings: Settings) -> Iterator[Finding]:
    """Judges files and limits."""
    for path, mode in sorted(files.modes.items()):
        if mode & 0o077:
            what = f"{path} has mode {mode:04o}: other users of this machine can use it, and it holds secrets."
            yield Finding("file-mode", "warning", what, f"chmod go= {path}")
    upstream = sum(room.upstream_max_connections for room in settings.rooms)
    needed = settings.client_connections + upstream + OTHER_FILES
    if files.open_files is not None and files.open_files < needed:
        what = f"The limit of open files is {files.open_files}; a worker may need {needed}, so it serves fewer clients."
        do = f"Raise the hard limit to {needed} (LimitNOFILE in systemd), or lower client_connections."
        yield Finding("open-files", "warning", what, do)
    if files.free_bytes is not None and files.free_bytes < MIN_FREE_BYTES:
        what = f"data_dir has {files.free_bytes >> 20} MiB left: without space the embedded store can't save the queue."
        yield Finding("disk-space", "error", what, "Free some space, or move data_dir.")
