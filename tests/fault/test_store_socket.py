"""The embedded store's socket, where its usual place won't do."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

import pytest

from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.server import Shop
from support.visitor_client import Visitor
from waitroom.process.embedded_store import EmbeddedStore

pytestmark = pytest.mark.slow


def socket_of(gateway: Gateway) -> Path:
    return EmbeddedStore(gateway.data_dir).socket


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory, to which anybody can write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_long_data_dir_leads_to_no_directory_that_others_could_make(
    tmp_path: Path, public: Path, shop: Shop
) -> None:
    """Another user has made the directory whose name could be predicted."""
    folder = tmp_path / ("x" * 80)
    digest = hashlib.sha256(os.fsencode(folder / "data")).hexdigest()[:16]
    made = public / f"waitroom-{os.getuid()}-{digest}"
    made.mkdir()
    made.chmod(0o777)
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    async with running_gateway(folder, rooms, workers=1) as gateway:
        inside, waiting = Visitor(gateway, "shop"), Visitor(gateway, "shop")
        await inside.goes_in()
        await waiting.waits()
        first = socket_of(gateway)
        assert first.is_socket()
        assert first.parent.parent == public
        assert first.parent != made
        assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
        assert not entries(made)

        (store,) = old = gateway.children("valkey")
        store.kill()
        await gateway.replaced("valkey", 1, old)
        await waiting.position(1)
        assert socket_of(gateway) == first  # the workers know no other

        assert gateway.process is not None
        gateway.process.kill()
        await gateway.ended()
        await gateway.start()
        await waiting.position(1)
        assert socket_of(gateway).parent in entries(public)
        assert first.parent not in entries(public)
    assert entries(public) == [made]


async def test_a_directory_of_the_settings(tmp_path: Path, shop: Shop) -> None:
    sockets = Path(tempfile.mkdtemp()) / "sockets"
    rooms = [room("shop", upstream=shop.address)]
    async with running_gateway(tmp_path, rooms, workers=1, store_socket_dir=str(sockets)) as gateway:
        await Visitor(gateway, "shop").goes_in()
        (socket,) = entries(sockets)
        assert socket.is_socket()
        assert not (gateway.data_dir / "store.sock").exists()
        await eventually(gateway.is_ready)
    assert not entries(sockets)
