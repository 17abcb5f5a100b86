"""A whole gateway: users added while it runs, and logins that outlive its restarts."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.cli_runner import invoke
from support.gateway_process import Gateway, eventually, running_gateway

pytestmark = pytest.mark.slow

WORDS = "correct horse battery"
ROOM = {"name": "shop", "upstream": "http://127.0.0.1:9"}


async def waitroom(gateway: Gateway, *arguments: str, stdin: str = "") -> str:
    """Runs the command beside the gateway; returns what it prints."""
    result = await asyncio.to_thread(invoke, *arguments, "--config", gateway.config, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


async def ask(gateway: Gateway, path: str, headers: Mapping[str, str] = {}, **form: str) -> aiohttp.ClientResponse:
    """A request to the admin listener: a POST where there is a form."""
    headers = {**headers, "Origin": gateway.admin} if form else headers
    answer = await gateway.http.request(
        "POST" if form else "GET", f"{gateway.admin}{path}", headers=headers, data=form or None, allow_redirects=False
    )
    await answer.read()
    return answer


async def log_in(gateway: Gateway, name: str) -> dict[str, str]:
    async def answered() -> aiohttp.ClientResponse | None:
        answer = await ask(gateway, "/login", name=name, password=WORDS)
        return None if answer.status == 503 else answer  # a busy machine's store may miss its 0.3 s

    answer = await eventually(answered)
    assert answer.status == 303, await answer.text()
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


async def test_from_the_first_start_to_the_last_user(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [ROOM], secrets=None) as gateway:
        assert (await ask(gateway, "/api/v1/rooms")).status == 200
        assert (await ask(gateway, "/api/v1/rooms", {"X-Forwarded-For": "203.0.113.9"})).status == 403

        await waitroom(gateway, "user", "add", "anna", "--role", "operator", stdin=f"{WORDS}\n")
        await waitroom(gateway, "user", "add", "bob", "--role", "viewer", stdin=f"{WORDS}\n")
        assert (await ask(gateway, "/api/v1/rooms")).status == 401
        assert (await ask(gateway, "/metrics")).status == 200
        anna, gone, bob = await log_in(gateway, "anna"), await log_in(gateway, "anna"), await log_in(gateway, "bob")
        assert (await ask(gateway, "/api/v1/me", anna)).status == 200
        assert (await ask(gateway, "/logout", gone, sure="yes")).status == 303

        path = gateway.data_dir / "operator.token"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        local = {"Authorization": f"Bearer {path.read_text().strip()}"}
        assert (await ask(gateway, "/api/v1/rooms", local)).status == 200
        token = (await waitroom(gateway, "token", "add", "ci", "--role", "viewer")).strip()
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await ask(gateway, "/api/v1/rooms", bearer)).status == 200

        for _ in range(2):
            assert (await ask(gateway, "/login", name="nobody", password="x")).status == 403
        counted = await tries(gateway)

        await gateway.stop()
        # Nobody runs who would notice.
        await waitroom(gateway, "user", "add", "eve", "--role", "viewer", stdin=f"{WORDS}\n")
        await gateway.start()
        assert await tries(gateway) == counted == [2, 2, 2]
        for headers, status in ((anna, 200), (gone, 401), (bob, 200), (bearer, 200), (local, 401)):
            assert (await ask(gateway, "/api/v1/rooms", headers)).status == status

        await waitroom(gateway, "user", "role", "anna", "viewer")
        await waitroom(gateway, "user", "remove", "bob")
        await waitroom(gateway, "token", "remove", "ci")
        for headers in (anna, bob, bearer):
            assert (await ask(gateway, "/api/v1/rooms", headers)).status == 401
        assert (await ask(gateway, "/api/v1/rooms", await log_in(gateway, "anna"))).status == 200

        local = {"Authorization": f"Bearer {path.read_text().strip()}"}

        async def written() -> list[dict[str, Any]]:
            entries: list[dict[str, Any]] = (await (await ask(gateway, "/api/v1/audit", local)).json())["entries"]
            changes = [one for one in entries if one["action"] == "people"]
            old = {name: role for one in changes for name, role in one["old"].items()}
            new = {name: role for one in reversed(changes) for name, role in one["new"].items()}
            assert old == {"anna": "operator", "bob": "viewer", "token:ci": "viewer"}
            assert new == {"anna": "viewer", "bob": "viewer", "eve": "viewer", "token:ci": "viewer"}
            return entries

        entries = await eventually(written)
        assert {(one["who"], one["action"], one["outcome"]) for one in entries} >= {
            *(("anna", "login", "done"), ("anna", "logout", "done"), ("bob", "login", "done")),
            ("unknown", "login", "refused"),
        }
        for secret in (WORDS, token, path.read_text().strip(), local["Authorization"], "argon2", anna["Cookie"]):
            assert secret not in gateway.log
            assert secret not in str(entries)


async def tries(gateway: Gateway) -> list[int]:
    """The failed tries that the store knows of, by name, by address and of both together."""
    async with gateway.store() as redis:
        counts = [await redis.hget(key, "tries") async for key in redis.scan_iter("waitroom:{:access}:tries:*")]
    return [int(count) for count in counts if count != b"0"]
