"""Gathers the facts: asks the store, the gateway and the shops, and looks at files. Every wait is bounded."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import ssl
import stat
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis

from waitroom.control.auth.accounts import has_accounts
from waitroom.control.monitoring.gateways import ClockReading, GatewayInfo, with_other_secrets
from waitroom.control.monitoring.readiness import is_serving
from waitroom.control.monitoring.store_watch import ALIVE_MS, KEY
from waitroom.control.private_files import PRIVATE_FILES
from waitroom.doctor.facts import FileFacts, GatewayFacts, StoreFacts, UpstreamFacts
from waitroom.edge.rooms.proofs import Proofs
from waitroom.errors import StoreUnavailable
from waitroom.process.data_dir import SECRET_FILE
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.settings import RoomSettings, Settings
from waitroom.settings.store_url import has_password
from waitroom.settings.validators import split_address
from waitroom.store.connection import connect, store_errors
from waitroom.store.errors import StoreErrorKind

SECONDS: Final = 5.0
PINGS: Final = 5
_CONFIG: Final = ("save", "min-replicas-to-write")
_WRITES: Final = "redis.call('TIME') return redis.call('HLEN', KEYS[1])"
_INFO: Final = "return redis.call('INFO', 'server')"


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Returns the secrets in use: those of the settings, or else the one that the gateway generated."""
    if settings.secrets:
        return settings.secrets
    try:
        return ((Path(settings.data_dir) / SECRET_FILE).read_text().strip(),)
    except (OSError, UnicodeDecodeError):
        return ()


async def gather_store(settings: Settings) -> StoreFacts:
    """Asks the store."""
    embedded = settings.redis_url is None
    url = EmbeddedStore.from_settings(settings).url if settings.redis_url is None else settings.redis_url
    async with connect(url, timeout_seconds=SECONDS) as redis:
        try:
            local, sent = time.time(), time.monotonic()
            seconds, micros = await _ask(lambda: redis.time())
            clock = ClockReading.of(seconds + micros / 1e6, local, time.monotonic() - sent)
        except StoreUnavailable as error:
            if error.kind not in (StoreErrorKind.PERMISSION, StoreErrorKind.UNKNOWN_COMMAND):
                return StoreFacts(embedded, failure=str(error))
            clock = None
        refused = await _refused(redis)
        info = await _or_empty(lambda: redis.info())
        config = await _or_empty(lambda: redis.config_get(*_CONFIG))
        return StoreFacts(
            embedded,
            refused=refused,
            info=_texts(info),
            config=_texts(config),
            round_trip_seconds=await _round_trip(redis),
            clock=clock,
            strangers=await _strangers(redis, settings),
        )


async def gather_gateway(settings: Settings, hints: Iterable[tuple[str, str]] | None) -> GatewayFacts:
    """Asks the gateway on this machine. ``hints``: those on its rooms; None if its admin listener doesn't respond."""
    if hints is None:
        return GatewayFacts(admin=False, serving=False)
    return GatewayFacts(admin=True, serving=await is_serving(settings), hints=tuple(hints))


async def gather_upstreams(settings: Settings) -> list[UpstreamFacts]:
    """Sends each address of each shop one request, as a health check does."""
    asked = [_ask_upstream(room, address) for room in settings.rooms for address in room.upstreams]
    return list(await asyncio.gather(*asked))


def gather_files(settings: Settings, config: Path | None) -> FileFacts:
    """Looks at files and limits."""
    data_dir = Path(settings.data_dir)
    private = [data_dir, *(data_dir / name for name in PRIVATE_FILES)]
    private += [Path(path) for path in (settings.secrets_file, settings.tls_key) if path is not None]
    if config is not None and _holds_secrets(settings):
        private.append(config)
    modes = {}
    for path in private:
        try:
            modes[str(path)] = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue  # missing, or of another user: then nobody else can use it
    existing = next((path for path in (data_dir, *data_dir.absolute().parents) if os.access(path, os.F_OK)), None)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FileFacts(
        modes=modes,
        free_bytes=None if existing is None else shutil.disk_usage(existing).free,
        open_files=None if hard == resource.RLIM_INFINITY else hard,
        has_accounts=has_accounts(data_dir),
    )


