"""The reference model of a recovery: who was there before the store lost data, and who has reported since."""

from __future__ import annotations

from dataclasses import dataclass, field

from waitroom.queue.constants import ENOUGH_REPORTED
from waitroom.queue.view import Recovery


@dataclass
class RecoveryModel:
    """A recovery. Numbers expected are -1 where nobody knows them; times are the room's, in milliseconds."""

    settled_at: int
    until: int
    expected_waiting: int
    expected_active: int
    reported_waiting: int = 0
    reported_active: int = 0
    reported: set[int] = field(default_factory=set)

    def expect(self, waiting: int, active: int) -> None:
        """Takes in what another client has seen."""
        self.expected_waiting = max(self.expected_waiting, waiting)
        self.expected_active = max(self.expected_active, active)

    def report(self, place: int, *, active: bool) -> None:
        """Records that a visitor is there; the first time counts."""
        if place not in self.reported:
            self.reported.add(place)
            self.reported_active += active
            self.reported_waiting += not active

    def may_call(self, clock: int) -> bool:
        """Whether most of the visitors known to wait are back."""
        if not self.settled_at <= clock < self.until or self.expected_waiting < 0:
            return False
        return self.reported_waiting >= self.expected_waiting * ENOUGH_REPORTED

    @property
    def reserved_slots(self) -> int:
        """How many slots are kept for sessions that haven't reported."""
        return max(0, self.expected_active - self.reported_active)

    @property
    def knows_sessions(self) -> bool:
        """Whether sessions that haven't reported are those of visitors who had left."""
        return self.expected_active >= 0 and self.reported_active >= self.expected_active * ENOUGH_REPORTED

    def in_view(self, clock: int) -> Recovery:
        """The recovery as a view describes it."""
        return Recovery(
            max(0, self.until - clock),
            self.expected_waiting,
            self.expected_active,
            self.reported_waiting,
            self.reported_active,
        )
