"""The limits of a room, as used by the store and its scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from waitroom.settings import RoomSettings

Method = Literal["fifo", "passthrough"]


@dataclass(frozen=True, slots=True)
class Limits:
    """A room's limits as the scripts use them. Rates are per minute, times in seconds."""

    rate_per_minute: float
    max_active: int
    session_seconds: float
    claim_seconds: float
    away_after_seconds: float
    keep_place_seconds: float
    method: Method = "fifo"
    claim_after_told_seconds: float = 90
    session_max_seconds: float = 14_400

    def fields(self) -> dict[str, str]:
        """The limits under the names and in the units of the room's hash (milliseconds)."""
        return {
            "rate": repr(float(self.rate_per_minute)),
            "max_active": str(self.max_active),
            "session_ms": _ms(self.session_seconds),
            "claim_ms": _ms(self.claim_seconds),
            "away_ms": _ms(self.away_after_seconds),
            "keep_ms": _ms(self.keep_place_seconds),
            "method": self.method,
            "told_ms": _ms(self.claim_after_told_seconds),
            "session_max_ms": _ms(self.session_max_seconds),
        }


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


def limits_of(settings: RoomSettings) -> Limits:
    """The limits in a room's settings."""
    return Limits(
        rate_per_minute=settings.rate_per_minute,
        max_active=settings.max_active,
        session_seconds=settings.session_seconds,
        claim_seconds=settings.claim_seconds,
        away_after_seconds=settings.away_after_seconds,
        keep_place_seconds=settings.keep_place_seconds,
        method=settings.method,
        claim_after_told_seconds=settings.claim_after_told_seconds,
        session_max_seconds=settings.session_max_seconds,
    )
