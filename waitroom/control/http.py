"""Helpers shared by the admin routes: errors as ``application/problem+json`` (RFC 9457), and bounded bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

BODY_TIMEOUT_SECONDS = 10.0
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
    **members: Any,
) -> web.Response:
    """Builds an error response of the API.

    Args:
        status: The HTTP status.
        detail: The cause in this request, and how to correct it.
        kind: The problem type, a URN; "about:blank" if the status says enough.
        title: The title of the problem type.
        errors: Messages by field.
        headers: Response headers.
        members: Additional members.
    """
    body: dict[str, Any] = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = dict(errors)
    text = json.dumps(body | members)
    return web.Response(
        status=status, text=text, content_type=PROBLEM, charset="utf-8", headers={**NO_STORE, **(headers or {})}
    )


class RequestError(Exception):
    """An unreadable request; answered with its status."""

    def __init__(self, status: int, detail: str, errors: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.errors = errors
        super().__init__(detail)


async def read_body(request: web.Request, max_bytes: int, seconds: float = BODY_TIMEOUT_SECONDS) -> bytes:
    """Reads a body of at most ``max_bytes`` bytes, within ``seconds``.

    Raises:
        RequestError: It is too long (413), too slow (408) or incomplete (400; by then the client is gone).
    """
    body = b""
    try:
        async with asyncio.timeout(seconds):
            while chunk := await request.content.read(max_bytes + 1 - len(body)):
                body += chunk
                if len(body) > max_bytes:
                    raise RequestError(413, f"The body is longer than the limit of {max_bytes:,} bytes.")
    # A connection closed by a TCP timeout raises TimeoutError as well; the difference doesn't matter.
    except TimeoutError as error:
        raise RequestError(408, f"The body was not received within {seconds:g} seconds.") from error
    except (OSError, web.RequestPayloadError) as error:
        raise RequestError(400, "The body is incomplete.") from error
    return body
