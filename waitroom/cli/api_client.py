"""A small client of the admin API, for commands: one call at a time, each bounded in time and size.

It carries a token, so it connects only to the given address: no proxy from the environment, no redirects.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import TypeAdapter, ValidationError

from waitroom import __version__
from waitroom.cli.api_models import (
    AuditPage,
    Decisions,
    Diff,
    DryRun,
    Event,
    EventReport,
    Events,
    History,
    Room,
    Rooms,
    SaleLink,
    Verdict,
)
from waitroom.errors import WaitroomError

TIMEOUT_SECONDS = 5.0
# Larger than any response except the whole audit log, which is read line by line.
MAX_BYTES = 16_777_216
CHUNK_BYTES = 65_536
PROBLEM = "application/problem+json"
JSON = "application/json"
CSV = "text/csv"
JSON_LINES = ("application/jsonl", "application/x-ndjson", "application/json-lines")

_ROOMS, _ROOM, _DRY_RUN = TypeAdapter(Rooms), TypeAdapter(Room), TypeAdapter(DryRun)
_DECISIONS, _SALE_LINK = TypeAdapter(Decisions), TypeAdapter(SaleLink)
_EVENT, _EVENTS, _REPORT = TypeAdapter(Event), TypeAdapter(Events), TypeAdapter(EventReport)
_HISTORY, _DIFF, _AUDIT, _VERDICT = (
    TypeAdapter(History),
    TypeAdapter(Diff),
    TypeAdapter(AuditPage),
    TypeAdapter(Verdict),
)
_TOKEN = re.compile(r"[\x21-\x7e]+")

T = TypeVar("T")


class AdminError(WaitroomError):
    """A failed call; one of the two below."""


class NoResponseError(AdminError):
    """No response in time, or the responder is not a gateway.

    Attributes:
        maybe_done: Whether the request may have been carried out nevertheless.
    """

    def __init__(self, why: str, *, maybe_done: bool = False) -> None:
        self.maybe_done = maybe_done
        super().__init__(why)


class RejectedError(AdminError):
    """The gateway rejected the call.

    Attributes:
        status: The response's status: 400 and above.
        detail: The reason, in a sentence; may be empty.
        errors: The problems of the fields sent, by field.
        room: The current state of the room, if the change was based on stale values.
        had_token: Whether the call carried a token.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.detail = _text(problem.get("detail")) or _text(problem.get("title")) or f"status {status}"
        self.errors = _errors(problem.get("errors"))
        self.room = _room(problem.get("room"))
        self.had_token = False
        super().__init__(self.detail)


@dataclass(frozen=True, slots=True)
class ApiResponse(Generic[T]):
    """A response: the parsed value, the raw data, and its tag."""

    value: T
    raw: dict[str, Any]
    tag: str


