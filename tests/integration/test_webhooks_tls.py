"""Webhooks over HTTPS: told only to who has a certificate of that name, of an authority that is believed."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from support.ca import Authority
from support.gateway_process import eventually, room, running_gateway
from support.upstreams.server import running_shop
from support.webhook_receiver import HASTY, SECRET, event, receiving, sending, told_of_a_pause
from waitroom.settings import Webhook


async def test_a_receiver_with_an_untrusted_certificate_gets_nothing(tmp_path: Path) -> None:
    tls = Authority.make(tmp_path / "unknown").server("IP:127.0.0.1")
    policy = replace(HASTY, give_up_after_seconds=6.0)
    async with receiving(tls=tls) as receiver, sending(Webhook(receiver.url), policy) as sender:
        with capture_logs() as logged:
            sender.enqueue(event(1))
            await eventually(lambda: [one for one in logged if one["event"] == "webhook delivery failed"])
    (given_up,) = (one for one in logged if one["event"] == "webhook delivery failed")
    assert given_up["cause"] == "ClientConnectorCertificateError"
    assert given_up["attempts"] == receiver.greeted > 1
    assert receiver.taken == []
    assert "hush" not in str(logged)


@pytest.mark.slow
async def test_only_a_receiver_with_a_certificate_for_its_name_is_notified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = Authority.make(tmp_path / "known"), Authority.make(tmp_path / "unknown")
    wrong = [
        known.server("DNS:hooks.example.com"),
        known.server("IP:127.0.0.1", days=-1),
        unknown.server("IP:127.0.0.1"),
    ]
    # As an authority of one's own is made known to a program that believes what the system does.
    monkeypatch.setenv("SSL_CERT_FILE", str(known.file))
    async with contextlib.AsyncExitStack() as stack:
        shop = await stack.enter_async_context(running_shop())
        good = await stack.enter_async_context(receiving(tls=known.server("IP:127.0.0.1")))
        others = [await stack.enter_async_context(receiving(tls=tls)) for tls in wrong]
        hooks = [{"url": one.url, "secret": SECRET, "events": ["paused", "resumed"]} for one in (good, *others)]
        rooms = [room("sale", upstream=shop.address)]
        gateway = await stack.enter_async_context(running_gateway(tmp_path / "gateway", rooms, webhooks=hooks))
        await told_of_a_pause(gateway, good)
        # Each is tried again, for it may be mended, and told nothing.
        await eventually(lambda: all(one.greeted >= 2 for one in others))
        assert [one.taken for one in others] == [[], [], []]
        assert "hush" not in gateway.log
