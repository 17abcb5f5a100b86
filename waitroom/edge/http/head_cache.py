"""A cache of whole heads that recur, so that each is parsed once.

A browser's requests differ in little but the target and the cookies, a shop's responses in little but the date. The one
line that always differs is cut out; a head that is otherwise identical, to the byte, was parsed before, and everything
derived from it is found again as well. In a new head, most lines have been seen before (`http/fields.py`).
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from waitroom.bounded import put
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.message import Request, Response, parse_request, parse_response, response_parts

MAX_HEADS = 2048
MAX_HEAD_BYTES = 2048
MAX_SEEN_ONCE = 8192

_COOKIE, _DATE = b"\r\nCookie: ", b"\r\nDate: "
# The bytes that a header's value may contain.
_VALUE = bytes(code for code in range(256) if code == 0x09 or 0x20 <= code != 0x7F)
# Headers specific to one visitor: heads with them never recur from anybody else.
_PERSONAL = frozenset(
    (
        *(b"authorization", b"proxy-authorization"),
        *(b"waitroom-ticket", b"waitroom-pass", b"waitroom-arrival", b"waitroom-shown"),
    )
)
_PERSONAL_RESPONSE = frozenset((b"set-cookie", b"waitroom-command"))

Head = TypeVar("Head", Request, Response)


class _SeenTwiceCache(Generic[Head]):
    """Heads that were received twice, so that heads received only once displace none of them.

    Attributes:
        entries: The heads, by the bytes left after cutting a line out and by where it was cut. The same bytes cut
            elsewhere, or not at all, would be something else, such as two messages.
    """

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[int, Head]] = {}
        self._seen_once: set[int] = set()

    def put(self, key: bytes, at: int, head: Head) -> None:
        if len(key) > MAX_HEAD_BYTES:
            return
        fingerprint = hash(key)
        if fingerprint not in self._seen_once:
            if len(self._seen_once) >= MAX_SEEN_ONCE:
                self._seen_once.clear()
            self._seen_once.add(fingerprint)
            return
        self._seen_once.discard(fingerprint)
        put(self.entries, key, (at, head), MAX_HEADS)


class RequestHeadCache:
    """Parses requests' heads, like `parse_request`."""

    def __init__(self) -> None:
        # Newcomers' and returning visitors' heads differ only in the cookies.
        self._without_cookies: _SeenTwiceCache[Request] = _SeenTwiceCache()
        self._with_cookies: _SeenTwiceCache[Request] = _SeenTwiceCache()

    def parse(self, head: bytes) -> tuple[Request, Sequence[bytes]]:
        """See `parse_request`."""
        return self.find(head) or self._parse_new(head)

    def find(self, received: bytes) -> tuple[Request, Sequence[bytes]] | None:
        """The result of `parse` for a head seen before; None for a new one, and for anything but exactly one head."""
        at = received.rfind(_COOKIE)  # browsers send cookies last
        if at < 0:
            known = self._without_cookies.entries.get(received)
            return None if known is None else (known[1], ())
        end = received.find(b"\r\n", at + 2)
        known = self._with_cookies.entries.get(received[: at + 2] + received[end:])
        if known is None or known[0] != at:
            return None
        value = received[at + 10 : end]
        return None if value.translate(None, _VALUE) else (known[1], (value.strip(b" \t"),))

    def _parse_new(self, head: bytes) -> tuple[Request, Sequence[bytes]]:
        request, cookies = parse_request(head)
        at = head.rfind(_COOKIE)
        key = head if at < 0 else head[: at + 2] + head[head.find(b"\r\n", at + 2) :]
        personal = any(field.lower in _PERSONAL for field in request.headers)
        if len(cookies) == (0 if at < 0 else 1) and not personal:
            (self._without_cookies if at < 0 else self._with_cookies).put(key, at, request)
        return request, cookies


class ResponseHeadCache:
    """Parses responses' heads, like `parse_response`."""

    def __init__(self) -> None:
        self._cache: _SeenTwiceCache[Response] = _SeenTwiceCache()
        self._entries = self._cache.entries

    def parse(self, head: bytes) -> tuple[Response, HeaderBlock]:
        """Parses a head including its empty line; returns it and the line of its date, if that is kept separately.

        Raises:
            MalformedError: It isn't a response that may be forwarded. The status is 502.
        """
        at = head.find(_DATE)
        if at < 0:
            return parse_response(head), b""
        end = head.find(b"\r\n", at + 2)
        key = head[: at + 2] + head[end:]
        known = self._entries.get(key)
        value = head[at + 8 : end]
        if known is None or known[0] != at or value.translate(None, _VALUE):
            return self._parse_new(head, key, at)
        return known[1], b"Date: %b\r\n" % value.strip(b" \t")

    def _parse_new(self, head: bytes, key: bytes, cut_at: int) -> tuple[Response, HeaderBlock]:
        status, reason, http10, fields = response_parts(head)
        names = [field.lower for field in fields]
        if names.count(b"date") != 1 or not _PERSONAL_RESPONSE.isdisjoint(names):
            return Response(status, reason, http10, fields), b""
        at = names.index(b"date")
        response = Response(status, reason, http10, [*fields[:at], *fields[at + 1 :]], dated=True, date_at=at)
        if b"date" in response.connection:
            return response, b""
        self._cache.put(key, cut_at, response)
        return response, fields[at].line
