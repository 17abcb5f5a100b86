"""The visitors' pages: the waiting page, in every state of its room, and the error pages.

A page is rendered once for each room, language, kind and set of available values; a visitor's own values are then
inserted by joining bytes, which takes a few microseconds per page. The templates are in ``templates/``; a room's
``template`` setting replaces the waiting page with an operator's own (docs/waiting-page.md).
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

from markupsafe import escape

from waitroom.edge.pages.custom_template import CustomTemplate
from waitroom.edge.pages.i18n import DEFAULT_LANGUAGE, Languages
from waitroom.edge.pages.messages import (
    COOKIES_MESSAGE,
    LEFT_MESSAGE,
    ROOM_MESSAGES,
    SCRIPT_MESSAGES,
    Message,
    PageKind,
    error_message,
)
from waitroom.edge.pages.segments import CompiledPage, compile_slots
from waitroom.edge.pages.templates import Slot, environment, inspect, policy
from waitroom.errors import Problem, SettingsError
from waitroom.resources import resource_path
from waitroom.settings import RoomSettings

__all__ = ["PageKind", "PageValues", "Pages"]

# Pages of about 12 KB; an operator's own may have ten times that.
_MAX_CACHED_PAGES = 256
_MAX_CACHED_ETAS = 4096

_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})

_SLOTS = (
    "position",
    "position_number",
    "start_number",
    "waiting",
    "remaining",
    "eta",
    "progress",
    "poll_after",
    "message",
    "updated_at",
    "updated_time",
    "request_id",
)

# Values that may be missing; each adds a bit to a page's variant. A template sees None for a missing value.
_HAS_POSITION, _HAS_START, _HAS_WAITING, _HAS_REMAINING, _HAS_ETA, _HAS_MESSAGE = (1 << bit for bit in range(6))
_FULL_SHAPE = (1 << 6) - 1
_EVERY_SHAPE = range(_FULL_SHAPE, -1, -1)
_NEEDS = {
    "position": _HAS_POSITION,
    "position_number": _HAS_POSITION,
    "start_number": _HAS_START,
    "waiting": _HAS_WAITING,
    "remaining": _HAS_REMAINING,
    "eta": _HAS_ETA,
    "progress": _HAS_POSITION | _HAS_START,
    "message": _HAS_MESSAGE,
}

_ROOM_KINDS = tuple(ROOM_MESSAGES)
# Kinds that no visitor's status has.
_WITHOUT_STATUS = frozenset({PageKind.HELD, PageKind.BUSY})


@dataclass(slots=True)
class PageValues:
    """One visitor's numbers at one moment.

    Attributes:
        position: The number of visitors ahead, plus one; None if there is no queue to be in or it is unknown.
        waiting: The total number of waiting visitors, or None.
        eta: The shortest and the longest expected wait, in seconds, or None if unknown.
        start_position: The position at the time of joining, for the progress bar, or None.
        poll_after: Seconds until the page's next poll.
        message: The operator's message, plain text; empty for none.
        updated_at: The time of these numbers; aware, UTC.
        request_id: The id that support asks for.
        remaining: How many units are left, if the shop reports it, or None.
        position_reason: Why the position rose, a key of `SCRIPT_MESSAGES`; empty if it didn't.
    """

    position: int | None
    waiting: int | None
    eta: tuple[int, int] | None
    start_position: int | None
    poll_after: int
    message: str
    updated_at: datetime
    request_id: str
    remaining: int | None = None
    position_reason: str = ""


class Pages:
    """All pages of all rooms.

    Args:
        rooms: The rooms; an operator's own templates are compiled and tested here.

    Attributes:
        csp: The value of the Content-Security-Policy header for every page.

    Raises:
        SettingsError: An operator's template can't be read, is broken, or prints output that no browser would use.
    """

    def __init__(self, rooms: Sequence[RoomSettings]) -> None:
        folder = resource_path("templates")
        self._languages = Languages(folder / "locale")
        waitroom_environment = environment(folder)
        waiting = waitroom_environment.get_template("waitroom/waiting.html")
        self._error_template = waitroom_environment.get_template("waitroom/error.html")
        self._templates = {room.name: waiting for room in rooms}
        self._keep_place_seconds = {room.name: room.keep_place_seconds for room in rooms}

        inline = [inspect(self._render_plain(LEFT_MESSAGE, False, DEFAULT_LANGUAGE))]
        problems: list[Problem] = []
        for index, room in enumerate(rooms):
            if room.template is None:
                page = self._render_room(room.name, PageKind.WAITING, DEFAULT_LANGUAGE, _FULL_SHAPE)
                inline.append(inspect(page))
                continue
            custom = CustomTemplate(Path(room.template), folder, f'rooms[{index}] "{room.name}".template')
            if custom.template is not None:
                self._templates[room.name] = custom.template
                inline += custom.check(self._renderings(room.name))
            problems += custom.problems
        if problems:
            raise SettingsError(problems)
        self.csp = policy(inline, custom=any(room.template is not None for room in rooms))

        self._room_page: Callable[[str, PageKind, str, int], CompiledPage] = lru_cache(_MAX_CACHED_PAGES)(
            self._compile_room
        )
        self._plain_page: Callable[[Message, bool, str], CompiledPage] = lru_cache(_MAX_CACHED_PAGES)(
            self._compile_plain
        )
        self._eta: Callable[[str, int, int], bytes] = lru_cache(_MAX_CACHED_ETAS)(self._eta_bytes)

    def language(self, accept_language: bytes | None) -> str:
        """Return the code of the language that best matches an ``Accept-Language`` header, else ``en``."""
        return self._languages.negotiate(accept_language)

    def room_page(self, room: str, kind: PageKind, language: str, values: PageValues) -> bytes:
        """Return the waiting page, UTF-8.

        Args:
            room: The room's name.
            kind: The state to show; any but ``PageKind.ERROR``.
            language: A code that ``language`` returned.
            values: The visitor's numbers.
        """
        position, start, eta = values.position, values.start_position, values.eta
        shape = 0
        place = place_number = start_number = waiting = remaining = wait = progress = message = b""
        number = self._languages.by_code[language].number
        if position is not None:
            shape = _HAS_POSITION
            place, place_number = number(position).encode(), b"%d" % position
        if start is not None:
            shape |= _HAS_START
            start_number = b"%d" % start
            if position is not None:
                progress = b"%d" % _progress(position, start)
        if values.waiting is not None:
            shape |= _HAS_WAITING
            waiting = number(values.waiting).encode()
        if values.remaining is not None:
            shape |= _HAS_REMAINING
            remaining = number(values.remaining).encode()
        if eta is not None:
            shape |= _HAS_ETA
            wait = self._eta(language, eta[0], eta[1])
        text = values.message
        if values.position_reason:
            reason = self._languages.by_code[language].gettext(SCRIPT_MESSAGES[values.position_reason])
            text = f"{reason} {text}".rstrip()
        if text:
            shape |= _HAS_MESSAGE
            message = _escaped(text)
        updated_at, updated_time = _moment(values.updated_at)
        return self._room_page(room, kind, language, shape).render(
            (
                place,
                place_number,
                start_number,
                waiting,
                remaining,
                wait,
                progress,
                b"%d" % values.poll_after,
                message,
                updated_at,
                updated_time,
                _id_bytes(values.request_id),
            )
        )

    def error_page(self, status: int, language: str, request_id: str) -> bytes:
        """Return the page for an HTTP error status, UTF-8."""
        return self._plain(error_message(status), status in _RETRYABLE, language, request_id)

    def error_text(self, status: int, language: str) -> str:
        """Return the text of the error page, as one plain text."""
        _ = self._languages.by_code[language].gettext
        message = error_message(status)
        return f"{_(message.heading)}. {_(message.lead)}"

    def cookies_page(self, language: str, request_id: str) -> bytes:
        """Return the page for someone whose browser keeps no cookies, UTF-8."""
        return self._plain(COOKIES_MESSAGE, False, language, request_id)

    def left_page(self, language: str, request_id: str) -> bytes:
        """Return the page for someone who gave up their place or session, UTF-8."""
        return self._plain(LEFT_MESSAGE, False, language, request_id)

    def _plain(self, message: Message, again: bool, language: str, request_id: str) -> bytes:
        return self._plain_page(message, again, language).render((_id_bytes(request_id),))

    def _compile_room(self, room: str, kind: PageKind, language: str, shape: int) -> CompiledPage:
        return compile_slots(self._render_room(room, kind, language, shape), _SLOTS)

    def _compile_plain(self, message: Message, again: bool, language: str) -> CompiledPage:
        return compile_slots(self._render_plain(message, again, language), ("request_id",))

    def _eta_bytes(self, language: str, low: int, high: int) -> bytes:
        return escape(self._languages.by_code[language].wait(low, high)).encode()

    def _render_room(self, room: str, kind: PageKind, language: str, shape: int) -> str:
        spoken = self._languages.by_code[language]
        _ = spoken.gettext
        slots = {name: Slot(name) if shape & _NEEDS.get(name, 0) == _NEEDS.get(name, 0) else None for name in _SLOTS}
        return self._templates[room].render(
            _=_,
            language=language,
            direction=spoken.direction,
            room=room,
            kind=str(kind),
            heading=_(ROOM_MESSAGES[kind].heading),
            lead=_(ROOM_MESSAGES[kind].lead),
            keep_place=spoken.span(self._keep_place_seconds[room]),
            # The page itself contains the text of its own state.
            other_states={
                str(each): [_(message.heading), _(message.lead)]
                for each, message in ROOM_MESSAGES.items()
                if each is not kind and each not in _WITHOUT_STATUS
            },
            script_messages={name: _(sentence) for name, sentence in SCRIPT_MESSAGES.items()},
            **slots,
        )

    def _render_plain(self, message: Message, again: bool, language: str) -> str:
        spoken = self._languages.by_code[language]
        _ = spoken.gettext
        return self._error_template.render(
            _=_,
            language=language,
            direction=spoken.direction,
            kind=str(PageKind.ERROR),
            heading=_(message.heading),
            lead=_(message.lead),
            again=again,
            request_id=Slot("request_id"),
        )

    def _renderings(self, room: str) -> Iterator[Callable[[], str]]:
        """Yield all the variants of an operator's template that may be needed, so that none fails later.

        The fullest pages come first: their errors are the most informative.
        """
        for kind in _ROOM_KINDS:
            for language in self._languages.by_code:
                for shape in _EVERY_SHAPE if language == DEFAULT_LANGUAGE else (_FULL_SHAPE, 0):
                    yield partial(self._render_room, room, kind, language, shape)


def _progress(position: int, start: int) -> int:
    """Return how much of the queue is behind a visitor, in percent; the waiting page's script does the same."""
    return max(0, min(100, 100 * (start - position) // start)) if start > 0 else 0


def _id_bytes(request_id: str) -> bytes:
    """Return the id, escaped; our own ids never need escaping, and checking that takes a tenth of the time."""
    return (request_id if request_id.isalnum() else escape(request_id)).encode()


@lru_cache(maxsize=256)
def _escaped(message: str) -> bytes:
    return escape(message).encode()


@lru_cache(maxsize=256)
def _moment(at: datetime) -> tuple[bytes, bytes]:
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%SZ}".encode(), f"{at:%H:%M:%S} UTC".encode()
