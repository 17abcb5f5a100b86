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
from waitroom.edge.pages.event_notice import EventNotice
from waitroom.edge.pages.i18n import DEFAULT_LANGUAGE, Languages
from waitroom.edge.pages.messages import (
    COOKIES_MESSAGE,
    COUNTDOWN_LABELS,
    KIND_OF_TEXT,
    LEFT_MESSAGE,
    PLAN_MESSAGES,
    SCRIPT_MESSAGES,
    TEXTS,
    Message,
    PageKind,
    PageText,
    error_message,
)
from waitroom.edge.pages.segments import CompiledPage, compile_slots
from waitroom.edge.pages.templates import Slot, environment, inspect, policy
from waitroom.edge.pages.times import rfc3339
from waitroom.errors import Problem, SettingsError
from waitroom.resources import resource_path
from waitroom.settings import RoomSettings

__all__ = ["PageKind", "PageValues", "Pages"]

# Pages of about 12 KB; an operator's own may have ten times that.
_MAX_CACHED_PAGES = 256
_MAX_CACHED_ETAS = 4096

_NO_EVENT: tuple[bytes, ...] = (b"",) * 8
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
    "now_ms",
    "event_key",
    "event_title",
    "event_plan",
    "countdown_label",
    "countdown",
    "queue_opens_at",
    "queue_opens_time",
    "starts_at",
    "starts_time",
)

# Values that may be missing; each adds a bit to a page's variant. A template sees None for a missing value.
_HAS_POSITION, _HAS_START, _HAS_WAITING, _HAS_REMAINING, _HAS_ETA, _HAS_MESSAGE = (1 << bit for bit in range(6))
_EVERY_NUMBER = (1 << 6) - 1
_HAS_EVENT, _HAS_TITLE, _HAS_OPENING, _LIKELY_SOLD_OUT = (1 << bit for bit in range(6, 10))
_EVERY_EVENT = (_HAS_EVENT | _HAS_TITLE | _HAS_OPENING, _HAS_EVENT | _HAS_TITLE, _HAS_EVENT | _HAS_OPENING, _HAS_EVENT)
_FULL_SHAPE = (1 << 10) - 1
_NEEDS = {
    "position": _HAS_POSITION,
    "position_number": _HAS_POSITION,
    "start_number": _HAS_START,
    "waiting": _HAS_WAITING,
    "remaining": _HAS_REMAINING,
    "eta": _HAS_ETA,
    "progress": _HAS_POSITION | _HAS_START,
    "message": _HAS_MESSAGE,
    "event_key": _HAS_EVENT,
    "event_title": _HAS_TITLE,
    "event_plan": _HAS_EVENT,
    "countdown_label": _HAS_EVENT,
    "countdown": _HAS_EVENT,
    "queue_opens_at": _HAS_OPENING,
    "queue_opens_time": _HAS_OPENING,
    "starts_at": _HAS_EVENT,
    "starts_time": _HAS_EVENT,
}

