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
class Words:
    """The first words of a page.

    Attributes:
        heading: A few words, also the title of the tab.
        lead: A sentence or two below it.
    """

    heading: str
    lead: str


ROOM_WORDS: dict[PageKind, Words] = {
    PageKind.WAITING: Words(
        "You are in line",
        "Many people want to come in just now, so everyone goes in turn by turn. "
        "When it is your turn, this page takes you in by itself.",
    ),
    PageKind.PREQUEUE: Words(
        "You are early",
        "The sale has not started yet, and this is the right place to wait for it. "
        "When it is your turn, this page takes you in by itself.",
    ),
    PageKind.PAUSED: Words(
        "The line is paused",
        "Nobody is being let in at the moment. Your place is kept, and the line moves on as soon as the shop is ready.",
    ),
    PageKind.CALLED: Words(
        "It is your turn",
        "Thank you for waiting. We are taking you in now.",
    ),
    PageKind.SOLD_OUT: Words(
        "Sold out",
        "Everything in this sale is sold. We are sorry, and we thank you for your patience: "
        "there is nothing left to wait for.",
    ),
    PageKind.CLOSED: Words(
        "The line is closed",
        "Nobody else is being let in, so you need not wait any longer. Thank you for coming.",
    ),
    PageKind.HELD: Words(
        "One moment, please",
        "Because of a fault on our side we can’t see the line just now. If you have a place in it, it is kept. "
        "This page keeps trying by itself.",
    ),
    PageKind.BUSY: Words(
        "Just a moment",
        "Very many people are arriving right now. This page tries again by itself in a few seconds.",
    ),
}

LEFT_WORDS = Words(
    "You have left the line",
    "Your place was given up. If you change your mind, you are welcome to join again at the end of the line.",
)

ERROR_WORDS: dict[int, Words] = {
    400: Words(
        "That request went wrong",
        "Your browser sent something we could not make sense of. Going back and trying again often helps.",
    ),
    404: Words(
        "There is nothing here",
        "The address may be mistyped, or what was here has moved.",
    ),
    408: Words(
        "That took too long",
        "The connection was too slow for your request to arrive. Please try again.",
    ),
    421: Words(
        "Wrong address",
        "This server does not answer for that address. Please check it and try again.",
    ),
    429: Words(
        "That was a lot at once",
        "Your browser asked for more than we can load for one visitor just now. Please try again in a moment.",
    ),
    431: Words(
        "Your browser sent too much",
        "Its cookies for this shop have grown too large. Deleting them in the browser’s settings helps; "
        "a place in line is deleted with them.",
    ),
    500: Words(
        "Something went wrong",
        "The fault is on our side. Please try again in a moment.",
    ),
    502: Words(
        "The shop can’t answer just now",
        "It is not your fault. Please try again in a moment. If you were paying, please look for a confirmation first.",
    ),
    503: Words(
        "The shop can’t answer just now",
        "It is not your fault. Please try again in a moment.",
    ),
    504: Words(
        "The shop is taking too long",
        "It did not answer in time. If you were paying, please look for a confirmation before you try again.",
    ),
}
"""By HTTP status. ``error_words`` finds words for the others."""

SCRIPT_WORDS: dict[str, str] = {
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


def error_words(status: int) -> Words:
    """Return the words for an HTTP error status; for one without its own, those of its class."""
    return ERROR_WORDS.get(status) or ERROR_WORDS[400 if status < 500 else 500]
