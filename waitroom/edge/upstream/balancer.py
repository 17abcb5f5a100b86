"""Chooses the shop's address for the next request. Pure: times are arguments, in seconds of one clock.

An address that fails is marked down for a second, then twice as long with each further failure. After that time it is
on trial: it gets one request a second until one is answered. If all are down, all are tried.

A connection closed without a response may be caused by that one request, so it takes several neighbourhoods to show
that the address is down; see `Balancer.record_disconnect`.
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Collection

INITIAL_DOWN_SECONDS = 1.0
MAX_DOWN_SECONDS = 30.0
TRIAL_SECONDS = 1.0
DISCONNECT_NEIGHBOURHOODS = 3
DISCONNECT_SECONDS = 10.0


class _Address:
    """The state of one address.

    Attributes:
        failed_at: When it last failed.
        down_until: When its next trial may begin.
        trial_until: When the trial after that may begin.
        unhealthy: Whether the last health check found it unhealthy.
        disconnects: When it last closed the connection of each neighbourhood's request without a response, since its
            last response; at most one less than `DISCONNECT_NEIGHBOURHOODS`.
    """

    __slots__ = ("disconnects", "down_until", "failed_at", "failures", "in_flight", "trial_until", "unhealthy")

    def __init__(self) -> None:
        self.in_flight = 0
        self.failures = 0
        self.failed_at = 0.0
        self.down_until = 0.0
        self.trial_until = 0.0
        self.unhealthy = False
        self.disconnects: dict[str, float] = {}

    def is_healthy(self, now: float) -> bool:
        if self.unhealthy:
            return False
        return not self.failures or now >= max(self.down_until, self.trial_until)


class Balancer:
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
        healthy = [index for index in left if self._addresses[index].is_healthy(now)]
        return min(healthy or left, key=lambda index: self._addresses[index].in_flight)

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

    def record_success(self, index: int, began: float) -> bool:
        """Records a response to a request that began at ``began``. True if the address was down and has recovered."""
        address = self._addresses[index]
        if address.disconnects:
            address.disconnects.clear()
        if not address.failures or began < address.failed_at:
            return False
        address.failures = 0
        return not address.unhealthy

    def record_failure(self, index: int, began: float, now: float) -> float:
        """Records that an address didn't accept, or didn't answer, a request that began at ``began``.

        Returns:
            For how many seconds it is down now; 0 if this is no news, as the request began before it recovered.
        """
        address = self._addresses[index]
        if address.failures and began < address.down_until:
            return 0.0
        seconds = min(MAX_DOWN_SECONDS, INITIAL_DOWN_SECONDS * 2.0 ** min(address.failures, 10))
        address.failures += 1
        address.failed_at = now
        address.down_until = now + seconds
        return seconds

    def record_disconnect(self, index: int, neighbourhood: str, began: float, now: float) -> float:
        """Records that an address closed a connection without a response to the request that began at ``began``.

        A visitor can cause that with a request that crashes the shop's worker. So this counts as a failure of the
        address only once it has happened to `DISCONNECT_NEIGHBOURHOODS` within `DISCONNECT_SECONDS`, without any
        response in between.

        Returns:
            As `record_failure`.
        """
        address = self._addresses[index]
        recent = {key: at for key, at in address.disconnects.items() if now - at < DISCONNECT_SECONDS}
        recent[neighbourhood] = now
        if len(recent) < DISCONNECT_NEIGHBOURHOODS:
            address.disconnects = recent
            return 0.0
        address.disconnects = {}
        return self.record_failure(index, began, now)

    def record_health_check(self, index: int, now: float, *, healthy: bool) -> bool:
        """Records the result of a health check. True if it differs from that of the previous one.

        A healthy address gets its trial immediately, but not its former load: that returns when visitors' requests
        succeed.
        """
        address = self._addresses[index]
        changed = address.unhealthy is healthy
        address.unhealthy = not healthy
        if healthy:
            address.down_until = min(address.down_until, now)
        return changed
