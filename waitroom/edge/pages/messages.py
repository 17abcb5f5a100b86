"""The text of the pages, in English: for every state of a room and for every error.

The sentences are the keys of the catalogues in ``templates/locale``. They promise nothing that may not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from waitroom.edge.pages.event_notice import Plan


class PageKind(StrEnum):
    """The subject of a page. All but the last two are states of a visitor's wait."""

    WAITING = "waiting"
    PREQUEUE = "prequeue"
    PAUSED = "paused"
    CALLED = "called"
    SOLD_OUT = "sold_out"
    CLOSED = "closed"
    HELD = "held"
    """The store can't be reached just now."""
    BUSY = "busy"
    """Too many newcomers come from one neighbourhood at a time."""
    ERROR = "error"


class PageText(StrEnum):
    """The texts of a page: those of its kind, or others if an event or the stock explains more."""

    WAITING = "waiting"
    PREQUEUE = "prequeue"
    PAUSED = "paused"
    CALLED = "called"
    SOLD_OUT = "sold_out"
    SOLD_OUT_FOR_NOW = "sold_out_for_now"
    CLOSED = "closed"
    SCHEDULED = "scheduled"
    ENDED = "ended"
    HELD = "held"
    BUSY = "busy"


KIND_OF_TEXT: dict[PageText, PageKind] = {
    **{PageText(kind): kind for kind in PageKind if kind is not PageKind.ERROR},
    PageText.SOLD_OUT_FOR_NOW: PageKind.SOLD_OUT,
    PageText.SCHEDULED: PageKind.CLOSED,
    PageText.ENDED: PageKind.CLOSED,
}


@dataclass(frozen=True, slots=True)
class Message:
    """The heading of a page, and the sentences below it.

    Attributes:
        heading: A few words, also the title of the tab.
        lead: A sentence or two below it.
    """

    heading: str
    lead: str


ROOM_MESSAGES: dict[PageKind, Message] = {
    PageKind.WAITING: Message(
        "You’re in the queue",
        "A lot of people are here right now, so we’re letting visitors in one after another. When it’s your turn, "
        "you’ll be taken to the shop automatically.",
    ),
    PageKind.PREQUEUE: Message(
        "You’re early",
        "The sale hasn’t started yet, but you’re in the right place. When it’s your turn, you’ll be taken to the shop "
        "automatically.",
    ),
    PageKind.PAUSED: Message(
        "The queue is paused",
        "We’re not letting anyone in right now. Your place is kept, and the queue will move again as soon as the shop "
        "is ready.",
    ),
    PageKind.CALLED: Message(
        "It’s your turn",
        "Thank you for waiting. We’re taking you to the shop now.",
    ),
    PageKind.SOLD_OUT: Message(
        "Sold out",
        "Everything in this sale has been sold, so there’s no need to keep waiting. We’re sorry, and thank you for "
        "your patience.",
    ),
    PageKind.CLOSED: Message(
        "The queue is closed",
        "We’re not letting anyone else in, so there’s no need to keep waiting. Thank you for coming.",
    ),
    PageKind.HELD: Message(
        "One moment, please",
        "Because of a problem on our side, we can’t see the queue right now. If you’re already in it, your place is "
        "kept. This page will keep trying automatically.",
    ),
    PageKind.BUSY: Message(
        "Just a moment",
        "A lot of people are arriving right now. This page will try again automatically in a few seconds.",
    ),
}

TEXTS: dict[PageText, Message] = {
    **{PageText(kind): message for kind, message in ROOM_MESSAGES.items()},
    PageText.SOLD_OUT_FOR_NOW: Message(
        "Sold out for now",
        "Everything has been sold or is in someone’s basket. If anything becomes available again, the next people in "
        "the queue get it. Places in the queue are kept, and this page keeps checking automatically.",
    ),
    PageText.SCHEDULED: Message(
        "We’re not open yet",
        "You’re in the right place. Keep this page open: it will join the queue for you as soon as it opens.",
    ),
    PageText.ENDED: Message(
        "The sale has ended",
        "There’s no need to keep waiting. Thank you for coming.",
    ),
}

