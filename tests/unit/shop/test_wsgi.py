"""The middleware for WSGI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from support.room_proofs import SECRET, proof
from waitroom.shop import WSGIMiddleware

LINE = b"Refused: the request didn't come through the waiting room (%b).\n"


def asked(path: str = "/", *proofs: str, method: str = "GET", **environ: Any) -> tuple[str, bytes, dict[str, Any]]:
    """The status, the body and the environment in which the shop is called, empty if it isn't."""
    reached: dict[str, Any] = {}
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def shop(environ: Any, start_response: Any) -> list[bytes]:
        reached.update(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    given: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, **environ}
    setup_testing_defaults(given)
    given["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "")
    given["QUERY_STRING"] = ""
    if proofs:
        given["HTTP_WAITROOM_PROOF"] = ",".join(proofs)

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))
        return lambda data: None

    app = validator(WSGIMiddleware(shop, room="sale", secrets=[SECRET], leave_alone=["/healthz", "/static/", "/é/"]))
    result = app(given, start_response)
    body = b"".join(result)
    result.close()  # type: ignore[attr-defined]
    ((status, headers),) = started
    if status != "200 OK":
        assert dict(headers)["Cache-Control"] == "no-store"
    return status, body, reached


def test_a_valid_proof_is_passed_on_with_its_claims() -> None:
    status, body, reached = asked("/", proof("5a"))
    assert (status, body) == ("200 OK", b"ok")
    assert (reached["waitroom"]["sub"], reached["waitroom"]["via"]) == ("5a", "session")


@pytest.mark.parametrize(
    ("proofs", "why"),
    [
        (lambda: (), b"no proof"),
        (lambda: (proof(), proof()), b"malformed proof"),
        (lambda: (proof(room="other"),), b"proof of another room"),
        (lambda: ("\xff\x00" * 32_768,), b"malformed proof"),
        (lambda: ("",), b"malformed proof"),
    ],
)
def test_a_request_without_one_valid_proof_gets_a_short_403(proofs: Callable[[], tuple[str, ...]], why: bytes) -> None:
    # Made when the test runs: by then, a proof made at import may have expired.
    assert asked("/", *proofs()) == ("403 Forbidden", LINE % why, {})


def test_the_response_to_head_has_no_body() -> None:
    assert asked(method="HEAD") == ("403 Forbidden", b"", {})


@pytest.mark.parametrize(
    ("path", "script", "left"),
    [
        ("/healthz", "", True),
        ("/static/a.css", "", True),
        ("/é/a".encode().decode("latin-1"), "", True),
        ("/\xff", "", False),
        ("/static/../order", "", False),
        ("/healthz", "/api", True),
        ("/order", "/static", False),  # some servers take SCRIPT_NAME from a header
    ],
)
def test_paths_are_compared_as_the_routes_see_them(path: str, script: str, left: bool) -> None:
    status, _, reached = asked(path, SCRIPT_NAME=script)
    assert (status == "200 OK") is left
    assert "waitroom" not in reached