class AdminClient:
    """The admin API of one gateway.

    Args:
        url: The admin listener, such as ``http://127.0.0.1:8081``.
        token: Returns the bearer token, or None; called before each request, since a restarted gateway may have created
            a new one.
        seconds: The timeout of a call.

    Raises:
        ValueError: ``url`` is invalid; the message is for the user who entered it.
    """

    def __init__(
        self, url: str, token: Callable[[], str | None] = lambda: None, seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._seconds = seconds
        try:
            parts = urlsplit(self.url)
            self._port = parts.port
        except ValueError as error:
            raise ValueError(f"isn't a URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("isn't the URL of an admin listener; use one such as http://127.0.0.1:8081")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must be only an address: pass tokens by --token-file or WAITROOM_TOKEN")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._prefix = parts.path

    # Queries. All methods from here on raise `NoResponseError` and `RejectedError`.

    def rooms(self) -> ApiResponse[Rooms]:
        """Returns all rooms."""
        return self._request_json(_ROOMS, "GET", "/rooms")

    def room(self, name: str) -> ApiResponse[Room]:
        """Returns one room, with the tag that a change of it requires."""
        return self._request_json(_ROOM, "GET", _path(name))

    def history(self, name: str, seconds: int) -> ApiResponse[History]:
        """Returns the room's samples of the last ``seconds``, oldest first."""
        return self._request_json(_HISTORY, "GET", _path(name, "history"), query={"seconds": seconds})

    def diff(self, name: str) -> ApiResponse[Diff]:
        """Returns the values of the settings file and those in force."""
        return self._request_json(_DIFF, "GET", _path(name, "diff"))

    def decisions(self, name: str, count: int) -> ApiResponse[Decisions]:
        """Returns the latest ``count`` decisions of the room's autopilot, newest first."""
        return self._request_json(_DECISIONS, "GET", _path(name, "decisions"), query={"count": count})

    def audit(self, count: int, before: str | None = None) -> ApiResponse[AuditPage]:
        """Returns ``count`` entries, newest first, older than the one with the id ``before``."""
        query: dict[str, object] = {"count": count} | ({} if before is None else {"before": before})
        return self._request_json(_AUDIT, "GET", "/audit", query=query)

    def verify(self) -> ApiResponse[Verdict]:
        """Verifies the audit log's hash chain."""
        return self._request_json(_VERDICT, "GET", "/audit/verify")

    def export(self) -> Iterator[bytes]:
        """Yields the lines of the whole audit log with their line ends; `NoResponseError` if it is incomplete."""
        with self._open("GET", "/audit/export") as response:
            self._check_response(response, JSON_LINES)
            rest = b""
            for piece in _chunks(response):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line + b"\n" for line in lines)
            if rest:
                yield rest + b"\n"

    def events(self, name: str) -> ApiResponse[Events]:
        """Returns the events and the timeline of a room."""
        return self._request_json(_EVENTS, "GET", _path(name, "events"))

    def event_report(self, name: str, event: str) -> ApiResponse[EventReport]:
        """Returns the report of an event."""
        return self._request_json(_REPORT, "GET", _path(name, "events", event, "report"))

    def event_csv(self, name: str, event: str, file: str) -> bytes:
        """Returns a file of an event: ``report.csv`` or ``samples.csv``."""
        with self._open("GET", _path(name, "events", event, file)) as response:
            self._check_response(response, (CSV,))
            return _read_body(response, self._seconds)

    # Changes.

    def change(self, name: str, change: Mapping[str, object], tag: str) -> ApiResponse[Room]:
        """Changes a room if ``tag`` is still its version; returns the new state."""
        return self._request_json(_ROOM, "PATCH", _path(name), body=change, tag=tag)

    def preview(self, name: str, change: Mapping[str, object], tag: str) -> ApiResponse[DryRun]:
        """Previews a change, without making it."""
        return self._request_json(_DRY_RUN, "PATCH", _path(name), query={"dry_run": "true"}, body=change, tag=tag)

    def undo(self, name: str, note: str, tag: str) -> ApiResponse[Room]:
        """Undoes the last change of a room if ``tag`` is still its version."""
        return self._request_json(_ROOM, "POST", _path(name, "undo"), body=_with_note({}, note), tag=tag)

    def set_event(self, name: str, event: str, values: Mapping[str, object], note: str, tag: str) -> ApiResponse[Event]:
        """Schedules or changes an event if ``tag`` is still the room's version; returns the new state."""
        return self._request_json(_EVENT, "PUT", _path(name, "events", event), body=_with_note(values, note), tag=tag)

    def move_event(self, name: str, event: str, move: str, note: str, tag: str) -> ApiResponse[Event]:
        """Starts, ends or cancels an event if ``tag`` is still the room's version."""
        return self._request_json(
            _EVENT, "POST", _path(name, "events", event, move), body=_with_note({}, note), tag=tag
        )

    def preview_event(
        self, name: str, event: str, move: str, values: Mapping[str, object], tag: str
    ) -> ApiResponse[DryRun]:
        """Previews a change of an event, without making it; ``move`` as for `move_event`, "" for `set_event`."""
        method, path = ("POST", (event, move)) if move else ("PUT", (event,))
        query = {"dry_run": "true"}
        return self._request_json(_DRY_RUN, method, _path(name, "events", *path), query=query, body=values, tag=tag)

    def admit(self, name: str, ticket: str, note: str) -> None:
        """Calls the visitor who holds a ticket."""
        self._send(_path(name, "admit"), _with_note({"ticket": ticket}, note))

    def end_session(self, name: str, session: str, note: str) -> None:
        """Ends a session, given its id at the shop."""
        self._send(_path(name, "end-session"), _with_note({"session": session}, note))

    def create_sale_link(self, name: str, hours: int, note: str) -> ApiResponse[SaleLink]:
        """Creates a link to the room's sale page."""
        return self._request_json(
            _SALE_LINK, "POST", _path(name, "sale-links"), body=_with_note({"hours": hours}, note)
        )

    def revoke_sale_links(self, name: str) -> None:
        """Revokes all links to the room's sale page."""
        self._send(_path(name, "sale-links"), method="DELETE")

    # Transport.

    def _request_json(
        self,
        kind: TypeAdapter[T],
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        tag: str | None = None,
    ) -> ApiResponse[T]:
        with self._open(method, path, query=query, body=body, tag=tag) as response:
            self._check_response(response, (JSON,))
            try:
                data = json.loads(_read_body(response, self._seconds))
            except (ValueError, RecursionError):
                data = None
            if not isinstance(data, dict):
                raise self._not_a_gateway("the response isn't a JSON object")
            try:
                return ApiResponse(kind.validate_python(data), data, response.headers.get("ETag", ""))
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                raise self._not_a_gateway(f"invalid {where or 'response'}: {first['msg']}") from None

    def _send(self, path: str, body: Mapping[str, object] | None = None, *, method: str = "POST") -> None:
        with self._open(method, path, body=body) as response:
            if response.status != 204:
                self._check_response(response, (JSON,))

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        tag: str | None = None,
    ) -> Iterator[HTTPResponse]:
        target = f"{self._prefix}/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        sent = {"Accept": f"{JSON}, {PROBLEM}", "User-Agent": f"waitroom-cli/{__version__}"}
        token = self._token()
        if token is not None:
            sent["Authorization"] = f"Bearer {checked_token(token)}"
        if tag is not None:
            sent["If-Match"] = tag
        if body is not None:
            sent["Content-Type"] = JSON
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=self._seconds)
        maybe_done = False
        try:
            connection.connect()
            maybe_done = method != "GET"
            connection.request(method, target, None if body is None else json.dumps(body).encode(), sent)
            with connection.getresponse() as response:
                yield response
        except TimeoutError as error:
            raise NoResponseError(
                f"{self.url}: no response within {self._seconds:g} s", maybe_done=maybe_done
            ) from error
        except HTTPException as error:
            why = f"incomplete or invalid HTTP ({type(error).__name__})"
            raise self._not_a_gateway(why, maybe_done=maybe_done) from error
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise NoResponseError(f"{self.url}: {reason}", maybe_done=maybe_done) from error
        except RejectedError as error:
            error.had_token = token is not None
            raise
        finally:
            connection.close()

    def _check_response(self, response: HTTPResponse, kinds: tuple[str, ...]) -> None:
        """Raises unless the response is a success with one of these content types."""
        kind = response.headers.get_content_type()
        if response.status >= 400 and kind == PROBLEM:
            try:
                problem = json.loads(_read_body(response, self._seconds))
            except (ValueError, RecursionError):
                problem = None
            raise RejectedError(response.status, problem if isinstance(problem, dict) else {})
        if response.status >= 400 and kind == "text/plain":
            line = _read_body(response, self._seconds).decode(errors="replace").strip().partition("\n")[0]
            raise NoResponseError(f"{self.url}: {response.status}, {line[:300]}")
        if not 200 <= response.status < 300:
            raise self._not_a_gateway(f"unexpected status {response.status}")
        if kind not in kinds:
            raise self._not_a_gateway(f"unexpected content type {kind}")

    def _not_a_gateway(self, why: str, *, maybe_done: bool = False) -> NoResponseError:
        what = f"{self.url}: not a Waitroom gateway, or an incompatible version"
        return NoResponseError(f"{what}: {why}", maybe_done=maybe_done)


