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
from ipaddress import ip_address
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import TypeAdapter, ValidationError

from waitroom import __version__
from waitroom.cli.api_models import AuditPage, Decisions, Diff, DryRun, History, Room, Rooms, Verdict
from waitroom.errors import WaitroomError

SECONDS = 5.0
# Larger than any response except the whole audit log, which is read line by line.
MOST_BYTES = 16_777_216
PIECE_BYTES = 65_536
PROBLEM = "application/problem+json"
JSON = "application/json"
JSON_LINES = ("application/jsonl", "application/x-ndjson", "application/json-lines")

_ROOMS, _ROOM, _DRY_RUN = TypeAdapter(Rooms), TypeAdapter(Room), TypeAdapter(DryRun)
_DECISIONS = TypeAdapter(Decisions)
_HISTORY, _DIFF, _AUDIT, _VERDICT = (
    TypeAdapter(History),
    TypeAdapter(Diff),
    TypeAdapter(AuditPage),
    TypeAdapter(Verdict),
)
_TOKEN = re.compile(r"[\x21-\x7e]+")

Wanted = TypeVar("Wanted")


class AdminError(WaitroomError):
    """A failed call; one of the two below."""


class NoAnswer(AdminError):  # noqa: N818 - a state of the world, not a mistake
    """No response in time, or the responder is not a gateway.

    Attributes:
        unsure: Whether the request may have been carried out nevertheless.
    """

    def __init__(self, why: str, *, unsure: bool = False) -> None:
        self.unsure = unsure
        super().__init__(why)


