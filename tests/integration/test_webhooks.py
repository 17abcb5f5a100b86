"""Webhooks to a real receiver: signed, again until taken, never without end, and from a whole gateway."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from structlog.testing import capture_logs

from support.gateway_process import eventually, room, running_gateway
from support.ports import free_port
from support.upstreams.server import response, running_shop
from support.visitor_client import Visitor
from support.webhook_receiver import (
    HASTY,
    SECRET,
    Receiver,
    event,
    opened,
    paused,
    receiving,
    sending,
    told_of_a_pause,
)
from waitroom.control.webhooks.sender import sign
from waitroom.settings import Webhook

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


# Sending.


@pytest.mark.parametrize("by_proxy", [True, False])
async def test_a_proxy_of_the_environment_is_used_only_if_allowed(
    receiver: Receiver, by_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver of these events is the proxy; nobody listens at the address they are for."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{receiver.port}")
    target = Webhook(f"http://127.0.0.1:{free_port()}/hush-hush/path")
    once = replace(HASTY, give_up_after_seconds=0.0)
    with capture_logs() as logs:
        async with sending(target, once, proxy_from_environment=by_proxy) as sender:
            sender.enqueue(event(1))
            await eventually(lambda: receiver.taken or any("failed" in line["event"] for line in logs))
    assert len(receiver.taken) == by_proxy


async def test_an_event_is_signed_as_documented(receiver: Receiver) -> None:
    snippet = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert snippet
    documented: dict[str, Any] = {}
    exec(snippet[1], documented)
    check = documented["is_from_waitroom"]

    async with sending(Webhook(receiver.url, secret=SECRET), unix=lambda: 1795600803.9) as sender:
        sender.enqueue(event(1))
        await eventually(lambda: receiver.taken)

    headers, body = receiver.taken[0]
    header = headers["Waitroom-Signature"]
    expected = hmac.new(SECRET.encode(), b"1795600803." + body, hashlib.sha256).hexdigest()
    assert header == f"t=1795600803,v1={expected}"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "id": "sale-1",
        "event": "paused",
        "room": "sale",
        "at": "2026-11-25T00:00:00.000+00:00",
        "data": {"waiting": 1},
    }
    now = 1795600810.0
    assert check(SECRET, header, body, now)
    assert not check(SECRET, header, body, now + 600)
    assert not check(SECRET, header, body + b" ", now)
    assert not check("another secret altogether", header, body, now)
    assert not check(SECRET, header.replace("t=1795600803", "t=1795600804"), body, now)
    for rubbish in ("", "t=1795600803", "v1=", "t=x,v1=y", "t=1795600803,v1=\xe4"):
        assert not check(SECRET, rubbish, body, now)


async def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    async with sending(Webhook(receiver.url)) as sender:
        sender.enqueue(event(1))
        await eventually(lambda: receiver.taken)
    assert "Waitroom-Signature" not in receiver.taken[0][0]


@pytest.mark.parametrize("status", [500, 503, 599, 408, 425, 429])
async def test_a_temporary_failure_is_retried_with_a_new_timestamp(receiver: Receiver, status: int) -> None:
    receiver.answers = [status, status]
    times = iter([1000.0, 2000.0, 3000.0])
    async with sending(Webhook(receiver.url, secret=SECRET), unix=lambda: next(times)) as sender:
        sender.enqueue(event(1))
        await eventually(lambda: len(receiver.taken) == 3)

    bodies = {body for _, body in receiver.taken}
    assert len(bodies) == 1
    signatures = [headers["Waitroom-Signature"] for headers, _ in receiver.taken]
    assert signatures == [sign(SECRET, at, receiver.taken[0][1]) for at in (1000, 2000, 3000)]


async def test_a_timeout_is_retried(receiver: Receiver) -> None:
    receiver.answers = [receiver.hangs]
    async with sending(Webhook(receiver.url), replace(HASTY, attempt_timeout_seconds=0.3)) as sender:
        sender.enqueue(event(1))
        await eventually(lambda: len(receiver.taken) >= 2)


async def test_an_unreachable_receiver_is_retried_until_it_is_up() -> None:
    port = free_port()
    with capture_logs() as logs:
        async with sending(Webhook(f"http://127.0.0.1:{port}/hush-hush/path")) as sender:
            sender.enqueue(event(1))
            async with receiving(port) as receiver:
                await eventually(lambda: receiver.taken)
    assert logs == []


async def test_an_event_is_given_up_and_the_next_one_sent(receiver: Receiver) -> None:
    receiver.answers = [500] * 1000
    at_last = replace(HASTY, give_up_after_seconds=6.0)
    with capture_logs() as logs:
        async with sending(Webhook(receiver.url, secret=SECRET), at_last) as sender:
            sender.enqueue(event(1))
            await eventually(lambda: logs)
            receiver.answers = []
            tried = len(receiver.taken)
            sender.enqueue(event(2))
            await eventually(lambda: receiver.events[-1]["id"] == "sale-2")
    assert tried > 2
    assert [body for _, body in receiver.taken[:tried]] == [event(1).body] * tried
    (said,) = logs
    assert (said["event"], said["cause"]) == ("webhook delivery failed", "status 500")
    assert said["attempts"] == tried
    assert "hush" not in str(logs)
    assert SECRET not in str(logs)


@pytest.mark.parametrize("status", [400, 401, 404, 410, 301, 302, 307, 308])
async def test_a_permanent_failure_is_not_retried(receiver: Receiver, status: int) -> None:
    async def refuses(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"})

    receiver.answers = [refuses]
    with capture_logs() as logs:
        async with sending(Webhook(receiver.url)) as sender:
            sender.enqueue(event(1))
            sender.enqueue(event(2))
            await eventually(lambda: len(receiver.taken) == 2)
    assert [one["id"] for one in receiver.events] == ["sale-1", "sale-2"]
    assert receiver.elsewhere == 0
    assert [(said["cause"], said["attempts"]) for said in logs] == [(f"status {status}", 1)]


async def test_the_oldest_event_is_dropped_and_logged(receiver: Receiver) -> None:
    receiver.answers = [receiver.hangs]
    with capture_logs() as logs:
        async with sending(Webhook(receiver.url)) as sender:
            sender.enqueue(event(0))
            await eventually(lambda: receiver.taken)
            for number in range(1, 6):
                sender.enqueue(event(number))
            receiver.open.set()
            await eventually(lambda: len(receiver.taken) == 4)
    assert [one["id"] for one in receiver.events] == ["sale-0", "sale-3", "sale-4", "sale-5"]
    assert [said["id"] for said in logs] == ["sale-1", "sale-2"]
    assert "hush" not in str(logs)


async def test_an_endless_response_is_not_read(receiver: Receiver) -> None:
    sent = 0

    async def floods(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b"x" * 65536)
                sent += 65536
        return answer

    receiver.answers = [floods]
    async with sending(Webhook(receiver.url)) as sender:
        sender.enqueue(event(1))
        sender.enqueue(event(2))
        await eventually(lambda: len(receiver.taken) == 2)
    assert sent < 32 << 20  # what the system keeps for a connection, not a flood


async def test_a_webhook_gets_the_events_it_asked_for(receiver: Receiver) -> None:
    webhook = Webhook(receiver.url, events=("sold_out",), rooms=("sale",))
    async with sending(webhook) as sender:
        sender.enqueue(event(1))
        sender.enqueue(event(2, "sold_out", "other"))
        sender.enqueue(event(3, "sold_out"))
        await eventually(lambda: receiver.taken)
    assert [one["id"] for one in receiver.events] == ["sale-3"]


async def test_undelivered_events_are_logged_when_the_gateway_stops(receiver: Receiver) -> None:
    receiver.answers = [receiver.hangs]
    with capture_logs() as logs:
        async with sending(Webhook(receiver.url)) as sender:
            sender.enqueue(event(1))
            await eventually(lambda: receiver.taken)
            sender.enqueue(event(2))
    assert [said["ids"] for said in logs] == [["sale-1", "sale-2"]]


# The whole.


@pytest.mark.slow
async def test_a_gateway_notifies_and_no_receiver_delays_the_queue(receiver: Receiver, tmp_path: Path) -> None:
    async with receiving() as hanging, running_shop() as shop:
        hanging.answers = [hanging.hangs] * 1000
        hooks = [
            {"url": hanging.url, "secret": SECRET},
            {"url": receiver.url, "secret": SECRET, "events": ["paused", "resumed", "store_lost", "store_back"]},
        ]
        rooms = [room("sale", upstream=shop.address)]
        async with running_gateway(tmp_path, rooms, workers=1, webhooks=hooks) as gateway:
            await told_of_a_pause(gateway, receiver)
            await eventually(lambda: hanging.taken)
            admitted = await gateway.total("sale", "admitted")
            visitor = Visitor(gateway, "sale")
            await visitor.goes_in()
            assert await gateway.total("sale", "admitted") == admitted + 1
            await eventually(gateway.is_ready)

            # What was told outlives the process that told it.
            control = gateway.children("control.worker")
            await paused(gateway)
            await eventually(lambda: receiver.names == ["paused", "resumed", "paused"])
            control[0].kill()
            await gateway.replaced("control.worker", 1, control)
            await opened(gateway)
            await eventually(lambda: receiver.names == ["paused", "resumed", "paused", "resumed"])
        assert "hush" not in gateway.log
        assert SECRET not in gateway.log


@pytest.mark.slow
async def test_a_failing_shop_is_reported(receiver: Receiver, tmp_path: Path) -> None:
    async with running_shop() as shop:
        shop.answers["/pay"] = response(b"no\n", status="500 Internal Server Error")
        hooks = [{"url": receiver.url, "events": ["shop_failing"]}]
        async with running_gateway(
            tmp_path, [room("sale", upstream=shop.address)], workers=1, webhooks=hooks
        ) as gateway:
            visitor = Visitor(gateway, "sale")
            await visitor.goes_in()

            async def fails() -> bool:
                assert (await visitor.fetch("/pay")).status == 500
                return bool(receiver.taken)

            await eventually(fails)
            assert (await gateway.metrics())["waitroom_upstream_failures_total",] >= 5
    assert receiver.names == ["shop_failing"]
    assert receiver.events[0]["data"]["shop"]["failures_per_minute"] >= 5