PLAN_MESSAGES: dict[Plan, str] = {
    "queue_random": "Everyone who is here before the sale starts has the same chance of being first: positions are "
    "drawn at the start, and being early doesn’t help. People who come later stand behind them.",
    "queue_fifo": "Once the queue opens, places are given in the order of arrival. Nobody is let in before the sale "
    "starts. People who come later stand at the end of the queue.",
    "start": "When the sale starts, places are given in the order of arrival. People who come later stand at the end "
    "of the queue.",
    "start_random": "Your position will be drawn when the sale starts. Everyone who is here before then has the same "
    "chance, and being early doesn’t help. People who come later stand behind you.",
    "start_fifo": "When the sale starts, we’ll let people in by their position. People who come later stand behind "
    "you.",
}
"""The next step of an event, and where people stand if they come late."""

COUNTDOWN_LABELS: dict[bool, str] = {True: "The queue opens in", False: "The sale starts in"}
"""Above a countdown, by whether it is one to the opening of a prequeue."""

LEFT_MESSAGE = Message(
    "You’ve left the queue",
    "Your place is free again. If you change your mind, you’re welcome to join at the end of the queue.",
)

ERROR_MESSAGES: dict[int, Message] = {
    400: Message(
        "That didn’t work",
        "Your browser sent something we couldn’t understand. Going back and trying again often helps.",
    ),
    404: Message(
        "Page not found",
        "The address may have a typo, or the page may have moved.",
    ),
    408: Message(
        "That took too long",
        "Your connection was too slow for the whole request to arrive. Please try again.",
    ),
    421: Message(
        "Wrong address",
        "There’s no shop at this address. Please check it and try again.",
    ),
    429: Message(
        "That was a little too fast",
        "Your browser asked for more than we can load for one visitor right now. Please try again in a moment.",
    ),
    431: Message(
        "Your browser sent too much",
        "Your cookies for this shop have grown too large. Deleting them in your browser settings helps, but if you’re "
        "in the queue, you’ll lose your place.",
    ),
    500: Message(
        "Something went wrong",
        "The problem is on our side. Please try again in a moment.",
    ),
    502: Message(
        "The shop isn’t available right now",
        "It’s not your fault. Please try again in a moment. If you were paying, check for a confirmation first.",
    ),
    503: Message(
        "The shop isn’t available right now",
        "It’s not your fault. Please try again in a moment.",
    ),
    504: Message(
        "The shop is taking too long",
        "It didn’t respond in time. If you were paying, check for a confirmation before you try again.",
    ),
}
"""By HTTP status. ``error_message`` returns the message for the others."""

SCRIPT_MESSAGES: dict[str, str] = {
    "soon": "less than a minute",
    "most": "up to {high}",
    "about": "about {high}",
    "range": "about {low} to {high}",
    "unknown": "not known right now",
    "place": "You’re number {position} in the queue.",
    "lost": "We can’t connect right now. Your place is kept, and this page will keep trying automatically.",
    "new_place": "We couldn’t keep your earlier place, so you have a new one at the end of the queue.",
    "drawn": "The sale has started, and your position was drawn at random among everyone who was here before.",
    "restored": "We had to restore the queue after a technical problem, so your position has changed.",
    "due": "any moment now",
    "cookies": "Please allow cookies for this shop. Without them, we can’t keep your place in the queue.",
}
"""Texts that the waiting page's script shows on its own, or that explain a position."""

COOKIES_MESSAGE = Message(ERROR_MESSAGES[400].heading, SCRIPT_MESSAGES["cookies"])


def error_message(status: int) -> Message:
    """Return the message for an HTTP error status; for one without its own, that of its class."""
    return ERROR_MESSAGES.get(status) or ERROR_MESSAGES[400 if status < 500 else 500]
