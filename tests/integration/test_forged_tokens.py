"""Tickets and passes that aren't ours, or not good here, get nobody anywhere; those of an older secret still do."""

from __future__ import annotations

import secrets
import time

import pytest

from support.gateway_process import OLD_SECRET, SECRET, Gateway, eventually, room
from support.upstreams.server import Shop
from support.visitor_client import FETCH, NAVIGATE, Visitor, filled
from waitroom.tokens import TICKET_SECONDS, Pass, Ticket, Tokens

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

FULL = {"max_active": 1}
ROOMS = [
    room("forged", **FULL),
    room("ticket", **FULL),
    room("rotated", **FULL),
    room("resumed", **FULL),
    room("renewed"),
]
SETTINGS = {"workers": 1}
STRANGER = "a secret that nobody here knows of"


def good_pass(**changes: int) -> Pass:
    now = int(time.time())
    return Pass(**{"session": secrets.randbits(40), "expires_at": now + 600, "ends_at": now + 7200, **changes})


def good_ticket(**changes: int) -> Ticket:
    values = {"place": secrets.randbits(40), "generation": 1, "joined_at": int(time.time())}
    return Ticket(**{**values, "start_position": 1, "promised_seconds": 5, **changes})


def altered(token: str) -> str:
    """The token with its first field counted up."""
    first, _, rest = token.partition(".")
    return f"{int(first, 16) + 1:x}.{rest}"


def bad_passes() -> dict[str, str]:
    tokens, now = Tokens([SECRET], "forged"), int(time.time())
    signed = tokens.sign_pass(good_pass())
    return {
        "nothing": "",
        "any word": "1",
        "yes": "true",
        "altered": altered(signed),
        "without its signature": signed.rpartition(".")[0],
        "with another's signature": f"{signed.rpartition('.')[0]}.{tokens.sign_pass(good_pass()).rpartition('.')[2]}",
        "cut": signed[:-1],
        "longer": signed + "A",
        "in capitals": signed.upper(),
        "of a stranger": Tokens([STRANGER], "forged").sign_pass(good_pass()),
        "of another room": Tokens([SECRET], "other").sign_pass(good_pass()),
        "a ticket": tokens.sign_ticket(good_ticket()),
        "ended": tokens.sign_pass(good_pass(expires_at=now - 100, ends_at=now - 10)),
        "run out, of a session that is over": tokens.sign_pass(good_pass(expires_at=now - 10)),
        "far too long": signed + "A" * 5000,
        "of other letters": "\N{SNOWMAN}" + signed,
    }


@pytest.mark.parametrize("where", ["cookie", "header"])
async def test_an_invalid_pass_admits_nobody(gateway: Gateway, shop: Shop, where: str) -> None:
    if not await gateway.members("forged", "active"):
        await filled(gateway, "forged")
    shop.seen.clear()

    for name, value in bad_passes().items():
        visitor = Visitor(gateway, "forged")
        if where == "cookie":
            visitor.cookies = {visitor.pass_cookie: value}
        elif value.isascii():
            visitor.headers = {"Waitroom-Pass": value}
        asked = await visitor.request("GET", "/forged", FETCH)
        assert asked.json["state"] == "unknown", name
        status = await visitor.status()
        assert status["state"] == "unknown", name
        answer = await visitor.navigate("/forged")
        assert (answer.status, answer.state) == (503, "waiting"), name

    assert not shop.seen
    assert len(await gateway.members("forged", "active")) == 1


def bad_tickets(called: Ticket) -> dict[str, str]:
    """All kinds of them, most made from the ticket of somebody whose turn it is."""
    tokens, now = Tokens([SECRET], "ticket"), int(time.time())
    fields = {"place": called.place, "generation": called.generation}
    signed = tokens.sign_ticket(called)
    return {
        "nothing": "",
        "a place alone": str(called.place),
        "altered": altered(tokens.sign_ticket(good_ticket(**fields | {"place": called.place - 1}))),
        "without its signature": signed.rpartition(".")[0],
        "of a stranger": Tokens([STRANGER], "ticket").sign_ticket(called),
        "of another room": Tokens([SECRET], "other").sign_ticket(called),
        "a pass": tokens.sign_pass(good_pass(session=called.place)),
        # In its own generation the store knows the place, and no clock makes it too old.
        "too old": tokens.sign_ticket(
            good_ticket(place=called.place, generation=called.generation - 1, joined_at=now - TICKET_SECONDS - 1)
        ),
    }