def _holds_secrets(settings: Settings) -> bool:
    """Whether a settings file with these settings holds secrets, unless they come from the environment."""
    return bool(
        (settings.secrets and settings.secrets_file is None)
        or settings.audit_key
        or settings.accepted_audit_keys
        or has_password(settings.redis_url or "")
        or settings.users
        or settings.webhooks
        or any(room.shop_secret for room in settings.rooms)
    )


async def _ask(call: Callable[[], Awaitable[Any]]) -> Any:
    with store_errors():
        return await call()


async def _or_empty(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await _ask(call)
    except StoreUnavailable:
        return {}


async def _refused(redis: Redis) -> tuple[str, ...]:
    """The needs of scripts that the store refuses, each once."""
    refused = []
    for script in (_WRITES, _INFO):
        try:
            await _ask(lambda script=script: redis.eval(script, 1, KEY))  # type: ignore[misc]
        except StoreUnavailable as error:
            refused.append(str(error))
    return tuple(dict.fromkeys(refused))


async def _round_trip(redis: Redis) -> float | None:
    times = []
    for _ in range(PINGS):
        sent = time.monotonic()
        try:
            await _ask(lambda: redis.ping())
        except StoreUnavailable:
            return None
        times.append(time.monotonic() - sent)
    return median(times)


async def _strangers(redis: Redis, settings: Settings) -> tuple[str, ...]:
    secrets = secrets_of(settings)
    if not secrets:
        return ()
    try:
        seconds, _ = await _ask(lambda: redis.time())
        listed: dict[bytes, bytes] = await _ask(lambda: redis.hgetall(KEY))
    except StoreUnavailable:
        return ()
    alive = []
    for value in listed.values():
        at, _, gateway = value.partition(b" ")
        found = GatewayInfo.parse(gateway)
        if found is not None and at.isdigit() and abs(seconds * 1000 - int(at)) < ALIVE_MS:
            alive.append(found)
    return with_other_secrets(GatewayInfo.of("", secrets), alive)


async def _ask_upstream(room: RoomSettings, address: str) -> UpstreamFacts:
    path = room.health_path or "/"
    host = next((host for host in room.hosts if not host.startswith("*")), urlsplit(address).netloc or "localhost")
    method = "GET" if room.health_path else "HEAD"
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: waitroom-doctor\r\nConnection: close\r\n"
    proof = Proofs(room.shop_secret, room.name).header(None, "health", time.time())
    started = time.monotonic()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await _open(room, address)
            writer.write(head.encode() + proof + b"\r\n")
            line = await reader.readline()
    except OSError as error:  # also a timeout or an error of TLS
        return UpstreamFacts(room.name, address, path, failure=_failure(error))
    except ValueError:  # an endless line
        line = b""
    finally:
        if writer is not None:
            writer.transport.abort()
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        return UpstreamFacts(room.name, address, path, failure="its answer isn't HTTP")
    return UpstreamFacts(room.name, address, path, status=int(parts[1]), seconds=time.monotonic() - started)


async def _open(room: RoomSettings, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return await asyncio.open_unix_connection(rest)
    at = split_address(rest)
    assert at is not None
    if scheme != "https":
        return await asyncio.open_connection(at.host, at.port)
    context = ssl.create_default_context(cafile=room.upstream_ca_file)
    name = room.upstream_server_name or at.host
    return await asyncio.open_connection(at.host, at.port, ssl=context, server_hostname=name)


def _failure(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate isn't trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return f"no answer within {SECONDS:g} s"
    return str(getattr(error, "strerror", None) or error)


def _texts(values: dict[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
