"""Chooses the shop's address for the next request. Pure: times are arguments, in seconds of one clock.

An address that fails is marked down for a second, then twice as long with each further failure. After that time it is
on trial: it gets one request a second until one is answered. If all are down, all are tried.

A connection closed without a response may be caused by that one request, so it takes several neighbourhoods to show
that the address is down; see `Balance.hung_up`.
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Collection

FIRST_DOWN_SECONDS = 1.0
LONGEST_DOWN_SECONDS = 30.0
TRIAL_SECONDS = 1.0
HANG_UP_NEIGHBOURHOODS = 3
HANG_UP_SECONDS = 10.0


class _Address:
    """The state of one address.

    Attributes:
        failed_at: When it last failed.
        down_until: When its next trial may begin.
        trial_until: When the trial after that may begin.
        ill: Whether the last health check found it unhealthy.
        hung_up: When it last closed the connection of each neighbourhood's request without a response, since its last
            response; at most one less than `HANG_UP_NEIGHBOURHOODS`.
    """

    __slots__ = ("down_until", "failed_at", "failures", "hung_up", "ill", "in_flight", "trial_until")

    def __init__(self) -> None:
        self.in_flight = 0
        self.failures = 0
        self.failed_at = 0.0
        self.down_until = 0.0
        self.trial_until = 0.0
        self.ill = False
        self.hung_up: dict[str, float] = {}

    def well(self, now: float) -> bool:
        if self.ill:
            return False
        return not self.failures or now >= max(self.down_until, self.trial_until)


class Balance:
    """The load and the health of a shop's addresses, which are numbered from 0.

    Args:
        count: The number of addresses.
    """

    def __init__(self, count: int) -> None:
        self._addresses = [_Address() for _ in range(count)]
        self._last = count - 1

    def __len__(self) -> int:
        return len(self._addresses)

    def pick(self, now: float, tried: Collection[int] = ()) -> int:
        """The address with the fewest requests in flight of those that are healthy, or of all if none is.

        Addresses with equally few take turns. ``tried`` are left out; they must not be all of them.
        """
        count = len(self._addresses)
        if count == 1:
            return 0
        turns = [(self._last + step) % count for step in range(1, count + 1)]
        left = [index for index in turns if index not in tried]
        well = [index for index in left if self._addresses[index].well(now)]
        return min(well or left, key=lambda index: self._addresses[index].in_flight)

    def begin(self, index: int, now: float) -> None:
        """Counts a request that goes to an address."""
        address = self._addresses[index]
        address.in_flight += 1
        self._last = index
        if address.failures and now >= address.down_until:
            address.trial_until = now + TRIAL_SECONDS

    def end(self, index: int) -> None:
        """A request is over, whatever its outcome."""
        self._addresses[index].in_flight -= 1

    def worked(self, index: int, began: float) -> bool:
        """Records a response to a request that began at ``began``. True if the address was down and has recovered."""
        address = self._addresses[index]
        if address.hung_up:
            address.hung_up.clear()
        if not address.failures or began < address.failed_at:
            return False
        address.failures = 0
        return not address.ill

    def failed(self, index: int, began: float, now: float) -> float:
        """Records that an address didn't accept, or didn't answer, a request that began at ``began``.

        Returns:
            For how many seconds it is down now; 0 if this is no news, as the request began before it recovered.
        """
        address = self._addresses[index]
        if address.failures and began < address.down_until:
            return 0.0
        seconds = min(LONGEST_DOWN_SECONDS, FIRST_DOWN_SECONDS * 2.0 ** min(address.failures, 10))
        address.failures += 1
        address.failed_at = now
        address.down_until = now + seconds
        return seconds

    def hung_up(self, index: int, neighbourhood: str, began: float, now: float) -> float:
        """Records that an address closed a connection without a response to the request that began at ``began``.

        A visitor can cause that with a request that crashes the shop's worker. So this counts as a failure of the
        address only once it has happened to `HANG_UP_NEIGHBOURHOODS` within `HANG_UP_SECONDS`, without any response in
        between.

        Returns:
            As `failed`.
        """
        address = self._addresses[index]
        recent = {key: at for key, at in address.hung_up.items() if now - at < HANG_UP_SECONDS}
        recent[neighbourhood] = now
        if len(recent) < HANG_UP_NEIGHBOURHOODS:
            address.hung_up = recent
            return 0.0
        address.hung_up = {}
        return self.failed(index, began, now)

    def checked(self, index: int, now: float, *, well: bool) -> bool:
        """Records the result of a health check. True if it differs from that of the previous one.

        A healthy address gets its trial immediately, but not its former load: that returns when visitors' requests
        succeed.
        """
        address = self._addresses[index]
        changed = address.ill is well
        address.ill = not well
        if well:
            address.down_until = min(address.down_until, now)
        return changed
