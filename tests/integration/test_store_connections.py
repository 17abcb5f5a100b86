"""Connections that died while they were idle, and servers that are no longer the primary: calls ask again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from support.ca import Authority
from support.ports import free_port
from support.store_servers import Endpoint, ValkeyServer, running_endpoint, valkey_server
from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.auth.login_store import LoginStore
from waitroom.control.autopilot.state import DecisionLog
from waitroom.control.monitoring.history import History, Sample
from waitroom.control.webhooks.watcher import ReportedState
from waitroom.errors import StoreUnavailable
from waitroom.queue.fields import Limits
from waitroom.queue.store import QueueStore
from waitroom.store.connection import connect

LIMITS = Limits(600, 2, 900, 180, 180, 3600)
KEYS = AuditKeys(["the key of the audit log in tests"])
ADA = Actor("ada", Role.ADMIN, "127.0.0.1", "api")
# Long enough that a busy machine's answers arrive, and short enough to wait for.
TIMEOUT_SECONDS = 1.5


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ValkeyServer]:
    async with valkey_server(tmp_path / "v") as server:
        yield server


@pytest_asyncio.fixture
async def endpoint(server: ValkeyServer) -> AsyncIterator[Endpoint]:
    async with running_endpoint(server) as endpoint:
        yield endpoint


@pytest_asyncio.fixture
async def redis(endpoint: Endpoint) -> AsyncIterator[Redis]:
    async with connect(endpoint.url, timeout_seconds=TIMEOUT_SECONDS) as redis:
        yield redis


def sample(at: int) -> Sample:
    return Sample(at, {"waiting": 1})


async def read_everything(redis: Redis) -> None:
    """Makes all calls of the control process that may run twice, at the same time."""
    audit, history, queue = Audit(redis, KEYS), History(redis), QueueStore(redis, "shop")
    verdict, entries, *_ = await asyncio.gather(
        audit.verify(),
        audit.read(),
        history.add("shop", sample(5)),
        history.read_json("shop", 60),
        queue.limits(),
        queue.run_id(),
        queue.view(),
        queue.audit_events(),
        LoginStore(redis).ended("s"),
        ReportedState(redis, "shop").read(),
        DecisionLog(redis, "shop", "me").acquire(),
        DecisionLog(redis, "shop", "me").decisions(),
    )
    assert verdict.intact
    assert len(entries) == 1


def killed(server: ValkeyServer, endpoint: Endpoint) -> None:
    # By a client that blocks, so that nothing here notices it before the next call.
    with BlockingRedis(unix_socket_path=str(server.socket)) as client:
        client.client_kill_filter(_type="normal", skipme=True)


def forgotten(server: ValkeyServer, endpoint: Endpoint) -> None:
    endpoint.forget()


@pytest.mark.parametrize("die", [killed, forgotten])
async def test_reads_over_connections_that_died_idle(
    redis: Redis, server: ValkeyServer, endpoint: Endpoint, die: Callable[[ValkeyServer, Endpoint], None]
) -> None:
    await QueueStore(redis, "shop").open(LIMITS)
    await Audit(redis, KEYS).write(ADA, "login")
    await read_everything(redis)
    die(server, endpoint)
    await read_everything(redis)


async def test_a_write_that_must_not_run_twice_is_not_repeated(redis: Redis, endpoint: Endpoint) -> None:
    login = LoginStore(redis)
    assert await login.use_code("ada", 1)
    endpoint.forget()
    with pytest.raises(StoreUnavailable) as raised:
        await login.use_code("ada", 2)
    assert raised.value.kind == "timeout"
    assert await login.use_code("ada", 2), "the first call never arrived, and no second one was made"


async def test_one_dead_connection_drops_the_others(redis: Redis, server: ValkeyServer, endpoint: Endpoint) -> None:
    await asyncio.gather(*(redis.ping() for _ in range(5)))
    made = endpoint.connected[server.port]
    assert made >= 2
    endpoint.forget()
    await QueueStore(redis, "shop").open(LIMITS)  # its first attempt finds a dead connection
    login = LoginStore(redis)
    assert all(await asyncio.gather(*(login.use_code("ada", step) for step in range(5)))), "each is called only once"


async def test_a_demoted_primary_is_left_for_the_new_one(
    redis: Redis, server: ValkeyServer, endpoint: Endpoint, tmp_path: Path
) -> None:
    queue = QueueStore(redis, "shop")
    await queue.open(LIMITS)
    async with valkey_server(tmp_path / "other") as other:
        endpoint.target = other.port
        await server.follow(other)
        await queue.open(LIMITS)
        assert (await queue.join(1)).admitted == 1
        assert endpoint.connected[other.port] >= 1


Cause = Callable[[ValkeyServer], Awaitable[Any]]


async def open_as(url: str) -> StoreUnavailable:
    """The error of opening a room over this URL."""
    async with connect(url, timeout_seconds=TIMEOUT_SECONDS) as redis:
        with pytest.raises(StoreUnavailable) as raised:
            await QueueStore(redis, "shop").open(LIMITS)
    return raised.value


async def test_a_plain_connection_to_a_tls_port_is_named(tmp_path: Path) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("a plain connection completed a TLS handshake")

    port, context = free_port(), Authority.make(tmp_path / "ca").server("DNS:localhost")
    async with await asyncio.start_server(accept, "127.0.0.1", port, ssl=context):
        plain = await open_as(f"redis://127.0.0.1:{port}")
        untrusted = await open_as(f"rediss://localhost:{port}")
    assert (plain.kind, "rediss://" in str(plain)) == ("closed", True)
    assert (untrusted.kind, "certificate" in str(untrusted)) == ("tls", True)


async def test_what_a_server_refuses_is_named(server: ValkeyServer, tmp_path: Path) -> None:
    users = {"uninformed": "+@all -info", "scriptless": "+@all -@scripting", "elsewhere": "+@all"}
    for name, allowed in users.items():
        keys = "~other:*" if name == "elsewhere" else "~*"
        await server.command("ACL", "SETUSER", name, "on", ">word", keys, *allowed.split())
    at = f"@127.0.0.1:{server.port}"
    named = {
        f"redis://uninformed:word{at}": ("permission", "INFO"),
        f"redis://scriptless:word{at}": ("permission", "EVALSHA"),
        f"redis://elsewhere:word{at}": ("permission", "~waitroom:*"),
        f"redis://nobody:word{at}": ("authentication", "redis_url"),
        f"rediss://127.0.0.1:{server.port}": ("tls", "redis://"),
        f"{server.url}/99": ("no_database", "redis_url"),
        "redis://127.0.0.1:1": ("refused", "redis_url"),
    }
    for url, (kind, word) in named.items():
        error = await open_as(url)
        assert error.kind == kind, (url, error, error.detail)
        assert word in str(error)
        assert "word" not in f"{error} {error.detail}".replace("password", "")
    renamed = [part for name in ("EVAL", "EVALSHA", "SCRIPT") for part in ("--rename-command", name, "")]
    async with valkey_server(tmp_path / "renamed", *renamed, "--requirepass", "word") as other:
        error = await open_as(f"redis://:word@127.0.0.1:{other.port}")
        assert (error.kind, "EVALSHA" in str(error)) == ("unknown_command", True)
        assert (await open_as(other.url)).kind == "authentication"