class Refused(AdminError):  # noqa: N818 - the gateway's response
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
class Answer(Generic[Wanted]):
    """A response: the parsed value, the raw data, and its tag."""

    value: Wanted
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

    def __init__(self, url: str, token: Callable[[], str | None] = lambda: None, seconds: float = SECONDS) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._seconds = seconds
        try:
            parts = urlsplit(self.url)
            self._port = parts.port
        except ValueError as error:
            raise ValueError(f"isn't a URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("isn't a URL of an admin listener: give one such as http://127.0.0.1:8081")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("has more than an address in it: tokens go into --token-file or WAITROOM_TOKEN")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._prefix = parts.path

    # Queries. All methods from here on raise `NoAnswer` and `Refused`.

    def rooms(self) -> Answer[Rooms]:
        """Returns all rooms."""
        return self._ask(_ROOMS, "GET", "/rooms")

    def room(self, name: str) -> Answer[Room]:
        """Returns one room, with the tag that a change of it requires."""
        return self._ask(_ROOM, "GET", _path(name))

    def history(self, name: str, seconds: int) -> Answer[History]:
        """Returns the room's samples of the last ``seconds``, oldest first."""
        return self._ask(_HISTORY, "GET", _path(name, "history"), query={"seconds": seconds})

    def diff(self, name: str) -> Answer[Diff]:
        """Returns the values of the settings file and those in force."""
        return self._ask(_DIFF, "GET", _path(name, "diff"))

    def decisions(self, name: str, count: int) -> Answer[Decisions]:
        """Returns the latest ``count`` decisions of the room's autopilot, newest first."""
        return self._ask(_DECISIONS, "GET", _path(name, "decisions"), query={"count": count})

    def audit(self, count: int, before: str | None = None) -> Answer[AuditPage]:
        """Returns ``count`` entries, newest first, older than the one with the id ``before``."""
        query: dict[str, object] = {"count": count} | ({} if before is None else {"before": before})
        return self._ask(_AUDIT, "GET", "/audit", query=query)

    def verify(self) -> Answer[Verdict]:
        """Verifies the audit log's hash chain."""
        return self._ask(_VERDICT, "GET", "/audit/verify")

    def export(self) -> Iterator[bytes]:
        """Yields the lines of the whole audit log with their line ends; `NoAnswer` if it is incomplete."""
        with self._answer("GET", "/audit/export") as answer:
            self._expect(answer, JSON_LINES)
            rest = b""
            for piece in _pieces(answer):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line + b"\n" for line in lines)
            if rest:
                yield rest + b"\n"

    # Changes.

    def change(self, name: str, change: Mapping[str, object], tag: str) -> Answer[Room]:
        """Changes a room if ``tag`` is still its version; returns the new state."""
        return self._ask(_ROOM, "PATCH", _path(name), body=change, tag=tag)

    def effect(self, name: str, change: Mapping[str, object], tag: str) -> Answer[DryRun]:
        """Previews a change, without making it."""
        return self._ask(_DRY_RUN, "PATCH", _path(name), query={"dry_run": "true"}, body=change, tag=tag)

    def undo(self, name: str, note: str, tag: str) -> Answer[Room]:
        """Undoes the last change of a room if ``tag`` is still its version."""
        return self._ask(_ROOM, "POST", _path(name, "undo"), body=_noted({}, note), tag=tag)

    def admit(self, name: str, ticket: str, note: str) -> None:
        """Calls the visitor who holds a ticket."""
        self._tell(_path(name, "admit"), _noted({"ticket": ticket}, note))

    def end_session(self, name: str, session: str, note: str) -> None:
        """Ends a session, given its id at the shop."""
        self._tell(_path(name, "end-session"), _noted({"session": session}, note))

    # Transport.

    def _ask(
        self,
        kind: TypeAdapter[Wanted],
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        tag: str | None = None,
    ) -> Answer[Wanted]:
        with self._answer(method, path, query=query, body=body, tag=tag) as answer:
            self._expect(answer, (JSON,))
            try:
                data = json.loads(_whole(answer, self._seconds))
            except (ValueError, RecursionError):
                data = None
            if not isinstance(data, dict):
                raise self._stranger("it answers, but not with a JSON object")
            try:
                return Answer(kind.validate_python(data), data, answer.headers.get("ETag", ""))
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                raise self._stranger(f"{where or 'its answer'} isn't what it should be: {first['msg']}") from None

    def _tell(self, path: str, body: Mapping[str, object]) -> None:
        with self._answer("POST", path, body=body) as answer:
            if answer.status != 204:
                self._expect(answer, (JSON,))

    @contextmanager
    def _answer(
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
        unsure = False
        try:
            connection.connect()
            unsure = method != "GET"
            connection.request(method, target, None if body is None else json.dumps(body).encode(), sent)
            with connection.getresponse() as answer:
                yield answer
        except TimeoutError as error:
            raise NoAnswer(f"{self.url}: nothing came within {self._seconds:g} s", unsure=unsure) from error
        except HTTPException as error:
            why = f"what it says isn't whole, or isn't HTTP ({type(error).__name__})"
            raise self._stranger(why, unsure=unsure) from error
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise NoAnswer(f"{self.url}: {reason}", unsure=unsure) from error
        except Refused as refused:
            refused.had_token = token is not None
            raise
        finally:
            connection.close()

    def _expect(self, answer: HTTPResponse, kinds: tuple[str, ...]) -> None:
        """Raises unless the response is a success with one of these content types."""
        kind = answer.headers.get_content_type()
        if answer.status >= 400 and kind == PROBLEM:
            try:
                problem = json.loads(_whole(answer, self._seconds))
            except (ValueError, RecursionError):
                problem = None
            raise Refused(answer.status, problem if isinstance(problem, dict) else {})
        if answer.status >= 400 and kind == "text/plain":
            said = _whole(answer, self._seconds).decode(errors="replace").strip().partition("\n")[0]
            raise NoAnswer(f"{self.url}: {answer.status}, {said[:300]}")
        if not 200 <= answer.status < 300:
            raise self._stranger(f"it answers {answer.status} to what a gateway knows")
        if kind not in kinds:
            raise self._stranger(f"it answers with {kind}")

    def _stranger(self, why: str, *, unsure: bool = False) -> NoAnswer:
        what = f"{self.url}: what answers there is no Waitroom gateway, or one of another version"
        return NoAnswer(f"{what}: {why}", unsure=unsure)


def checked_token(token: str) -> str:
    """Returns the token if it is well-formed. Raises `AdminError`, which doesn't quote it."""
    if not _TOKEN.fullmatch(token):
        raise AdminError("the token has spaces, line ends or other characters in it that no token has")
    return token


def is_loopback(host: str) -> bool:
    """Whether a host is always this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _whole(answer: HTTPResponse, seconds: float) -> bytes:
    """Reads the body. Each read has the connection's timeout, and all of them together have ``seconds``."""
    until = time.monotonic() + seconds
    body = b""
    for piece in _pieces(answer):
        body += piece
        if time.monotonic() > until:
            raise TimeoutError
        if len(body) > MOST_BYTES:
            raise HTTPException("too long")
    return body


def _pieces(answer: HTTPResponse) -> Iterator[bytes]:
    """Yields the body as it arrives. Raises `HTTPException` if it is incomplete, unlike other ways to read it."""
    while piece := answer.read1(PIECE_BYTES):
        yield piece
    if answer.length:
        raise IncompleteRead(b"", answer.length)


def _path(room: str, *more: str) -> str:
    return "/".join(("/rooms", quote(room, safe=""), *more))


def _noted(body: Mapping[str, object], note: str) -> dict[str, object]:
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
