"""A crowd of simulated visitors over real connections: their arrivals and what each of them experiences."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from ipaddress import ip_network
from urllib.parse import urlencode, urljoin

import aiohttp

from waitroom.drill.load.visitor import (
    Failed,
    Leave,
    Navigate,
    Outcome,
    Page,
    PageSeen,
    Poll,
    Seen,
    StatusSeen,
    Submit,
    Visitor,
    VisitorProfile,
)

_NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Encoding": "identity",
    "Accept-Language": "en",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (compatible; waitroom-drill)",
}
_SCRIPT = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "User-Agent": _NAVIGATION["User-Agent"],
}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}

_REDIRECTS = 5
_SHORTEST_POLL_SECONDS = 0.2
_LONGEST_POLL_SECONDS = 120.0
_FIRST_POLL_SECONDS = 2.0
_MOST_CONNECTIONS = 500
_RECENT_SECONDS = 10.0
# The visitors' addresses, from the network reserved for benchmarks (RFC 2544).
_ADDRESSES = ip_network("198.18.0.0/15")
_PAGE_NAME = re.compile(rb'<body data-page="([a-z_]{1,20})"')
_SHOP_PAGES = {page.value.encode(): page for page in Page if page is not Page.WAITING}


@dataclass(frozen=True, slots=True)
class Plan:
    """The arrivals and the behavior of the visitors.

    Attributes:
        visitors: The number of visitors, at least 1.
        burst_share: The share of visitors who arrive in the burst, 0 to 1; the others trickle in afterwards.
        burst_seconds: The length of the burst.
        trickle_seconds: The average length of the trickle.
        impatient_share: The share of visitors who give up when their patience ends.
        patience_seconds: Minimum and maximum of their patience, in seconds.
        returning_share: The share of visitors who close the tab while waiting and come back.
        closes_tab_seconds: Minimum and maximum wait before that, in seconds.
        away_seconds: Minimum and maximum time with the tab closed, in seconds.
    """

    visitors: int
    burst_share: float = 0.75
    burst_seconds: float = 2.0
    trickle_seconds: float = 20.0
    impatient_share: float = 0.05
    patience_seconds: tuple[float, float] = (10.0, 30.0)
    returning_share: float = 0.05
    closes_tab_seconds: tuple[float, float] = (3.0, 10.0)
    away_seconds: tuple[float, float] = (3.0, 8.0)

    def arrivals(self, rng: random.Random) -> list[float]:
        """Return the arrival times in seconds after the start, in order: a burst, then a Poisson trickle."""
        burst = round(self.visitors * self.burst_share)
        times = sorted(rng.uniform(0, self.burst_seconds) for _ in range(burst))
        at, late = self.burst_seconds, self.visitors - burst
        for _ in range(late):
            at += rng.expovariate(late / self.trickle_seconds)
            times.append(at)
        return times

    def profile(self, rng: random.Random) -> VisitorProfile:
        """Draw the behavior of a visitor."""
        patience = rng.uniform(*self.patience_seconds) if rng.random() < self.impatient_share else None
        closes = rng.uniform(*self.closes_tab_seconds) if rng.random() < self.returning_share else None
        return VisitorProfile(
            patience_seconds=patience,
            sends_leave=rng.random() < 0.5,
            closes_tab_after=closes,
            away_seconds=rng.uniform(*self.away_seconds),
        )


@dataclass(slots=True)
class SimulatedClient:
    """A visitor with the state of their browser.

    Attributes:
        visitor: Decides the next step.
        address: The visitor's address, as a proxy in front would report it.
        cookies: The visitor's cookies, by name.
        statuses: The number of responses by HTTP status.
    """

    visitor: Visitor
    address: str
    cookies: dict[str, str] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def waiting(self) -> bool:
        """Whether the visitor is in the queue now, called or not."""
        it = self.visitor
        return it.joined_at is not None and it.admitted_at is None and it.outcome is None

    @property
    def shopping(self) -> bool:
        """Whether the visitor is in the shop now."""
        return self.visitor.admitted_at is not None and self.visitor.outcome is None


@dataclass(slots=True)
class Tally:
    """The counters of a crowd.

    Attributes:
        requests: Completed requests: answered, failed or timed out.
        failures: Requests answered 500 or above (except for the waiting page), failed or timed out.
        statuses: Responses by HTTP status.
        kinds: Failures by kind: ``status``, ``connection``, ``timeout``.
        slowest_seconds: The longest time a page took.
    """

    requests: int = 0
    failures: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0


class Crowd:
    """A crowd that visits one shop, through the gateway or directly.

    Args:
        origin: Scheme, host and port, such as ``http://127.0.0.1:8080``.
        room: The room's name, for its status and its cookies.
        plan: The arrivals and behavior of the visitors.
        rng: The source of all randomness; seed it to repeat the same crowd.
        request_seconds: The timeout of a request.
    """

    def __init__(
        self, origin: str, room: str, plan: Plan, rng: random.Random, *, request_seconds: float = 10.0
    ) -> None:
        self.plan = plan
        self.tally = Tally()
        self.clients = [
            SimulatedClient(Visitor(plan.profile(rng)), str(_ADDRESSES[number % _ADDRESSES.num_addresses]))
            for number in range(plan.visitors)
        ]
        self._arrivals = plan.arrivals(rng)
        self._origin = origin
        self._room = room
        self._rng = rng
        self._request_seconds = request_seconds
        self._admissions: deque[float] = deque()

    async def run(self, seconds: float) -> None:
        """Run the crowd until all visitors have left, or for this many seconds.

        However it ends, even by cancellation, all visits are finished and have an outcome.
        """
        limit = min(self.plan.visitors, _MOST_CONNECTIONS)
        # The session keeps no cookies: a shared jar would make all clients one visitor. Each client has its own.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._request_seconds),
        )
        try:
            async with session, asyncio.timeout(seconds), asyncio.TaskGroup() as visits:
                for client, arrival in zip(self.clients, self._arrivals, strict=True):
                    visits.create_task(self._visit(session, client, arrival))
        except TimeoutError:
            pass
        finally:
            for client in self.clients:
                client.visitor.end()

    def count(self, outcome: Outcome) -> int:
        """Return the number of visits with this outcome."""
        return sum(client.visitor.outcome is outcome for client in self.clients)

    def arrived(self) -> int:
        """Return how many visitors have arrived so far."""
        return sum(client.visitor.arrived_at is not None for client in self.clients)

    def waiting(self) -> int:
        """Return how many visitors are waiting now."""
        return sum(client.waiting for client in self.clients)

    def shopping(self) -> int:
        """Return how many visitors are in the shop now."""
        return sum(client.shopping for client in self.clients)

    def joined(self) -> int:
        """Return how many visitors had to wait so far."""
        return sum(client.visitor.joined_at is not None for client in self.clients)

    def admitted(self) -> int:
        """Return how many visitors have seen a page of the shop so far."""
        return sum(client.visitor.admitted_at is not None for client in self.clients)

    def waits(self) -> list[float]:
        """Return the waits of admitted visitors in seconds, shortest first."""
        return sorted(wait for client in self.clients if (wait := client.visitor.wait_seconds) is not None)

    def admitted_per_minute(self) -> float:
        """Return the admission rate over the last ten seconds."""
        now = asyncio.get_running_loop().time()
        while self._admissions and self._admissions[0] < now - _RECENT_SECONDS:
            self._admissions.popleft()
        return len(self._admissions) * 60 / _RECENT_SECONDS

    async def _visit(self, session: aiohttp.ClientSession, client: SimulatedClient, arrival: float) -> None:
        loop, visitor = asyncio.get_running_loop(), client.visitor
        await asyncio.sleep(arrival)
        move = visitor.arrive(loop.time())
        while True:
            await asyncio.sleep(move.after)
            if isinstance(move, Leave):
                if move.sends_leave:
                    await self._send_leave(session, client)
                visitor.outcome = move.outcome
                return
            seen = await self._make(session, client, move)
            was_outside = visitor.admitted_at is None
            move = visitor.next(seen, loop.time(), self._rng)
            if was_outside and visitor.admitted_at is not None:
                self._admissions.append(loop.time())

    async def _make(
        self, session: aiohttp.ClientSession, client: SimulatedClient, move: Navigate | Submit | Poll
    ) -> Seen:
        started = asyncio.get_running_loop().time()
        try:
            match move:
                case Poll():
                    url = f"{self._origin}/.waitroom/status?room={self._room}"
                    return self._read_status(await self._ask(session, client, "GET", url, _SCRIPT))
                case Navigate(path):
                    return await self._open(session, client, "GET", path)
                case Submit(path, form):
                    return await self._open(session, client, "POST", path, urlencode(form))
        except TimeoutError:
            return self._no_answer("timeout")
        except (aiohttp.ClientError, OSError):
            return self._no_answer("connection")
        finally:
            taken = asyncio.get_running_loop().time() - started
            self.tally.slowest_seconds = max(self.tally.slowest_seconds, taken)

    async def _open(
        self, session: aiohttp.ClientSession, client: SimulatedClient, method: str, path: str, body: str = ""
    ) -> Seen:
        url = self._origin + path
        for _ in range(_REDIRECTS):
            answer = await self._ask(session, client, method, url, _NAVIGATION, body)
            if answer.status not in {301, 302, 303, 307, 308} or not answer.location:
                return self._read_page(client, answer)
            url = urljoin(url, answer.location)
            if not url.startswith(self._origin + "/"):
                break
            if answer.status in {301, 302, 303}:
                method, body = "GET", ""
        return self._fail("status")

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        client: SimulatedClient,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: str = "",
    ) -> _Answer:
        sent = {**headers, "X-Forwarded-For": client.address}
        if client.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        if method == "POST":
            sent |= {**_FORM, "Origin": self._origin}
        async with session.request(
            method, url, headers=sent, data=body.encode() if body else None, allow_redirects=False
        ) as response:
            content = await response.read()
        self.tally.requests += 1
        self.tally.statuses[response.status] += 1
        client.statuses[response.status] += 1
        _keep_cookies(client.cookies, response.cookies)
        return _Answer(
            response.status,
            response.headers.get("Location", ""),
            response.headers.get("Retry-After", ""),
            f"waitroom_ticket_{self._room}" in response.cookies,
            response.content_type,
            content,
        )

    async def _send_leave(self, session: aiohttp.ClientSession, client: SimulatedClient) -> None:
        try:
            url = f"{self._origin}/.waitroom/leave?room={self._room}"
            await self._ask(session, client, "POST", url, _SCRIPT)
        except TimeoutError:
            self._no_answer("timeout")
        except (aiohttp.ClientError, OSError):
            self._no_answer("connection")

    def _read_page(self, client: SimulatedClient, answer: _Answer) -> Seen:
        name = _PAGE_NAME.search(answer.content)
        if answer.status < 500 and name is not None and name[1] in _SHOP_PAGES:
            return PageSeen(_SHOP_PAGES[name[1]])
        in_queue = answer.gave_ticket or (
            f"waitroom_ticket_{self._room}" in client.cookies and f"waitroom_pass_{self._room}" not in client.cookies
        )
        if in_queue and answer.status in {200, 503} and name is None and answer.type == "text/html":
            return PageSeen(Page.WAITING, _seconds(answer.retry_after))
        return self._fail("status")

    def _read_status(self, answer: _Answer) -> Seen:
        if answer.status != 200:
            return self._fail("status")
        try:
            data = json.loads(answer.content)
            return StatusSeen(str(data["state"]), _seconds(data["poll_after"]))
        except (ValueError, LookupError, TypeError):
            return self._fail("status")

    def _no_answer(self, kind: str) -> Failed:
        self.tally.requests += 1
        return self._fail(kind)

    def _fail(self, kind: str) -> Failed:
        self.tally.failures += 1
        self.tally.kinds[kind] += 1
        return Failed()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    location: str
    retry_after: str
    gave_ticket: bool
    type: str
    content: bytes


def _seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        return _FIRST_POLL_SECONDS
    return min(max(seconds, _SHORTEST_POLL_SECONDS), _LONGEST_POLL_SECONDS)


def _keep_cookies(kept: dict[str, str], sent: SimpleCookie) -> None:
    for name, morsel in sent.items():
        if morsel["max-age"] == "0" or not morsel.value:
            kept.pop(name, None)
        else:
            kept[name] = morsel.value
