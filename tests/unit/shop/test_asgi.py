"""The middleware for ASGI, by messages alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.room_proofs import SECRET, proof
from waitroom.shop import ASGIMiddleware


def asked(scope: dict[str, Any], **more: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The scopes that reach the shop, and the messages that the server gets."""
    reached: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []

    async def shop(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read before the decision")

    async def send(message: Any) -> None:
        sent.append(message)

    app = ASGIMiddleware(shop, room="sale", secrets=[SECRET], leave_alone=["/healthz", "/static/"], **more)
    asyncio.run(app(scope, receive, send))
    return reached, sent


def http(path: str = "/", *proofs: str, name: bytes = b"waitroom-proof", **more: Any) -> dict[str, Any]:
    headers = [(b"host", b"shop.test"), *[(name, one.encode()) for one in proofs]]
    return {"type": "http", "method": "GET", "path": path, "headers": headers, **more}


def test_a_valid_proof_is_passed_on_with_its_claims() -> None:
    scope = http("/", proof("5a"))
    (reached,), sent = asked(scope)
    assert (reached["waitroom"]["sub"], reached["waitroom"]["via"]) == ("5a", "session")
    assert reached == scope | {"waitroom": reached["waitroom"]}
    assert "waitroom" not in scope  # it belongs to the server
    assert sent == []


def test_a_request_without_a_proof_gets_a_short_403() -> None:
    reached, (start, body) = asked(http())
    assert reached == []
    headers = dict(start["headers"])
    assert (start["type"], start["status"]) == ("http.response.start", 403)
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store"
    assert body["body"] == b"Refused: the request didn't come through the waiting room (no proof).\n"
    assert headers[b"content-length"] == b"%d" % len(body["body"])


def test_the_response_to_head_has_no_body() -> None:
    _, (start, body) = asked(http(method="HEAD"))
    assert (start["status"], body["body"]) == (403, b"")


def test_a_websocket_needs_a_proof_too() -> None:
    reached, sent = asked(http("/chat", type="websocket"))
    assert (reached, sent) == ([], [{"type": "websocket.close", "code": 1008}])
    (reached_,), sent = asked(http("/chat", proof("5a"), type="websocket"))
    assert (reached_["waitroom"]["sub"], sent) == ("5a", [])


def test_start_and_stop_need_no_proof() -> None:
    assert asked({"type": "lifespan"}) == ([{"type": "lifespan"}], [])


def test_another_kind_of_connection_is_no_way_in() -> None:
    reached, _ = asked(http(type="webtransport"))
    assert reached == []


@pytest.mark.parametrize(
    "proofs", [lambda: (proof(), proof()), lambda: (proof(room="other"),), lambda: ("\xff" * 65_536,)]
)
def test_bad_proofs(proofs: Callable[[], tuple[str, ...]]) -> None:
    reached, (start, _) = asked(http("/", *proofs()))
    assert (reached, start["status"]) == ([], 403)


def test_bytes_that_are_no_text_are_refused() -> None:
    reached, (start, _) = asked({**http(), "headers": [(b"waitroom-proof", bytes(range(256)) * 256)]})
    assert (reached, start["status"]) == ([], 403)


def test_names_that_only_look_alike_are_no_proof() -> None:
    assert asked(http("/", proof(), name=b"waitroom_proof"))[0] == []
    assert len(asked(http("/", proof(), name=b"Waitroom-Proof"))[0]) == 1


def test_only_some_ways() -> None:
    assert asked(http("/", proof(via="bypass")), via=["session"])[0] == []
    assert len(asked(http("/", proof("5a")), via=["session"])[0]) == 1


@pytest.mark.parametrize(
    ("path", "root", "left"),
    [
        ("/healthz", "", True),
        ("/static/a.css", "", True),
        ("/static/../order", "", False),
        ("/api/healthz", "/api", True),
        ("/api/healthz", "/api/", True),
        ("/apihealthz", "/api", False),
        ("/healthz", "/api", True),
        ("/static/order", "/static", False),  # the shop's routes see /order
        ("/static", "/static", False),
        ("/api/order", "/api", False),
    ],
)
def test_paths_are_compared_as_the_routes_see_them(path: str, root: str, left: bool) -> None:
    reached, _ = asked(http(path, root_path=root))
    assert bool(reached) is left
    if left:
        assert "waitroom" not in reached[0]
