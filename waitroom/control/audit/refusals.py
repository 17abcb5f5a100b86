"""Limits how many refused attempts are recorded, so that nobody can push all others out of the audit log. Pure."""

from __future__ import annotations

from waitroom.budgets import NeighbourhoodBudget

BURST = 200
PER_SECOND = 1.0
# Of clients that haven't proved who they are.
STRANGERS_BURST = 30
STRANGERS_PER_SECOND = 0.5


class RefusalLimiter:
    """A budget for each actor; all strangers who name no user are one actor."""

    def __init__(self) -> None:
        self._known = NeighbourhoodBudget(PER_SECOND, BURST)
        self._strangers = NeighbourhoodBudget(STRANGERS_PER_SECOND, STRANGERS_BURST)
        self._omitted: dict[tuple[str, bool], int] = {}

    def permit(self, actor: str, now: float, *, known: bool) -> int | None:
        """The number of such attempts omitted since the last recorded one; None omits this one, too.

        Args:
            actor: The actor's name; there are as many names as accounts.
            now: Seconds of any clock that never goes back.
            known: Whether the actor was authenticated.
        """
        budget = self._known if known else self._strangers
        if not budget.take(actor, now):
            self._omitted[actor, known] = self._omitted.get((actor, known), 0) + 1
            return None
        return self._omitted.pop((actor, known), 0)
