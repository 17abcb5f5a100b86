# ruff: noqa: RUF001 - the apostrophes are typographic on purpose
"""The text of the pages, in English: for every state of a room and for every error.

The sentences are the keys of the catalogues in ``templates/locale``. They promise nothing that may not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
        "You are in line",
        "Many people want to come in just now, so everyone goes in turn by turn. "
        "When it is your turn, this page takes you in by itself.",
    ),
    PageKind.PREQUEUE: Message(
        "You are early",
        "The sale has not started yet, and this is the right place to wait for it. "
        "When it is your turn, this page takes you in by itself.",
    ),
    PageKind.PAUSED: Message(
        "The line is paused",
        "Nobody is being let in at the moment. Your place is kept, and the line moves on as soon as the shop is ready.",
    ),
    PageKind.CALLED: Message(
        "It is your turn",
        "Thank you for waiting. We are taking you in now.",
    ),
    PageKind.SOLD_OUT: Message(
        "Sold out",
        "Everything in this sale is sold. We are sorry, and we thank you for your patience: "
        "there is nothing left to wait for.",
    ),
    PageKind.CLOSED: Message(
        "The line is closed",
        "Nobody else is being let in, so you need not wait any longer. Thank you for coming.",
    ),
    PageKind.HELD: Message(
        "One moment, please",
        "Because of a fault on our side we can’t see the line just now. If you have a place in it, it is kept. "
        "This page keeps trying by itself.",
    ),
    PageKind.BUSY: Message(
        "Just a moment",
        "Very many people are arriving right now. This page tries again by itself in a few seconds.",
    ),
}

LEFT_MESSAGE = Message(
    "You have left the line",
    "Your place was given up. If you change your mind, you are welcome to join again at the end of the line.",
)

ERROR_MESSAGES: dict[int, Message] = {
    400: Message(
        "That request went wrong",
        "Your browser sent something we could not make sense of. Going back and trying again often helps.",
    ),
    404: Message(
        "There is nothing here",
        "The address may be mistyped, or what was here has moved.",
    ),
    408: Message(
        "That took too long",
        "The connection was too slow for your request to arrive. Please try again.",
    ),
    421: Message(
        "Wrong address",
        "This server does not answer for that address. Please check it and try again.",
    ),
    429: Message(
        "That was a lot at once",
        "Your browser asked for more than we can load for one visitor just now. Please try again in a moment.",
    ),
    431: Message(
        "Your browser sent too much",
        "Its cookies for this shop have grown too large. Deleting them in the browser’s settings helps; "
        "a place in line is deleted with them.",
    ),
    500: Message(
        "Something went wrong",
        "The fault is on our side. Please try again in a moment.",
    ),
    502: Message(
        "The shop can’t answer just now",
        "It is not your fault. Please try again in a moment. If you were paying, please look for a confirmation first.",
    ),
    503: Message(
        "The shop can’t answer just now",
        "It is not your fault. Please try again in a moment.",
    ),
    504: Message(
        "The shop is taking too long",
        "It did not answer in time. If you were paying, please look for a confirmation before you try again.",
    ),
}
"""By HTTP status. ``error_message`` returns the message for the others."""

SCRIPT_MESSAGES: dict[str, str] = {
    "soon": "less than a minute",
    "most": "up to {high}",
    "about": "about {high}",
    "range": "about {low} to {high}",
    "unknown": "not known at the moment",
    "place": "You are number {position} in line.",
    "lost": "There is no connection just now. Your place is kept, and this page keeps trying by itself.",
    "cookies": "Please allow cookies for this shop: without them your place in line can’t be kept.",
}
"""What the waiting page's script says by itself."""


def error_message(status: int) -> Message:
    """Return the message for an HTTP error status; for one without its own, that of its class."""
    return ERROR_MESSAGES.get(status) or ERROR_MESSAGES[400 if status < 500 else 500]
