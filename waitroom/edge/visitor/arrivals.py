"""Decides whether a newcomer may take a place now, or must retry because too many come from one neighbourhood."""

# mypyc: compile

from __future__ import annotations

import math
from typing import Final

import structlog

from waitroom.budgets import neighbourhood
from waitroom.edge.http.headers import gateway_tokens
from waitroom.edge.rooms.joins import ARRIVAL_SECONDS, ProxyDetector
from waitroom.edge.visitor.context import RequestContext
from waitroom.errors import InvalidTokenError
from waitroom.timing import Clock

log = structlog.get_logger()

LOG_INTERVAL_SECONDS: Final = 600.0
_FORWARDING: Final = (b"x-forwarded-for", b"forwarded")


class Arrivals:
    """Newcomers to all rooms of one worker.

    Args:
        workers: The number of workers that share the gateway's traffic.
        clock: The clocks.
    """

    def __init__(self, workers: int, clock: Clock) -> None:
        self._clock = clock
        self._proxies = ProxyDetector(workers)
        self._logged_at = float("-inf")

    def retry_after(self, context: RequestContext) -> int:
        """Seconds until the visitor may try again; 0 if they may join now."""
        now = self._clock.steady()
        peer = context.client.peer
        if peer.trusted:
            self._proxies.observe_trusted(now)
        elif self._observe(context, now):
            return 0
        limiter = context.room.join_limiter
        key = neighbourhood(context.client.visitor)
        if limiter.acquire_unless_deferred(key, now):
            return 0  # nobody is ahead: when the visitor arrived makes no difference
        returning = self._arrived_at(context) is not None
        return math.ceil(limiter.acquire(key, returning=returning, now=now))

    def arrival_headers(self, context: RequestContext) -> bytes:
        """Header lines with the signed time of the visitor's first arrival."""
        room = context.room
        arrived_at = self._arrived_at(context)
        value = room.tokens.sign_arrival(int(context.now) if arrived_at is None else arrived_at)
        return (
            context.cookie(room.arrival_cookie, value, ARRIVAL_SECONDS) + b"Waitroom-Arrival: %b\r\n" % value.encode()
        )

    def _observe(self, context: RequestContext, now: float) -> bool:
        fields, address = context.request.fields, context.client.peer.address
        forwards = any(name in fields for name in _FORWARDING)
        exempt = self._proxies.observe(address, forwards=forwards, now=now)
        context.room.metrics.missing_proxy = self._proxies.found
        if self._proxies.found and now - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._logged_at = now
            log.warning(
                "possible proxy missing from trusted_proxies",
                setting="trusted_proxies",
                address=self._proxies.found,
            )
        return exempt

    def _arrived_at(self, context: RequestContext) -> int | None:
        """When the visitor first arrived, if they were recently asked to retry."""
        room = context.room
        name = room.arrival_cookie.encode() + b"="
        header = context.request.fields.get(b"waitroom-arrival")
        arrivals: list[int] = []
        for value in gateway_tokens(context.client.cookies, name, header):
            try:
                arrived_at = room.tokens.read_arrival(value)
            except InvalidTokenError:
                continue
            if 0 <= context.now - arrived_at < ARRIVAL_SECONDS:
                arrivals.append(arrived_at)
        return min(arrivals) if arrivals else None
