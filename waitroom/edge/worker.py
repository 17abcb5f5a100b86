"""One edge worker: a process that serves the public port."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from waitroom.edge.app import Edge
from waitroom.edge.client.acceptor import Acceptor
from waitroom.edge.client.interfaces import ClientLimits
from waitroom.edge.pages.renderer import Pages
from waitroom.edge.rooms.neighbours import NeighbourFiles
from waitroom.edge.rooms.room import FLUSH_SECONDS, REFRESH_SECONDS, Room
from waitroom.edge.rooms.router import Router
from waitroom.edge.upstream.health_checks import HealthChecks
from waitroom.edge.upstream.pool import UpstreamPool
from waitroom.jobs import Jobs
from waitroom.metrics.recorder import METRICS_DIR, EdgeMetrics
from waitroom.net.forwarded import TrustedProxies
from waitroom.net.tls import CertificatePair
from waitroom.process.child import Child, run_child
from waitroom.process.open_files import connection_limit, files_needed, raise_limit
from waitroom.queue.schedule import file_events
from waitroom.queue.store import QueueStore
from waitroom.settings import Settings
from waitroom.store.connection import connect
from waitroom.store.health import StoreHealth
from waitroom.timing import Clock, StoreTime
from waitroom.tokens import Tokens

log = structlog.get_logger()

SWEEP_SECONDS = 0.5
METRICS_SECONDS = 1.0
NEIGHBOURS_SECONDS = 0.5


async def serve(child: Child) -> None:
    """Serves until it is told to stop, then lets requests in flight finish."""
    settings = child.settings
    assert settings.redis_url is not None
    redis = connect(settings.redis_url)
    metrics = EdgeMetrics(Path(settings.data_dir) / METRICS_DIR, child.slot, [room.name for room in settings.rooms])
    time = StoreTime()
    clock = Clock(unix=time.unix, observe=time.observe)
    health = StoreHealth(log)
    rooms = {
        room.name: Room(
            room,
            Tokens(settings.secrets, room.name),
            QueueStore(redis, room.name),
            UpstreamPool.from_settings(room),
            metrics.rooms[room.name],
            settings.workers,
            clock,
            health,
            file_events(room, settings.secrets[0]),
            settings.polls_per_second,
        )
        for room in settings.rooms
    }
    edge = _edge(settings, rooms, clock, warn=child.slot == 0)

    async def sweep() -> None:
        edge.sweep()

    async def save_metrics() -> None:
        await asyncio.to_thread(metrics.save, metrics.dump())

    async with Jobs() as jobs:
        # Serving doesn't depend on these. They come first so that a store that answers is known to be available.
        await asyncio.wait([jobs.start(f"first view of {name}", room.refresh) for name, room in rooms.items()])
        jobs.every(SWEEP_SECONDS, "sweep", sweep)
        jobs.every(METRICS_SECONDS, "metrics", save_metrics)
        for name, room in rooms.items():
            jobs.every(REFRESH_SECONDS, f"view of {name}", room.refresh)
            jobs.every(FLUSH_SECONDS, f"reports of {name}", room.flush)
            if settings.workers > 1:
                files = NeighbourFiles(Path(settings.data_dir) / METRICS_DIR, name, child.slot)
                jobs.every(NEIGHBOURS_SECONDS, f"neighbours of {name}", partial(_share_neighbours, room, files))
            if room.settings.health_path is not None:
                proof = partial(room.proof, "health")
                checks = HealthChecks(room.settings, room.pool, proof, random.Random())  # noqa: S311 - spreads load
                checks.start(jobs)
        async with _listening(child, edge, jobs):
            await child.ready()
            await child.stop.wait()
        await edge.drain(settings.grace_seconds)
    for room in rooms.values():
        await room.close()
    await redis.aclose()


async def _share_neighbours(room: Room, files: NeighbourFiles) -> None:
    """Exchanges a room's neighbourhoods with the other workers. Without the files a worker only knows its own."""
    neighbours = room.neighbours
    dumped = neighbours.dump(room.clock.unix()) if neighbours.changed or not files.written else None
    learned = await asyncio.to_thread(files.exchange, dumped)
    if learned is not None:
        neighbours.load(learned)


@asynccontextmanager
async def _listening(child: Child, edge: Edge, jobs: Jobs) -> AsyncIterator[None]:
    """Accepts connections for the duration of the block."""
    context = None if child.pair is None else child.pair.context()
    acceptor = Acceptor(edge, child.listener, context, proxied=child.settings.proxy_protocol)

    async def reload() -> None:
        while True:
            acceptor.set_context(CertificatePair.from_json(await child.messages.get()).context())
            log.info("new certificate in use")

    for room in edge.rooms.values():
        room.pool.on_out_of_files = acceptor.pause
    jobs.run("certificate reload", reload)
    acceptor.open()
    try:
        yield
    finally:
        await acceptor.close()
        child.listener.close()


def _edge(settings: Settings, rooms: Mapping[str, Room], clock: Clock, *, warn: bool) -> Edge:
    upstream = sum(room.upstream_max_connections for room in settings.rooms)
    files = raise_limit(files_needed(settings.client_connections, upstream))
    hsts = b"Strict-Transport-Security: max-age=%d\r\n" % settings.hsts_seconds if settings.hsts_seconds else b""
    limits = ClientLimits(
        head_bytes=settings.client_head_bytes,
        head_seconds=settings.client_head_seconds,
        body_seconds=settings.client_body_seconds,
        idle_seconds=settings.client_idle_seconds,
        write_seconds=settings.client_write_seconds,
        buffer_bytes=settings.client_body_buffer_bytes,
        buffer_seconds=settings.client_body_buffer_seconds,
        min_bytes_per_second=settings.client_min_bytes_per_second,
        hsts_headers=hsts,
    )
    return Edge(
        rooms,
        Router(settings.rooms, strict=settings.strict_paths),
        Pages(settings.rooms),
        TrustedProxies(settings.trusted_proxies, settings.keep_headers),
        limits,
        clock,
        most_buffered=settings.client_body_buffer_total_bytes,
        most_connections=connection_limit(files, settings.client_connections, upstream, warn=warn),
        most_per_address=settings.client_connections_per_address,
        workers=settings.workers,
    )


def main() -> None:
    """Runs the worker: see `run_child`."""
    run_child("edge", serve)
