"""The doctor, with a real store, a shop and no gateway; the gateway's part is tested with a running one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from support.cli_runner import invoke
from support.ports import free_port
from support.upstreams.server import running_shop
from waitroom.control.monitoring.gateways import GatewayInfo
from waitroom.control.monitoring.store_watch import KEY, StoreWatch
from waitroom.doctor.gather import gather_files, gather_store, gather_upstreams
from waitroom.doctor.store_checks import check_store
from waitroom.settings import RoomSettings, Settings, Webhook
from waitroom.shop import ProofVerifier
from waitroom.store.connection import connect

STRONG = "mJ8Zr2vLq0TfXw5yKc7uNb"


def settings(url: str | None, **changes: Any) -> Settings:
    rooms = (RoomSettings(name="shop", upstream=f"http://127.0.0.1:{free_port()}"),)
    return Settings(**{"rooms": rooms, "redis_url": url, "secrets": (STRONG,), **changes})


async def found(url: str | None, **changes: Any) -> list[str]:
    return [finding.id for finding in check_store(await gather_store(settings(url, **changes)))]


@pytest.fixture
async def client(each_server: str) -> AsyncIterator[Redis]:
    async with connect(each_server, timeout_seconds=10) as client:
        yield client


def busy(ids: list[str]) -> list[str]:
    """Without what only a busy machine causes."""
    return [id_ for id_ in ids if id_ != "store-slow"]


async def test_a_good_store(each_server: str, client: Redis) -> None:
    assert busy(await found(each_server)) == []
    facts = await gather_store(settings(each_server))
    assert facts.clock is not None
    assert facts.config["min-replicas-to-write"] == "0"
    assert not await client.exists(KEY), "it changes nothing"


async def test_a_store_that_evicts_and_keeps_nothing(each_server: str, client: Redis) -> None:
    kept = await client.config_get("maxmemory-policy", "appendonly", "save")
    await client.config_set("maxmemory-policy", "allkeys-lru")
    await client.config_set("appendonly", "no")
    await client.config_set("save", "")
    try:
        assert busy(await found(each_server)) == ["store-evicts", "store-not-persistent"]
    finally:
        for name, value in kept.items():
            await client.config_set(name, value)


async def test_a_store_whose_user_may_do_little(each_server: str, client: Redis) -> None:
    await client.acl_setuser(
        "waitroom", enabled=True, passwords=["+hunter2"], categories=["+@all"], keys=["waitroom:*"]
    )
    url = each_server.replace("unix://", "unix://waitroom:hunter2@")
    try:
        assert busy(await found(url)) == []
        await client.execute_command("ACL", "SETUSER", "waitroom", "-info", "-config")
        facts = await gather_store(settings(url))
        assert [finding.id for finding in check_store(facts) if finding.id != "store-slow"] == [
            "store-refuses",
            "store-info",
        ]
        assert "INFO" in facts.refused[0]
        await client.execute_command("ACL", "SETUSER", "waitroom", "-@scripting")
        assert len((await gather_store(settings(url))).refused) == 1
    finally:
        await client.acl_deluser("waitroom")


async def test_a_store_that_cannot_be_used(each_server: str, tmp_path: Path) -> None:
    assert await found(f"redis://127.0.0.1:{free_port()}") == ["store-unreachable"]
    assert await found(each_server.replace("unix://", "unix://nobody:wrong@")) == ["store-unreachable"]
    assert await found(None, data_dir=str(tmp_path)) == ["store-unreachable"]


async def test_a_gateway_with_other_secrets_is_named(each_server: str, client: Redis) -> None:
    watch = StoreWatch(client, GatewayInfo.of("gw2", ["a secret of another gateway"]))
    await watch.check()
    assert "other-secrets" in await found(each_server)
    assert "other-secrets" not in await found(each_server, secrets=(STRONG, "a secret of another gateway"))


async def test_a_shop_that_is_not_there() -> None:
    [one] = await gather_upstreams(settings(None))
    assert one.failure


async def test_a_shop_that_sends_a_line_without_end() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * (1 << 20))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        room = RoomSettings(name="shop", upstream=f"http://127.0.0.1:{port}")
        [one] = await gather_upstreams(Settings(rooms=(room,)))
    assert one.failure == "its answer isn't HTTP"


async def test_a_shop_that_requires_a_proof() -> None:
    async with running_shop() as shop:
        room = RoomSettings(name="sale", upstream=shop.address, shop_secret=STRONG + STRONG[::-1])
        [one] = await gather_upstreams(Settings(rooms=(room,)))
    assert one.status == 200
    verifier = ProofVerifier(room="sale", secrets=[STRONG + STRONG[::-1]], via=["health"])
    assert verifier.verify(shop.last("/").all("Waitroom-Proof"))


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({"secrets": ()}, False),
        ({"secrets": (), "redis_url": "redis://10.0.0.5:6379/0"}, False),
        ({"secrets": (), "redis_url": "redis://:hunter2@10.0.0.5:6379/0"}, True),
        ({"secrets": (), "audit_key": STRONG}, True),
        ({"secrets": (), "accepted_audit_keys": (STRONG,)}, True),
        ({"secrets": (), "webhooks": (Webhook("https://hooks.example/secret-path"),)}, True),
        ({"secrets": (), "rooms": (RoomSettings(name="shop", upstream="http://a:1", shop_secret=STRONG * 2),)}, True),
        ({"secrets_file": "/etc/waitroom/secrets"}, False),
        ({}, True),
    ],
)
def test_a_settings_file_is_private_if_it_holds_secrets(tmp_path: Path, changes: dict[str, Any], judged: bool) -> None:
    config = tmp_path / "waitroom.toml"
    config.write_text("")
    found = gather_files(settings(changes.pop("redis_url", None), data_dir=str(tmp_path / "data"), **changes), config)
    assert (str(config) in found.modes) is judged


def test_a_data_dir_that_only_the_gateways_user_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "data"
    private.mkdir()
    stat = Path.stat

    def refused(path: Path, **options: Any) -> os.stat_result:
        if private in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    config = tmp_path / "waitroom.toml"
    config.write_text(
        f'data_dir = "{private}"\nadmin_listen = "0.0.0.0:8081"\n'
        '[[rooms]]\nname = "shop"\nupstream = "http://127.0.0.1:3000"\n'
    )
    result = invoke("check-config", config)
    assert result.exit_code == 0, result.output
    assert "there are no users" not in result.output
    assert gather_files(settings(None, data_dir=str(private / "waitroom")), config).has_accounts


def test_private_files_that_others_can_read(tmp_path: Path) -> None:
    config = tmp_path / "waitroom.toml"
    config.write_text("")
    (tmp_path / "data").mkdir(mode=0o700)
    for path, mode in (
        (tmp_path / "data" / "secret", 0o644),
        (tmp_path / "data" / "audit_key", 0o644),
        (tmp_path / "data" / "operator.token", 0o604),
        (config, 0o640),
    ):
        path.touch()
        os.chmod(path, mode)
    facts = gather_files(settings("redis://h", data_dir=str(tmp_path / "data")), config)
    assert facts.modes == {
        str(tmp_path / "data"): 0o700,
        str(tmp_path / "data" / "secret"): 0o644,
        str(tmp_path / "data" / "audit_key"): 0o644,
        str(tmp_path / "data" / "operator.token"): 0o604,
        str(config): 0o640,
    }
    assert facts.free_bytes
    assert not facts.has_accounts


def test_the_command_without_a_gateway(each_server: str, tmp_path: Path) -> None:
    config = tmp_path / "waitroom.toml"
    config.write_text(
        f'listen = "127.0.0.1:{free_port()}"\nadmin_listen = "127.0.0.1:{free_port()}"\n'
        f'data_dir = "{tmp_path}"\nredis_url = "{each_server}"\nsecrets = ["aaaaaaaaaaaaaaaa"]\n'
        f'[[rooms]]\nname = "shop"\nupstream = "http://127.0.0.1:{free_port()}"\n'
    )
    result = invoke("doctor", "--config", config, "--json")
    assert result.exit_code == 3, result.output
    listed = json.loads(result.output)["findings"]
    assert all(set(finding) == {"id", "level", "what", "do"} for finding in listed)
    ids = [finding["id"] for finding in listed]
    assert {"gateway-unreachable", "upstream-unreachable", "weak-secret", "trusted-proxies-missing"} <= set(ids)
    plain = invoke("doctor", "--config", config)
    assert plain.exit_code == 3
    assert "(weak-secret)" in plain.output
    assert "aaaaaaaaaaaaaaaa" not in plain.output + result.output


def test_invalid_settings(tmp_path: Path) -> None:
    config = tmp_path / "waitroom.toml"
    config.write_text("rate = 5\n")
    assert invoke("doctor", "--config", config).exit_code == 2
