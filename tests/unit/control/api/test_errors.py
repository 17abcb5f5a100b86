"""Errors of the API as problems: statuses, types and titles that clients and operators rely on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from waitroom.control.api.errors import api_problems, problem_responses, stale_version
from waitroom.control.http import PROBLEM, RequestError
from waitroom.control.rooms.changes import InvalidChangeError, RoomStateError, StaleVersionError
from waitroom.errors import StoreUnavailable


def body_of(response: web.StreamResponse) -> dict[str, Any]:
    assert isinstance(response, web.Response)
    assert response.content_type == PROBLEM
    assert response.headers["Cache-Control"] == "no-store"
    assert response.text is not None
    body: dict[str, Any] = json.loads(response.text)
    assert body["status"] == response.status
    return body


@pytest.mark.parametrize(
    ("error", "status", "kind", "title"),
    [
        (RequestError(428, "If-Match is missing."), 428, "about:blank", "Precondition Required"),
        (InvalidChangeError({"max_active": "Too many."}), 422, "urn:waitroom:problem:bad-change", "Invalid change"),
        (RoomStateError("Full."), 409, "urn:waitroom:problem:not-possible", "Conflict with the state of the room"),
        (StoreUnavailable("TimeoutError: "), 503, "urn:waitroom:problem:store", "Store unavailable"),
    ],
)
async def test_errors_become_problems(error: Exception, status: int, kind: str, title: str) -> None:
    async def fails(_request: web.Request) -> web.StreamResponse:
        raise error

    body = body_of(await problem_responses(fails)(make_mocked_request("PATCH", "/api/v1/rooms/shop")))
    assert (body["status"], body["type"], body["title"]) == (status, kind, title)
    assert str(error) in body["detail"]
    assert body.get("errors") == getattr(error, "problems", None)


async def test_an_unavailable_store_says_when_to_retry_and_what_may_have_happened() -> None:
    async def fails(_request: web.Request) -> web.StreamResponse:
        raise StoreUnavailable("TimeoutError: ")

    response = await problem_responses(fails)(make_mocked_request("PATCH", "/api/v1/rooms/shop"))
    assert response.headers["Retry-After"] == "1"
    assert "may have been applied" in body_of(response)["detail"]


def test_a_stale_version_comes_with_the_current_room() -> None:
    response = stale_version(StaleVersionError(7), {"name": "shop", "version": 7})
    body = body_of(response)
    assert (body["status"], body["title"], body["room"]["version"]) == (412, "Stale version", 7)
    assert response.headers["ETag"] == '"7"'


async def test_errors_of_the_router_are_problems_only_under_the_api() -> None:
    async def not_allowed(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed("DELETE", ["GET", "PATCH"])

    response = await api_problems(make_mocked_request("DELETE", "/api/v1/rooms/shop"), not_allowed)
    assert body_of(response)["title"] == "Method Not Allowed"
    assert response.headers["Allow"] == "GET,PATCH"
    with pytest.raises(web.HTTPMethodNotAllowed):
        await api_problems(make_mocked_request("DELETE", "/rooms/shop"), not_allowed)
