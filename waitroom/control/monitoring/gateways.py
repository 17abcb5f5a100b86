"""Comparison of a gateway with its store and with the other gateways over it: secrets and clocks. Pure.

Gateways that share a store must share a secret: a ticket that one of them signs is no ticket to the others, so each hop
sends its visitor to the end of the queue. They compare digests, which don't reveal the secrets.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

# Hysteresis, so that a clock near the threshold doesn't cause line after line.
WARN_SECONDS: Final = 2.0
CLEAR_SECONDS: Final = 1.0
MAX_SECRETS: Final = 16
MAX_HOST_LENGTH: Final = 64
MAX_NAMED: Final = 3

# The beginnings of the hints on the gateway as a whole.
_SECRETS_HINT: Final = "Gateways with other secrets use this store"
_CLOCK_HINT: Final = "The clock of this machine is"
GATEWAY_HINTS: Final = (_SECRETS_HINT, _CLOCK_HINT)

_PURPOSE: Final = b"waitroom.fingerprint.1"


def fingerprint(secret: str) -> str:
    """A digest of a secret, in hexadecimal: equal for equal secrets. A ticket reveals as much of the secret."""
    return hmac.digest(secret.encode(), _PURPOSE, "sha256")[:16].hex()


@dataclass(frozen=True, slots=True)
class GatewayInfo:
    """A gateway as it announces itself.

    Attributes:
        host: The name of its machine.
        secrets: The fingerprints of its secrets, newest first.
    """

    host: str
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, host: str, secrets: Sequence[str]) -> GatewayInfo:
        """Describes a gateway by its machine's name and its secrets, newest first."""
        return cls(_printable(host), tuple(fingerprint(secret) for secret in secrets[:MAX_SECRETS]))

    @classmethod
    def parse(cls, stored: bytes) -> GatewayInfo | None:
        """Parses `json`; None if it isn't valid: another version, or somebody else, may have written it."""
        try:
            found = json.loads(stored)
            secrets = tuple(str(one) for one in found["secrets"][:MAX_SECRETS])
            return cls(_printable(str(found["host"])), secrets) if secrets else None
        except (ValueError, TypeError, KeyError):
            return None

    def json(self) -> str:
        """The form for the store."""
        return json.dumps({"host": self.host, "secrets": self.secrets})

    def accepts(self, other: GatewayInfo) -> bool:
        """Whether the two can serve the same visitors: one knows the newest secret of the other.

        During a rotation the gateways that have it already know the old one.
        """
        return self.secrets[0] in other.secrets or other.secrets[0] in self.secrets


def with_other_secrets(own: GatewayInfo, others: Iterable[GatewayInfo]) -> tuple[str, ...]:
    """The machines of the gateways that share no secret with this one, sorted."""
    return tuple(sorted({other.host for other in others if not own.accepts(other)}))


@dataclass(frozen=True, slots=True)
class ClockReading:
    """This machine's clock compared with the store's.

    Attributes:
        ahead: Seconds by which it is ahead; negative if it is behind.
        error: The most by which that may be wrong: half of the round trip.
    """

    ahead: float
    error: float

    @classmethod
    def of(cls, store: float, local: float, round_trip: float) -> ClockReading:
        """Compares a reading of the store's clock with this machine's.

        Args:
            store: The store's Unix time.
            local: This machine's Unix time when the call was sent.
            round_trip: Seconds from the call to the reply.
        """
        return cls(local + round_trip / 2 - store, round_trip / 2)


def clock_differs(reading: ClockReading, differed: bool) -> bool:
    """Whether to warn of a clock's difference. ``differed``: whether that was already so."""
    least = max(0.0, abs(reading.ahead) - reading.error)
    return least > (CLEAR_SECONDS if differed else WARN_SECONDS)


def clock_text(reading: ClockReading) -> str:
    """The difference in words, such as ``7 h ahead of the store's clock``."""
    seconds = abs(reading.ahead)
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} {_direction(reading)} the store's clock"
    return f"{seconds:.1f} s {_direction(reading)} the store's clock"


def gateway_hints(reading: ClockReading | None, differs: bool, strangers: Sequence[str]) -> list[str]:
    """Hints on the gateway as a whole, each with what to do."""
    found = []
    if strangers:
        named = ", ".join(strangers[:MAX_NAMED]) + (", \N{HORIZONTAL ELLIPSIS}" if len(strangers) > MAX_NAMED else "")
        found.append(
            f"{_SECRETS_HINT} ({named}): visitors lose their places between them. Give all gateways the same secrets."
        )
    if differs and reading is not None:
        found.append(
            f"{_CLOCK_HINT} {clock_text(reading)}. Visitors aren't affected, but logs, one-time codes "
            "and certificates are. Synchronize it with NTP."
        )
    return found


def _direction(reading: ClockReading) -> str:
    return "ahead of" if reading.ahead > 0 else "behind"


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:MAX_HOST_LENGTH] or "unknown"
