"""The previous release and this one on the same data: upgrading, going back, and both at the same time."""

from __future__ import annotations

import dataclasses
import re
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, room, running_gateway
from support.upstreams.server import Shop, response, running_shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

# `git archive` of commit 7212b9a: waitroom, templates, config and what a build needs. Never skipped if it is missing.
ARCHIVE = Path(__file__).with_name("waitroom-0.1.0.tar.xz")
NOTE = "agreed before the upgrade"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source of the previous release."""
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "waitroom-0.1.0"


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as shop:
        yield shop


@dataclasses.dataclass
class Admin:
    """An operator with an API token."""

    gateway: Gateway
    token: str

    async def ask(self, path: str, method: str = "GET", body: object = None, **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        async with self.gateway.http.request(method, self.gateway.admin + path, json=body, headers=sent) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def sees_the_change(self) -> None:
        """Makes sure that the rate set before the upgrade is in force, and in an intact audit log."""
        assert (await self.ask("/api/v1/rooms/sale"))["rate_per_minute"] == 4321
        assert (await self.ask("/api/v1/audit/verify"))["intact"]
        entries = (await self.ask("/api/v1/audit"))["entries"]
        assert [one["new"]["rate_per_minute"] for one in entries if one["note"] == NOTE] == [4321]


async def stays_inside(visitor: Visitor, shop: Shop, path: str) -> str | None:
    """Opens a page of the shop without waiting again; returns the session."""
    assert (await visitor.navigate(path)).status == 200
    return shop.last(path).session


async def test_places_sessions_users_and_settings_survive_an_upgrade_and_going_back(
    previous: Path, shop: Shop, tmp_path: Path
) -> None:
    rooms = [room("sale", upstream=shop.address, max_active=1), room("pay", upstream=shop.address)]
    shop.answers["/hold"] = response(b"ok", "Waitroom-Command: hold=20000")
    # The secret is the one that the previous release generates.
    gateway = Gateway(tmp_path, {"workers": 1, "secrets": None}, rooms, source=previous)
    try:
        adding = await gateway.spawn("token", "add", "ops", "--role", "admin", "--config", str(gateway.config))
        assert await adding.wait() == 0
        (token,) = re.findall(r"wrt_\S+", gateway.log)
        admin = Admin(gateway, token)

        await gateway.start()
        assert (await version_of(gateway)).startswith("waitroom 0.1.0,")
        inside, first, second, third = (Visitor(gateway, "sale") for _ in range(4))
        await inside.goes_in("/before")
        session = shop.last("/before").session
        await first.waits()
        await second.waits()
        version = (await admin.ask("/api/v1/rooms/sale"))["version"]
        change = {"rate_per_minute": 4321, "message": "Until noon", "note": NOTE}
        await admin.ask("/api/v1/rooms/sale", "PATCH", change, **{"If-Match": f'"{version}"'})
        assert await gateway.stop() == 0

        gateway.source = None
        await gateway.start()
        assert await stays_inside(inside, shop, "/upgraded") == session
        await first.position(1)
        assert (await second.position(2))["message"] == "Until noon"
        assert (await third.waits()).page_position == 3
        async with gateway.store() as redis:
            assert await redis.hget("waitroom:{sale}:room", "schema") == b"1"
        await admin.sees_the_change()
        assert (await inside.call("leave")).status == 200
        await first.state("called")
        await first.is_let_in("/first")
        session = shop.last("/first").session
        payer = Visitor(gateway, "pay")
        await payer.goes_in("/pay")
        held = await stays_inside(payer, shop, "/hold")
        assert await gateway.stop() == 0

        gateway.source = previous
        await gateway.start()
        assert await stays_inside(first, shop, "/back") == session
        assert await stays_inside(payer, shop, "/paid") != held, "0.1.0 can't read passes with holds"
        await second.position(1)
        await third.position(2)
        await admin.sees_the_change()
        assert (await first.call("leave")).status == 200
        await second.state("called")
        await second.is_let_in()
        await third.position(1)
        assert await gateway.total("sale") == 4
        assert await gateway.total("sale", "admitted") == 3
    finally:
        await gateway.close()


async def version_of(gateway: Gateway) -> str:
    """The version that the gateway's source says it is."""
    command = dataclasses.replace(gateway, folder=gateway.folder / "command", _http=None)
    command.folder.mkdir()
    assert await (await command.spawn("--version")).wait() == 0
    return command.log


async def test_both_versions_serve_one_queue_during_a_rolling_upgrade(
    previous: Path, shop: Shop, tmp_path: Path, valkey: str
) -> None:
    rooms = [room("sale", upstream=shop.address, max_active=1)]
    settings = {"workers": 1, "redis_url": valkey}
    async with (
        running_gateway(tmp_path / "old", rooms, source=previous, **settings) as old,
        running_gateway(tmp_path / "new", rooms, **settings) as new,
    ):

        def elsewhere(visitor: Visitor) -> Visitor:
            """The same browser at the other gateway."""
            return dataclasses.replace(visitor, gateway=new if visitor.gateway is old else old)

        for gateway in (old, new):
            inside, first, second = (
                Visitor(gateway, "sale"),
                Visitor(gateway, "sale"),
                elsewhere(Visitor(gateway, "sale")),
            )
            await inside.goes_in("/inside")
            session = shop.last("/inside").session
            assert await stays_inside(elsewhere(inside), shop, "/elsewhere") == session
            await first.waits()
            await second.waits()
            for visitor in (first, elsewhere(first)):
                await visitor.position(1)
            for visitor in (second, elsewhere(second)):
                await visitor.position(2)
            assert (await elsewhere(inside).call("leave")).status == 200
            await elsewhere(first).state("called")
            await elsewhere(first).is_let_in()
            assert list(await gateway.members("sale", "active")) == [first.pass_.session]
            for visitor in (second, elsewhere(first)):
                assert (await visitor.call("leave")).status == 200
