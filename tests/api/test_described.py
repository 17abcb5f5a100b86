"""The admin API does what ``openapi.yaml`` says: schemathesis asks a live gateway whatever that allows, and forbids."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
import pytest

from support.examples import examples
from support.gateway_process import room, running_gateway

HERE = Path(__file__).parent
RUN_SECONDS = 1200.0  # ten times what it takes alone on a slow machine: only a hang ends it
EXAMPLES = examples(8, long=100)
SEED = 20261125  # what is wrong must be found by whoever brings it, not by chance by the next


@pytest.mark.slow
async def test_schemathesis_finds_no_errors(tmp_path: Path) -> None:
    # It sends requests that are no HTTP, which aiohttp logs with a traceback; a handler's would be a 500 and found.
    rooms = [room("shop", upstream="http://127.0.0.1:9")]
    async with running_gateway(tmp_path / "gateway", rooms, mistakes=True) as gateway:
        url = f"{gateway.admin}/api/v1"
        async with gateway.http.get(f"{url}/openapi.yaml") as answer:
            assert answer.status == 200
            described = tmp_path / "openapi.yaml"
            described.write_bytes(await answer.read())
        asking = await asyncio.create_subprocess_exec(
            *(Path(sys.executable).with_name("st"), "--config-file", HERE / "schemathesis.toml"),
            *("run", described, "--url", url, "--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-color"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "hooks"},
            cwd=tmp_path,
        )
        try:
            async with asyncio.timeout(RUN_SECONDS):
                said, _ = await asking.communicate()
        finally:
            if asking.returncode is None:
                asking.kill()
                await asking.wait()
        assert asking.returncode == 0, said.decode()
        # It has changed things, not only been refused.
        assert (await gateway.room("shop"))["version"] > 3
        async with gateway.http.get(f"{url}/rooms/shop/events") as answer:
            assert [event["name"] for event in (await answer.json())["events"]] == ["sale"]
        async with gateway.http.get(f"{url}/audit/verify", timeout=aiohttp.ClientTimeout(total=10)) as answer:
            assert (await answer.json())["intact"]
