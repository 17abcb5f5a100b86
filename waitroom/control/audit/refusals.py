"""Limits how many refused attempts are recorded, so that nobody can push all others out of the audit log. Pure."""

from __future__ import annotations

from waitroom.budgets import NeighbourhoodBudget

BURST = 30
PER_SECOND = 0.5


class RefusalLimiter:
    """A budget for each actor; all strangers are one actor."""

    def __init__(self) -> None:
        self._budget = NeighbourhoodBudget(PER_SECOND, BURST)
        self._omitted: dict[str, int] = {}

    def permit(self, actor: str, now: float) -> int | None:
        """The number of this actor's attempts omitted since the last recorded one; None omits this one, too.

        Args:
            actor: The actor's name; there are as many names as accounts.
            now: Seconds of any clock that never goes back.
        """
        if not self._budget.take(actor, now):
            self._omitted[actor] = self._omitted.get(actor, 0) + 1
            return None
        return self._omitted.pop(actor, 0)
