"""The behavior of a simulated visitor: pure decisions, with the clock and the random number generator passed in."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import StrEnum

LEAVES_AFTER_FAILURES = 5
"""Failures in a row after which a visitor in the shop goes home."""

_RELOAD_AGAIN_SECONDS = 5.0
_LONGEST_BACK_OFF_SECONDS = 30.0


class Page(StrEnum):
    """A page that a visitor may see; the shop's pages are named in their ``data-page``."""

    PRODUCT = "product"
    SOLD_OUT = "sold_out"
    BASKET = "basket"
    EMPTY_BASKET = "empty_basket"
    CHECKOUT = "checkout"
    ORDER = "order"
    WAITING = "waiting"


class Outcome(StrEnum):
    """How a visit ended."""

    BOUGHT = "bought"
    SOLD_OUT = "sold out"
    CLOSED = "closed"
    GAVE_UP = "gave up"
    FAILED = "failed"
    STILL_WAITING = "still waiting"
    STILL_SHOPPING = "still shopping"
    NOT_ARRIVED = "not arrived"


@dataclass(frozen=True, slots=True)
class VisitorProfile:
    """The behavior of a visitor.

    Attributes:
        patience_seconds: The maximum wait; None waits to the end.
        sends_leave: Sends a leave request on giving up, instead of only closing the tab.
        closes_tab_after: Closes the tab once, after this many seconds in the queue; None never does.
        away_seconds: How long the tab then stays closed.
        think_seconds: Minimum and maximum time on a shop page, in seconds.
        retry_seconds: Minimum and maximum pause before a failed page is retried, in seconds.
    """

    patience_seconds: float | None = None
    sends_leave: bool = False
    closes_tab_after: float | None = None
    away_seconds: float = 5.0
    think_seconds: tuple[float, float] = (0.5, 1.5)
    retry_seconds: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class PageSeen:
    """A page was received, from the shop or the waiting page.

    Attributes:
        page: The page.
        poll_after: On the waiting page, seconds until the first status request.
    """

    page: Page
    poll_after: float = 2.0


@dataclass(frozen=True, slots=True)
class StatusSeen:
    """The status endpoint answered.

    Attributes:
        state: The visitor's state in the room, such as ``waiting`` or ``called``.
        poll_after: Seconds until the next status request.
    """

    state: str
    poll_after: float


@dataclass(frozen=True, slots=True)
class Failed:
    """No usable response: an error page, a broken connection or a timeout."""


Seen = PageSeen | StatusSeen | Failed


@dataclass(frozen=True, slots=True)
class Navigate:
    """Open a page, as a browser does, after a delay."""

    path: str
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Submit:
    """Send a form after a delay."""

    path: str
    form: tuple[tuple[str, str], ...] = ()
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Poll:
    """Request the status from the room after a delay."""

    after: float


@dataclass(frozen=True, slots=True)
class Leave:
    """End the visit after a delay, optionally with a leave request."""

    outcome: Outcome
    after: float = 0.0
    sends_leave: bool = False


Move = Navigate | Submit | Poll | Leave