# Kinds of pages with a countdown.
_WITH_EVENT = frozenset({PageKind.PREQUEUE, PageKind.CLOSED, PageKind.SOLD_OUT})
# Texts that no visitor's status has.
_WITHOUT_STATUS = frozenset({PageText.HELD, PageText.BUSY})


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
        position_reason: Why the position rose or how it was found, a key of `SCRIPT_MESSAGES`; empty for neither.
        text: The texts of the page; None for those of its kind.
        now_ms: The time, by the server's clock: Unix time in milliseconds.
        notice: The event whose next phase the visitor waits for.
        likely_sold_out: Whether the visitors ahead will probably buy all that is left.
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
    text: PageText | None = None
    now_ms: int = 0
    notice: EventNotice | None = None
    likely_sold_out: bool = False


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
                page = self._render_room(room.name, PageText.WAITING, DEFAULT_LANGUAGE, _FULL_SHAPE)
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

        self._room_page: Callable[[str, PageText, str, int], CompiledPage] = lru_cache(_MAX_CACHED_PAGES)(
            self._compile_room
        )
        self._plain_page: Callable[[Message, bool, str], CompiledPage] = lru_cache(_MAX_CACHED_PAGES)(
            self._compile_plain
        )
        self._eta: Callable[[str, int, int], bytes] = lru_cache(_MAX_CACHED_ETAS)(self._eta_bytes)
        self._countdown: Callable[[str, int], bytes] = lru_cache(_MAX_CACHED_ETAS)(self._countdown_bytes)
        self._event: Callable[[str, EventNotice], tuple[bytes, ...]] = lru_cache(_MAX_CACHED_PAGES)(self._event_bytes)

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
        if values.likely_sold_out:
            shape |= _LIKELY_SOLD_OUT
        event, countdown = _NO_EVENT, b""
        notice = values.notice
        if notice is not None:
            shape |= _HAS_EVENT
            if notice.title:
                shape |= _HAS_TITLE
            if notice.queue_opens_at is not None:
                shape |= _HAS_OPENING
            event = self._event(language, notice)
            countdown = self._countdown(language, max(0, -(-(notice.next_ms - values.now_ms) // 1000)))
        key, title, plan, label, queue_opens_at, queue_opens_time, starts_at, starts_time = event
        updated_at, updated_time = _moment(values.updated_at)
        return self._room_page(room, values.text or PageText(kind), language, shape).render(
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
                b"%d" % values.now_ms,
                key,
                title,
                plan,
                label,
                countdown,
                queue_opens_at,
                queue_opens_time,
                starts_at,
                starts_time,
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

    def _compile_room(self, room: str, text: PageText, language: str, shape: int) -> CompiledPage:
        return compile_slots(self._render_room(room, text, language, shape), _SLOTS)

    def _compile_plain(self, message: Message, again: bool, language: str) -> CompiledPage:
        return compile_slots(self._render_plain(message, again, language), ("request_id",))

    def _eta_bytes(self, language: str, low: int, high: int) -> bytes:
        return escape(self._languages.by_code[language].wait(low, high)).encode()

    def _countdown_bytes(self, language: str, seconds: int) -> bytes:
        spoken = self._languages.by_code[language]
        return escape(spoken.span(seconds) if seconds else spoken.gettext(SCRIPT_MESSAGES["due"])).encode()

    def _event_bytes(self, language: str, notice: EventNotice) -> tuple[bytes, ...]:
        spoken = self._languages.by_code[language]
        opens, starts = notice.queue_opens_at, notice.starts_at
        texts = (
            notice.key,
            notice.title,
            spoken.gettext(PLAN_MESSAGES[notice.plan]),
            spoken.gettext(COUNTDOWN_LABELS[opens is not None]),
            "" if opens is None else rfc3339(opens).decode(),
            "" if opens is None else spoken.time(opens),
            rfc3339(starts).decode(),
            spoken.time(starts),
        )
        return tuple([escape(text).encode() for text in texts])

    def _render_room(self, room: str, text: PageText, language: str, shape: int) -> str:
        spoken = self._languages.by_code[language]
        _ = spoken.gettext
        message = TEXTS[text]
        slots = {name: Slot(name) if shape & _NEEDS.get(name, 0) == _NEEDS.get(name, 0) else None for name in _SLOTS}
        return self._templates[room].render(
            _=_,
            language=language,
            direction=spoken.direction,
            room=room,
            kind=str(KIND_OF_TEXT[text]),
            text=str(text),
            heading=_(message.heading),
            lead=_(message.lead),
            keep_place=spoken.span(self._keep_place_seconds[room]),
            # The page itself contains the text of its own state.
            other_states={
                str(each): [_(message.heading), _(message.lead)]
                for each, message in TEXTS.items()
                if each is not text and each not in _WITHOUT_STATUS
            },
            likely_sold_out=bool(shape & _LIKELY_SOLD_OUT),
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
            text=str(PageKind.ERROR),
            heading=_(message.heading),
            lead=_(message.lead),
            again=again,
            request_id=Slot("request_id"),
        )

    def _renderings(self, room: str) -> Iterator[Callable[[], str]]:
        """Yield all the variants of an operator's template that may be needed, so that none fails later.

        The fullest pages come first: their errors are the most informative.
        """
        for text, kind in KIND_OF_TEXT.items():
            for language in self._languages.by_code:
                shapes = _shapes(kind) if language == DEFAULT_LANGUAGE else (_FULL_SHAPE, 0)
                for shape in shapes:
                    yield partial(self._render_room, room, text, language, shape)


def _shapes(kind: PageKind) -> Iterator[int]:
    """Yield the sets of available values of a page: each one missing while all others are there, and more."""
    yield from range(_FULL_SHAPE, _FULL_SHAPE - _EVERY_NUMBER - 1, -1)
    if kind in _WITH_EVENT:
        for event in _EVERY_EVENT:
            yield from (event | _EVERY_NUMBER, event)
    yield from (_EVERY_NUMBER, 0)


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
    return rfc3339(at), f"{at:%H:%M:%S} UTC".encode()
