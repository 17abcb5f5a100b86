"""Which of a shop's addresses the next request goes to. Pure: times are passed in, in seconds of one clock.

An address that fails is down for a second, then twice as long with each further failure. When that time is over it is
on trial: one request a second may go there, until one is answered. Where all are down, all are tried.

A connection that closes without an answer may be the doing of that one request, so it takes several neighbourhoods to
show that the address is down; see `Balance.hung_up`.
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
    """What is known of one address.

    Attributes:
        failed_at: When it was last found to be down.
        down_until: When its next trial may begin.
        trial_until: When the one after that may begin.
        ill: Whether the last health check said so.
        hung_up: When it last hung up on a neighbourhood's request, since its last answer; one less than
            `HANG_UP_NEIGHBOURHOODS` at the most.
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
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._addresses = [_Address() for _ in range(count)]
        self._last = count - 1

    def __len__(self) -> int:
        return len(self._addresses)

    def pick(self, now: float, tried: Collection[int] = ()) -> int:
        """The address with the fewest requests in flight of those that are well, or if none is, of all.

        Of several with equally few it is the next in turn. ``tried`` are left out; not all may be.
        """
        count = len(self._addresses)
        if count == 1:
            return 0
        turns = [(self._last + step) % count for step in range(1, count + 1)]
        left = [index for index in turns if index not in tried]
        well = [index for index in left if self._addresses[index].well(now)]
        return min(well or left, key=lambda index: self._addresses[index].in_flight)

    def begin(self, index: int, now: float) -> None:
        """A request goes to an address."""
        address = self._addresses[index]
        address.in_flight += 1
        self._last = index
        if address.failures and now >= address.down_until:
            address.trial_until = now + TRIAL_SECONDS

    def end(self, index: int) -> None:
        """A request is over, whatever became of it."""
        self._addresses[index].in_flight -= 1

    def worked(self, index: int, began: float) -> bool:
        """An address has answered a request that went there at ``began``. True if it was down and is no more."""
        address = self._addresses[index]
        if address.hung_up:
            address.hung_up.clear()
        if not address.failures or began < address.failed_at:
            return False
        address.failures = 0
        return not address.ill

    def failed(self, index: int, began: float, now: float) -> float:
        """An address didn't take, or didn't answer, a request that went there at ``began``.

        Returns:
            For how many seconds it is down now; 0 where this is no news, as the request began before it came back up.
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
        """An address closed a connection without an answer to the request that went there at ``began``.

        A visitor can bring that about, with a request that crashes the shop's worker. So this counts as a failure of
        the address only once it has happened to `HANG_UP_NEIGHBOURHOODS` within `HANG_UP_SECONDS`, without any answer
        in between.

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
        """A health check has an answer. True if it differs from that of the last one.

        One that is well has its trial at once, not its former load: that comes back when visitors' requests work.
        """
        address = self._addresses[index]
        changed = address.ill is well
        address.ill = not well
        if well:
            address.down_until = min(address.down_until, now)
        return changed