@dataclass(slots=True)
class Visitor:
    """One visit and its history. Times are seconds of any one clock.

    Attributes:
        profile: The visitor's behavior.
        arrived_at: The time of arrival; None before.
        joined_at: When the waiting page was first seen; None if the visitor never had to wait.
        called_at: When the room first reported the visitor's turn.
        admitted_at: When a page of the shop was first seen.
        errors: Failures, in the queue and in the shop.
        outcome: The outcome; None while the visit continues.
    """

    profile: VisitorProfile
    arrived_at: float | None = None
    joined_at: float | None = None
    called_at: float | None = None
    admitted_at: float | None = None
    errors: int = 0
    outcome: Outcome | None = None
    _shop_move: Navigate | Submit = Navigate("/")
    _reloaded_at: float = -math.inf
    _in_queue: bool = False
    _failures: int = 0
    _tab_closed: bool = False

    @property
    def wait_seconds(self) -> float | None:
        """The time from the waiting page to the shop; None if there was no wait or it isn't over."""
        if self.joined_at is None or self.admitted_at is None:
            return None
        return self.admitted_at - self.joined_at

    def arrive(self, now: float) -> Move:
        """Return the first move: open the shop's address."""
        self.arrived_at = now
        return self._shop_move

    def next(self, seen: Seen, now: float, rng: random.Random) -> Move:
        """Process the result of the last move and decide the next one."""
        if isinstance(seen, Failed):
            return self._after_failure(now, rng)
        self._failures = 0
        if isinstance(seen, StatusSeen):
            return self._on_status(seen, now)
        if seen.page is Page.WAITING:
            self._in_queue = True
            if self.joined_at is None:
                self.joined_at = now
            return self._wait(seen.poll_after, now)
        return self._in_shop(seen.page, now, rng)

    def end(self) -> None:
        """End the drill: set this visitor's outcome, unless the visit has ended already."""
        if self.outcome is not None:
            return
        if self.arrived_at is None:
            self.outcome = Outcome.NOT_ARRIVED
        elif self.admitted_at is None and self.joined_at is not None:
            self.outcome = Outcome.STILL_WAITING
        else:
            self.outcome = Outcome.STILL_SHOPPING

    def _after_failure(self, now: float, rng: random.Random) -> Move:
        self.errors += 1
        self._failures += 1
        if self._in_queue:
            # The waiting page never gives up on a broken connection; only its reader may.
            return self._wait(min(_LONGEST_BACK_OFF_SECONDS, 2.0**self._failures), now)
        if self._failures >= LEAVES_AFTER_FAILURES:
            return Leave(Outcome.FAILED)
        pause = rng.uniform(*self.profile.retry_seconds)
        if isinstance(self._shop_move, Submit):
            return Submit(self._shop_move.path, self._shop_move.form, pause)
        return Navigate(self._shop_move.path, pause)

    def _on_status(self, seen: StatusSeen, now: float) -> Move:
        match seen.state:
            case "called" | "admitted" | "unknown":
                if seen.state == "called" and self.called_at is None:
                    self.called_at = now
                return self._reload(now)
            case "sold_out":
                return Leave(Outcome.SOLD_OUT)
            case "closed":
                return Leave(Outcome.CLOSED)
            case _:
                self._reloaded_at = -math.inf
                return self._wait(seen.poll_after, now)

    def _reload(self, now: float) -> Navigate:
        # As on the waiting page, so that disagreement about the state never causes a tight loop.
        after = max(0.0, self._reloaded_at + _RELOAD_AGAIN_SECONDS - now)
        self._reloaded_at = now + after
        return Navigate("/", after)

    def _wait(self, seconds: float, now: float) -> Move:
        who = self.profile
        waited = now - (now if self.joined_at is None else self.joined_at)
        if who.patience_seconds is not None and waited + seconds >= who.patience_seconds:
            return Leave(Outcome.GAVE_UP, max(0.0, who.patience_seconds - waited), who.sends_leave)
        if who.closes_tab_after is not None and not self._tab_closed and waited + seconds >= who.closes_tab_after:
            self._tab_closed = True
            after = max(0.0, who.closes_tab_after - waited) + who.away_seconds
            return Navigate("/", after)
        return Poll(seconds)

    def _in_shop(self, page: Page, now: float, rng: random.Random) -> Move:
        self._in_queue = False
        if self.admitted_at is None:
            self.admitted_at = now
        pause = rng.uniform(*self.profile.think_seconds)
        match page:
            case Page.PRODUCT:
                self._shop_move = Submit("/basket", after=pause)
            case Page.EMPTY_BASKET:
                self._shop_move = Navigate("/", pause)
            case Page.BASKET:
                self._shop_move = Navigate("/checkout", pause)
            case Page.CHECKOUT:
                form = (("buyer", "Ada Visitor"), ("email", "ada@example.com"))
                self._shop_move = Submit("/checkout", form, pause)
            case Page.ORDER:
                return Leave(Outcome.BOUGHT)
            case _:
                return Leave(Outcome.SOLD_OUT)
        return self._shop_move
