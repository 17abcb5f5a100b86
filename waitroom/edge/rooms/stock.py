"""The stock of one room in one worker: what the shop reports, and what it means for those who wait."""

# mypyc: compile

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from waitroom.queue.constants import RISE_AFTER_ZERO_MS
from waitroom.queue.stock import SellingPace, first_sold_out_position, near_end_poll_seconds
from waitroom.queue.store import QueueStore
from waitroom.queue.view import RoomState, RoomView

_RISE_AFTER_ZERO_SECONDS: Final = RISE_AFTER_ZERO_MS / 1000


class StockReport:
    """The units left, as read from the shop.

    Attributes:
        units: The units.
        read_at: When they were read, by a steady clock in seconds.
        urgent: Whether the room may have to sell out or to open again because of it.
    """

    __slots__ = ("read_at", "units", "urgent")

    def __init__(self, units: int, read_at: float, urgent: bool) -> None:
        self.units = units
        self.read_at = read_at
        self.urgent = urgent


class StockReports:
    """The reports that the store hasn't got yet, oldest first: the newest, and a zero before it.

    Attributes:
        known: The units that the store has, as far as is known.
    """

    def __init__(self) -> None:
        self.known: int | None = None
        self._pending: list[StockReport] = []
        self._zero_at = float("-inf")

    def add(self, units: int, now: float) -> None:
        """Takes in a report. One that rises from zero too soon was under way before the zero, and is ignored."""
        pending = self._pending
        last = pending[-1].units if pending else self.known
        if units == 0:
            if last != 0:
                self._zero_at = now
                self._pending = [StockReport(0, now, True)]
            elif not pending:
                pending.append(StockReport(0, now, False))
            return
        if now - self._zero_at < _RISE_AFTER_ZERO_SECONDS:
            return
        urgent = last == 0
        if pending and (pending[-1].units or not pending[-1].urgent):
            urgent = pending.pop().urgent or urgent
        pending.append(StockReport(units, now, urgent))

    @property
    def urgent(self) -> bool:
        """Whether a report must not wait for the next flush."""
        return any(report.urgent for report in self._pending)

    def first(self) -> StockReport | None:
        """The next report to send; `acknowledge` removes it."""
        return self._pending[0] if self._pending else None

    def acknowledge(self, report: StockReport) -> None:
        """Records that the store has a report, which a newer one may have replaced meanwhile."""
        self.known = report.units
        if self._pending and self._pending[0] is report:
            del self._pending[0]


class Stock:
    """The stock of one room in one worker.

    Attributes:
        polls_per_second: The polls that all workers together can answer.

    Args:
        store: The queue.
        polls_per_second: See above.
        steady: A clock in seconds that never goes back.
    """

    def __init__(self, store: QueueStore, polls_per_second: float, steady: Callable[[], float]) -> None:
        self._store = store
        self.polls_per_second = polls_per_second
        self._steady = steady
        self._reports = StockReports()
        self._sold_out_at: float | None = None
        self._sending = asyncio.Lock()
        self._pace = SellingPace()
        self._measured: RoomView | None = None
        self._sold_out_from: int | None = None
        self._poll_seconds: float | None = None

    def observe(self, view: RoomView) -> None:
        """Takes in a new view."""
        self._reports.known = view.remaining
        self._pace.observe(view)

    # The outlook of visitors who wait.

    def likely_sold_out(self, view: RoomView, position: int) -> bool | None:
        """Whether nothing is likely to be left for a position; see `waitroom.queue.stock`. None if it is unknown."""
        self._measure(view)
        first = self._sold_out_from
        return None if first is None else 0 < first <= position

    def shorten_poll(self, view: RoomView, seconds: int, jitter: float) -> int:
        """Seconds until the next poll, where ``seconds`` is as usual: fewer as the stock nears its end.

        ``jitter`` is uniform in [0, 1), so that visitors don't poll in step.
        """
        self._measure(view)
        longest = self._poll_seconds
        return seconds if longest is None else min(seconds, round(longest * (0.9 + 0.2 * jitter)))

    def _measure(self, view: RoomView) -> None:
        if view is self._measured:
            return
        self._measured = view
        self._sold_out_from = first_sold_out_position(view)
        left = self._pace.seconds_left(view.remaining)
        self._poll_seconds = near_end_poll_seconds(left, view.waiting, self.polls_per_second)

    # The reports of the shop.

    def report_remaining(self, units: int) -> None:
        """Records the units left."""
        self._reports.add(units, self._steady())

    def report_sold_out(self, view: RoomView | None) -> None:
        """Records that nothing is left; it doesn't count before a sale, nor in a closed room."""
        if view is not None and (view.state in (RoomState.OPEN, RoomState.PAUSED) or view.state_by == "stock"):
            self._sold_out_at = self._steady()

    @property
    def urgent(self) -> bool:
        """Whether a report must not wait for the next flush."""
        return self._sold_out_at is not None or self._reports.urgent

    async def send(self) -> None:
        """Sends the store what the shop has reported, in order. Raises `StoreUnavailable`, and then keeps the rest."""
        async with self._sending:
            if self._sold_out_at is not None:
                await self._store.report_sold_out(age_ms=self._age_ms(self._sold_out_at))
                self._sold_out_at = None
            for _ in range(2):
                report = self._reports.first()
                if report is None:
                    return
                await self._store.set_remaining(report.units, age_ms=self._age_ms(report.read_at))
                self._reports.acknowledge(report)

    def _age_ms(self, read_at: float) -> int:
        return round((self._steady() - read_at) * 1000)
