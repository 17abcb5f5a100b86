"""Helpers shared by the admin routes: errors as ``application/problem+json`` (RFC 9457), and bounded bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

BODY_SECONDS = 10.0
PROBLEM = "application/problem+json"
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "about:blank",
    title: str = "",
    errors: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> web.Response:
    """Builds an error response of the API.

    Args:
        status: The HTTP status.
        detail: The cause in this request, and how to correct it.
        kind: The problem type, a URN; "about:blank" if the status says enough.
        title: The title of the problem type.
        errors: Messages by field.
        headers: Response headers.
        more: Additional members.
    """
    body: dict[str, Any] = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = dict(errors)
    text = json.dumps(body | more)
    return web.Response(
        status=status, text=text, content_type=PROBLEM, charset="utf-8", headers={**NO_STORE, **(headers or {})}
    )


class BadRequest(Exception):  # noqa: N818 - what it is
    """An unreadable request; answered with its status."""

    def __init__(self, status: int, detail: str, errors: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.errors = errors
        super().__init__(detail)


async def read_body(request: web.Request, most: int, seconds: float = BODY_SECONDS) -> bytes:
    """Reads a body of at most ``most`` bytes, within ``seconds``.

    Raises:
        BadRequest: It is too long (413), too slow (408) or incomplete (400; by then the client is gone).
    """
    read = b""
    try:
        async with asyncio.timeout(seconds):
            while piece := await request.content.read(most + 1 - len(read)):
                read += piece
                if len(read) > most:
                    raise BadRequest(413, f"The body is longer than the limit of {most:,} bytes.")
    # A connection closed by a TCP timeout raises TimeoutError as well; the difference doesn't matter.
    except TimeoutError as error:
        raise BadRequest(408, f"The body was not received within {seconds:g} seconds.") from error
    except (OSError, web.RequestPayloadError) as error:
        raise BadRequest(400, "The body is incomplete.") from error
    return read
