"""Proofs for the shop that a request comes from the gateway; see `waitroom.shop.proof`."""

# mypyc: compile

from __future__ import annotations

from typing import Final

import jwt

from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.outcomes import ForwardOutcome
from waitroom.edge.rooms.session import Session
from waitroom.shop.proof import ALGORITHM, HEADER, ISSUER, LIFETIME_SECONDS, Via

# Half of a proof's life: the other half is for requests on their way, and for clocks that differ.
REUSE_SECONDS: Final = 60.0
# How requests counted under an outcome reach the shop. Only those with a session are admitted.
VIA: Final[dict[ForwardOutcome, Via]] = {
    "admitted": "session",
    "bypass": "bypass",
    "transit": "without_pass",
    "uncovered": "uncovered",
    "without_pass": "without_pass",
}


class Proofs:
    """The proofs of one room in one worker.

    A session keeps its newest proof, so there are at most as many as sessions; other requests share one for each way.

    Args:
        secret: The room's ``shop_secret``; None for a room without proofs.
        room: The room's name.

    Attributes:
        enabled: Whether requests carry a proof.
    """

    __slots__ = ("_room", "_secret", "_shared", "enabled")

    def __init__(self, secret: str | None, room: str) -> None:
        self.enabled = secret is not None
        self._secret = secret or ""
        self._room = room
        self._shared: dict[str, tuple[float, HeaderBlock]] = {}

    def header(self, session: Session | None, via: Via, now: float) -> HeaderBlock:
        """The header to add to a request; empty for a room without proofs.

        Args:
            session: The visitor's session, if the request has one.
            via: How the request reaches the shop; always ``session`` if it has one.
            now: Unix time in seconds.
        """
        if not self.enabled:
            return b""
        if session is not None:
            if not 0.0 <= now - session.proven_at < REUSE_SECONDS:
                session.proof = self._mint(f"{session.id:x}", "session", now)
                session.proven_at = now
            return session.proof
        minted_at, header = self._shared.get(via, (0.0, b""))
        if not 0.0 <= now - minted_at < REUSE_SECONDS:
            header = self._mint(None, via, now)
            self._shared[via] = (now, header)
        return header

    def _mint(self, subject: str | None, via: Via, now: float) -> HeaderBlock:
        claims: dict[str, object] = {"iss": ISSUER, "aud": self._room, "via": via, "iat": int(now)}
        claims["exp"] = int(now) + LIFETIME_SECONDS
        if subject is not None:
            claims["sub"] = subject
        return f"{HEADER}: {jwt.encode(claims, self._secret, algorithm=ALGORITHM)}\r\n".encode()
