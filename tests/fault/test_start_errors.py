"""A gateway that can't start says why in one sentence, with its exit code, on every supported Python."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from pathlib import Path

import pytest

from support.gateway_process import Gateway, needs, room, running_gateway
from support.ports import free_port
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

CHECKOUT = str(Path(__file__).parents[2])
NOBODY = 65534
# Debian's own is 3.11.2, which doesn't unwrap groups of exceptions as later ones do.
OF_THE_SYSTEM = f"/usr/bin/python{sysconfig.get_python_version()}"
PYTHONS = (
    [OF_THE_SYSTEM, pytest.param(sys.executable, marks=pytest.mark.long)]
    if os.path.exists(OF_THE_SYSTEM)
    else [sys.executable]
)
LIKE_A_USER = ("--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


@pytest.fixture(params=PYTHONS)
def python(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Another Python of the same version, with the packages of this one."""
    # The clients of the store need it before 3.11.3, so it is not among the packages of a later Python.
    stand_in = tmp_path_factory.mktemp("packages")
    (stand_in / "async_timeout.py").write_text("from asyncio import timeout\n")
    paths = [CHECKOUT, sysconfig.get_path("purelib"), str(stand_in)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(sys, "executable", request.param)
    return str(request.param)


def read_only(folder: Path) -> tuple[str, ...]:
    """Returns the start of a command to which the folder's file system is mounted read-only."""
    shell = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    return (needs("unshare"), "--mount", *user, needs("sh"), "-c", shell, str(folder))


def of_somebody_else(path: Path) -> tuple[str, ...]:
    """Gives a file or folder to another user. Returns the start of a command that may not write there, even as root."""
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "run the tests as root"
        pytest.skip("only root can give files away")
    for each in (path, *path.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    return (needs("setpriv"), *LIKE_A_USER)


async def refused(gateway: Gateway, wrapper: tuple[str, ...] = ()) -> str:
    """The only line that a start ends with."""
    gateway.wrapper = wrapper
    process = await gateway.spawn()
    assert await process.wait() == 3, gateway.log
    (line,) = gateway.log.splitlines()
    assert line.startswith("waitroom can't start: "), line
    return line.removeprefix("waitroom can't start: ")


@pytest.mark.parametrize("store", ["embedded", "elsewhere"])
async def test_a_read_only_data_dir(tmp_path: Path, python: str, store: str) -> None:
    url = {"redis_url": f"redis://127.0.0.1:{free_port()}"} if store == "elsewhere" else {}
    gateway = Gateway(tmp_path, url, [room("shop", upstream="http://127.0.0.1:1")])
    gateway.data_dir.mkdir(mode=0o700)
    why = await refused(gateway, read_only(gateway.data_dir))
    fix = "make it writable, or choose another data_dir"
    assert why == f"can't write to {str(gateway.data_dir)!r}: Read-only file system: {fix}"


async def test_a_data_dir_of_another_user(tmp_path: Path, python: str) -> None:
    gateway = Gateway(tmp_path, {}, [room("shop", upstream="http://127.0.0.1:1")])
    gateway.data_dir.mkdir(mode=0o755)
    why = await refused(gateway, of_somebody_else(gateway.data_dir))
    assert why == (
        f"can't write to {str(gateway.data_dir)!r}: Permission denied: it belongs to nobody, and the gateway runs as "
        f"root: run `chown -R root {gateway.data_dir}`, or choose another data_dir"
    )


async def test_files_of_another_user(tmp_path: Path, shop: Shop) -> None:
    """As after a start by root."""
    async with running_gateway(tmp_path, [room("shop", upstream=shop.address)], workers=1) as gateway:
        await Visitor(gateway, "shop").goes_in()
        await gateway.stop()
        assert stat.S_IMODE((gateway.data_dir / "store.log").stat().st_mode) == 0o600
        (gateway.folder / "gateway.log").unlink()
        wrapper = of_somebody_else(gateway.data_dir / "appendonlydir")
        why = await refused(gateway, wrapper)
        assert "appendonlydir': Permission denied: it belongs to nobody" in why
        assert "chown -R root" in why


async def test_a_port_in_use_and_a_locked_data_dir(tmp_path: Path, shop: Shop, python: str) -> None:
    async with running_gateway(tmp_path, [room("shop", upstream=shop.address)], workers=1) as gateway:
        other = Gateway(tmp_path, {}, gateway.rooms)
        for name in ("port", "admin_port"):
            folder = tmp_path / name
            folder.mkdir()
            other = Gateway(folder, {}, gateway.rooms)
            setattr(other, name, getattr(gateway, name))
            assert "Address already in use" in await refused(other)


async def test_a_file_in_place_of_the_metrics(tmp_path: Path, shop: Shop) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "metrics").touch()
    async with running_gateway(tmp_path, [room("shop", upstream=shop.address)], workers=1) as gateway:
        await Visitor(gateway, "shop").goes_in()


async def test_existing_files_become_private(tmp_path: Path, shop: Shop) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    async with running_gateway(tmp_path, [room("shop", upstream=shop.address)], workers=1) as gateway:
        await Visitor(gateway, "shop").goes_in()
        assert stat.S_IMODE(gateway.data_dir.stat().st_mode) == 0o700
        left = [path for path in gateway.data_dir.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
        assert left == []


async def test_output_in_an_encoding_without_the_characters(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    async with running_gateway(tmp_path, [room("shop", upstream=shop.address)], workers=1) as gateway:
        for command in (
            ("message", "shop", "Zwei Lkw → gleich geht’s weiter …", "--note", "für alle"),
            ("audit", "show"),
        ):
            (gateway.folder / "output").mkdir(exist_ok=True)
            one = Gateway(gateway.folder / "output", {}, [])
            process = await one.spawn(*command, "--config", str(gateway.config))
            assert await process.wait() == 0, (command, one.log)
            assert "Error" not in one.log
        assert (await gateway.room("shop"))["message"] == "Zwei Lkw → gleich geht’s weiter …"
        assert "Zwei Lkw \\u2192 gleich geht\\u2019s weiter" in one.log