async def test_an_invalid_ticket_claims_no_turn(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "ticket")
    owner = Visitor(gateway, "ticket")
    await owner.waits()
    await inside.call("leave")
    await owner.state("called")
    called = owner.ticket
    shop.seen.clear()

    for name, value in bad_tickets(called).items():
        thief = Visitor(gateway, "ticket", cookies={owner.ticket_cookie: value})
        status = await thief.status()
        assert status["state"] == "unknown", name
        claimed = await thief.call("claim")
        assert (claimed.status, claimed.json["state"]) == (409, "unknown"), name
        answer = await thief.navigate("/ticket")
        assert (answer.status, answer.state) == (503, "waiting"), name
        assert thief.ticket.place > called.place, name

    assert not shop.seen
    assert list(await gateway.members("ticket", "called")) == [called.place]
    await owner.is_let_in("/ticket")
    assert owner.pass_.session == called.place


async def test_tokens_signed_with_an_older_secret_are_valid(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "rotated")
    old = gateway.tokens("rotated", OLD_SECRET)
    inside.cookies[inside.pass_cookie] = old.sign_pass(inside.pass_)
    assert (await inside.navigate("/rotated")).status == 200
    other = Visitor(gateway, "rotated")
    await other.waits()
    ticket = other.ticket
    other.cookies[other.ticket_cookie] = old.sign_ticket(ticket)

    await other.waits()
    await other.position(1)
    assert list(await gateway.members("rotated", "waiting")) == [ticket.place]
    await inside.call("leave")
    await other.state("called")
    await other.is_let_in()

    assert other.pass_.session == ticket.place  # read with the newest secret, which signs
    assert await gateway.total("rotated") == 2


async def test_an_expired_pass_is_renewed_within_its_session(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "resumed")
    place = inside.pass_.session
    now = int(time.time())
    # A worker that has just been started knows the pass alone.
    (edge,) = gateway.children("edge.worker")
    edge.kill()
    await gateway.replaced("edge.worker", 1, [edge])
    await eventually(gateway.is_ready)
    run_out = gateway.tokens("resumed").sign_pass(Pass(place, now - 30, now + 3600))
    inside.cookies[inside.pass_cookie] = run_out

    answer = await inside.navigate("/resumed")

    assert answer.status == 200
    renewed = inside.pass_
    assert (renewed.session, renewed.ends_at) == (place, now + 3600)
    assert renewed.expires_at > now
    assert shop.last("/resumed").session == f"{place:x}"
    assert await gateway.total("resumed") == 1


async def test_a_pass_is_renewed_only_on_uncacheable_responses(gateway: Gateway, shop: Shop) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
    for name, line in {
        "/asset": b"Cache-Control: public, max-age=600\r\n",
        "/silent": b"",
        "/no-cache": b"Cache-Control: no-cache\r\n",
        "/page": b"Cache-Control: no-store\r\n",
        "/private": b"Cache-Control: private, max-age=0\r\n",
    }.items():
        shop.answers[name] = head + line + b"\r\nok"
    now = int(time.time())
    tokens = gateway.tokens("renewed")
    renewed = {}

    for path in ("/asset", "/silent", "/no-cache", "/page", "/private"):
        value = tokens.sign_pass(good_pass(expires_at=now + 60))
        visitor = Visitor(gateway, "renewed", cookies={"waitroom_pass_renewed": value})
        answer = await visitor.request("GET", path, NAVIGATE)
        assert answer.status == 200
        renewed[path] = answer.cookie(visitor.pass_cookie) is not None
        if renewed[path]:
            assert visitor.pass_.expires_at > now + 600

    assert renewed == {"/asset": False, "/silent": False, "/no-cache": False, "/page": True, "/private": True}


async def test_a_fresh_pass_is_not_renewed(gateway: Gateway) -> None:
    visitor = Visitor(gateway, "renewed")
    await visitor.goes_in()

    answer = await visitor.navigate()

    assert answer.status == 200
    assert not answer.cookie_lines
