"""Strict-Transport-Security: on the gateway's own responses and those that set a pass, over HTTPS only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.edge_world import LIMITS, QUIET, World, answer, get

HSTS = b"Strict-Transport-Security"
PROXY = "192.0.2.1"
SECURE = (b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Proto: https")
PLAIN = (b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Proto: http")


def reply(*lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: 0", *lines]) + b"\r\n\r\n"


def world(seconds: int = 600) -> World:
    limits = replace(LIMITS, hsts_headers=b"%b: max-age=%d\r\n" % (HSTS, seconds) if seconds else b"")
    return World(view=QUIET, trusted=[PROXY], limits=limits)


@pytest.mark.parametrize("target", [b"/.waitroom/status?room=shop", b"/.waitroom/nothing"])
def test_own_responses(target):
    with world() as one:
        for lines, values in ((SECURE, [b"max-age=600"]), (PLAIN, [])):
            assert one.ask(get(target, *lines), wire=one.client(PROXY)).all(HSTS) == values
        assert one.ask(get(target, *SECURE)).all(HSTS) == [], "whoever is no proxy says nothing about HTTPS"
    with world(0) as one:
        assert one.ask(get(target, *SECURE), wire=one.client(PROXY)).all(HSTS) == []


@pytest.mark.parametrize("lines", [SECURE, PLAIN])
@pytest.mark.parametrize("own", [(), (b"Strict-Transport-Security: max-age=5",)])
def test_responses_of_the_shop(lines, own):
    """Those that set a pass have it, unless the shop sends it itself; for others it would be work for nothing."""
    with world() as one:
        for left, added in ((100, lines is SECURE and not own), (800, False)):
            wire = one.client(PROXY)
            wire.send(get(b"/", b"Cookie: waitroom_pass_shop=" + one.pass_(left=left), *lines))
            one.shop.wire.send(reply(b"Cache-Control: private", *own))
            values = answer(wire).all(HSTS)
            assert values == [b"max-age=600"] * added + [b"max-age=5"] * len(own)