def checked_token(token: str) -> str:
    """Returns the token if it is well-formed. Raises `AdminError`, which doesn't quote it."""
    if not _TOKEN.fullmatch(token):
        raise AdminError("the token contains invalid characters, such as spaces or line breaks")
    return token


def _read_body(response: HTTPResponse, seconds: float) -> bytes:
    """Reads the body. Each read has the connection's timeout, and all of them together have ``seconds``."""
    until = time.monotonic() + seconds
    body = b""
    for piece in _chunks(response):
        body += piece
        if time.monotonic() > until:
            raise TimeoutError
        if len(body) > MAX_BYTES:
            raise HTTPException("too long")
    return body


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Yields the body as it arrives. Raises `HTTPException` if it is incomplete, unlike other ways to read it."""
    while piece := response.read1(CHUNK_BYTES):
        yield piece
    if response.length:
        raise IncompleteRead(b"", response.length)


def _path(room: str, *more: str) -> str:
    return "/".join(("/rooms", *(quote(part, safe="") for part in (room, *more))))


def _with_note(body: Mapping[str, object], note: str) -> dict[str, object]:
    return {**body, **({"note": note} if note else {})}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _errors(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): text if isinstance(text, str) else json.dumps(text) for key, text in value.items()}


def _room(value: object) -> Room | None:
    try:
        return _ROOM.validate_python(value)
    except ValidationError:
        return None
