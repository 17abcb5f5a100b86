"""Proofs for a shop, as the gateway makes them."""

from __future__ import annotations

import time

from waitroom.edge.rooms.proofs import Proofs
from waitroom.edge.rooms.session import Session
from waitroom.shop import Via

SECRET = "a-secret-of-the-shop-0123456789-abcdefgh"


def proof(session: str = "", *, room: str = "sale", via: Via = "bypass", secret: str = SECRET, age: int = 0) -> str:
    """The value of the header; of a request with that session, if there is one."""
    now = time.time() - age
    end = int(now) + 900
    header = Proofs(secret, room).header(Session(int(session, 16), end, end, end) if session else None, via, now)
    return header.decode().removeprefix("Waitroom-Proof: ").removesuffix("\r\n")
