"""Errors of the admin API as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from waitroom.control.http import RequestError, problem
from waitroom.control.rooms.changes import InvalidChangeError, RoomStateError, StaleVersionError, UnknownEventError
from waitroom.control.rooms.event_reports import NoReportError
from waitroom.control.rooms.shop_api import UnknownSessionError
from waitroom.errors import StoreUnavailable


def problem_responses(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Callable[..., Any]:
    """Wraps an API handler: the errors it raises deliberately become problem responses."""

    async def respond(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except RequestError as error:
            return problem(error.status, str(error), errors=error.errors)
        except InvalidChangeError as error:
            kind, title = "urn:waitroom:problem:bad-change", "Invalid change"
            return problem(422, str(error), kind=kind, title=title, errors=error.problems)
        except RoomStateError as error:
            kind, title = "urn:waitroom:problem:not-possible", "Conflict with the state of the room"
            return problem(409, str(error), kind=kind, title=title)
        except UnknownSessionError as error:
            return problem(404, str(error), kind="urn:waitroom:problem:unknown-session", title="Unknown session")
        except UnknownEventError as error:
            return problem(404, str(error), kind="urn:waitroom:problem:unknown-event", title="Unknown event")
        except NoReportError as error:
            return problem(404, str(error), kind="urn:waitroom:problem:no-report", title="No report")
        except StoreUnavailable as error:
            kind, title = "urn:waitroom:problem:store", "Store unavailable"
            detail = f"{error}. Read the room before you retry a change: it may have been applied."
            return problem(503, detail, kind=kind, title=title, headers={"Retry-After": "1"})

    return respond


def stale_version(error: StaleVersionError, room: Mapping[str, Any]) -> web.Response:
    """The response to a change based on stale values; ``room`` is its current state."""
    kind, title = "urn:waitroom:problem:stale-version", "Stale version"
    headers = {"ETag": f'"{error.version}"'}
    return problem(412, str(error), kind=kind, title=title, headers=headers, room=room)


@web.middleware
async def api_problems(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turns the router's own errors (404, 405) into problem responses under the API's paths."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        if not request.path.startswith("/api/"):
            raise
        headers = {name: error.headers[name] for name in ("Allow", "WWW-Authenticate") if name in error.headers}
        return problem(error.status, (error.text or error.reason).strip(), headers=headers)
    return response
