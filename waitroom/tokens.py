"""Tickets and passes: short strings signed with itsdangerous, held by the visitor.

A token is its fields in hexadecimal, joined by dots, and an HMAC-SHA256 signature. The salt names the kind of token,
the version of its format and the room, so that a token is valid for nothing else.
"""

# mypyc: compile

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from itsdangerous import BadSignature, Signer
from itsdangerous.encoding import base64_encode
from itsdangerous.signer import SigningAlgorithm

from waitroom.bounded import put
from waitroom.errors import InvalidTokenError

TICKET_SECONDS: Final = 7 * 86400
MAX_TOKEN_BYTES: Final = 256
FORMAT: Final = 1

BOUND_TO_AGENT: Final = 1
BOUND_TO_NETWORK: Final = 2
MAX_CACHED_BINDINGS: Final = 4096
MAX_CACHED_VALUE_BYTES: Final = 512  # bytes; clients choose them, and thousands of long ones would fill the memory

# Base64 has several spellings of the same bytes; a token has one. The last character holds four bits of 256.
_TOKEN: Final = re.compile(rb"[0-9a-f]+(?:\.[0-9a-f]+)*\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


@dataclass(slots=True)
class Ticket:
    """A place in the queue.

    Attributes:
        place: The number that orders the queue; never changes.
        generation: The generation of the store that gave the place.
        joined_at: Unix time in seconds.
        start_position: The position at the time of joining, for the progress bar.
        promised_seconds: The wait shown at the time of joining, the middle of the range; 0 if it was unknown.
    """

    place: int
    generation: int
    joined_at: int
    start_position: int
    promised_seconds: int

    def expired(self, now: float) -> bool:
        """Whether the ticket is too old at the Unix time ``now``."""
        return now >= self.joined_at + TICKET_SECONDS


@dataclass(slots=True)
class Pass:
    """A session in the shop.

    Attributes:
        session: The session's number, which is the place that was called.
        expires_at: Unix time in seconds; extended by activity.
        ends_at: Unix time in seconds; the end of the session, including holds.
        held: The seconds by which holds have moved ``ends_at`` beyond the session's hard end.
        binding: The binding of the pass, one of `Tokens.bindings`; 0 for none.
    """

    session: int
    expires_at: int
    ends_at: int
    held: int = 0
    binding: int = 0


class Tokens:
    """Signs and reads the tokens of one room.

    Attributes:
        digest_key: Keys the digests of values that must not be stored in the clear; the same for all workers.

    Args:
        secrets: Newest first; the first signs, all verify.
        room: The room's name.
    """

    def __init__(self, secrets: Sequence[str], room: str) -> None:
        oldest_first = list(reversed(secrets))
        self._tickets = _signer(oldest_first, "ticket", room)
        self._passes = _signer(oldest_first, "pass", room)
        self._arrivals = _signer(oldest_first, "arrival", room)
        self.digest_key = _key(secrets[0], f"waitroom.digest.{FORMAT}.{room}")
        self._binding_keys = [_key(secret, f"waitroom.binding.{FORMAT}.{room}") for secret in secrets]
        self._bindings: dict[tuple[int, bytes], tuple[int, ...]] = {}

    def sign_ticket(self, ticket: Ticket) -> str:
        """The ticket as the visitor stores it."""
        return _sign(
            self._tickets,
            ticket.place,
            ticket.generation,
            *(ticket.joined_at, ticket.start_position, ticket.promised_seconds),
        )

    def read_ticket(self, value: bytes) -> Ticket:
        """The ticket in a cookie or header. Raises `InvalidTokenError`."""
        return Ticket(*_read(self._tickets, value, 5, 5))

    def sign_pass(self, pass_: Pass) -> str:
        """The pass as the visitor stores it."""
        # Trailing zero fields are left out: most passes are short, and releases without these fields can read them.
        fields = [pass_.session, pass_.expires_at, pass_.ends_at]
        if pass_.held or pass_.binding:
            fields.append(pass_.held)
        if pass_.binding:
            fields.append(pass_.binding)
        return _sign(self._passes, *fields)

    def read_pass(self, value: bytes) -> Pass:
        """The pass in a cookie or header, which may have expired. Raises `InvalidTokenError`."""
        return Pass(*_read(self._passes, value, 3, 5))

    def sign_arrival(self, arrived_at: int) -> str:
        """The signed time of a visitor's first arrival, Unix time in seconds, for visitors without a place yet."""
        return _sign(self._arrivals, arrived_at)

    def read_arrival(self, value: bytes) -> int:
        """The time passed to `sign_arrival`. Raises `InvalidTokenError`."""
        return _read(self._arrivals, value, 1, 1)[0]

    def bindings(self, kind: int, value: bytes) -> tuple[int, ...]:
        """The bindings of passes to a value, one per secret, the newest first.

        A keyed hash: a pass doesn't reveal the value it is bound to.

        Args:
            kind: The kind of value, `BOUND_TO_AGENT` or `BOUND_TO_NETWORK`; `binding_kind` recovers it.
            value: The value.
        """
        found = self._bindings.get((kind, value))
        if found is None:
            found = tuple([_binding(key, kind, value) for key in self._binding_keys])
            if len(value) <= MAX_CACHED_VALUE_BYTES:
                put(self._bindings, (kind, value), found, MAX_CACHED_BINDINGS)
        return found


def binding_kind(binding: int) -> int:
    """The kind of value a pass is bound to."""
    return binding & 3


def _binding(key: bytes, kind: int, value: bytes) -> int:
    digest = hmac.digest(key, b"%d:%b" % (kind, value), "sha256")
    return int.from_bytes(digest[:5], "big") << 2 | kind


def _signer(secrets: list[str], kind: str, room: str) -> Signer:
    """Signs and verifies with keys that are derived once, not again for every token."""
    salt = f"waitroom.{kind}.{FORMAT}.{room}"
    keys = [_key(secret, salt) for secret in secrets]
    algorithm = cast(SigningAlgorithm, _HmacSha256())
    return Signer(keys, key_derivation="none", digest_method=hashlib.sha256, algorithm=algorithm)


def _key(secret: str, salt: str) -> bytes:
    return Signer(secret, salt=salt, digest_method=hashlib.sha256).derive_key()


class _HmacSha256:
    """HMAC-SHA256 (RFC 2104) that sets up each key once, not again for every token; a `SigningAlgorithm`."""

    def __init__(self) -> None:
        self._begun: dict[bytes, hmac.HMAC] = {}

    def verify_signature(self, key: bytes, value: bytes, sig: bytes) -> bool:
        return hmac.compare_digest(sig, self.get_signature(key, value))

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = hmac.new(key, digestmod=hashlib.sha256)
        one = begun.copy()
        one.update(value)
        return one.digest()


def _sign(signer: Signer, *fields: int) -> str:
    """Like `Signer.sign`, which spends more time looking up the newest key than on the signature."""
    value = ".".join([f"{field:x}" for field in fields]).encode()
    signature = signer.algorithm.get_signature(signer.secret_keys[-1], value)
    return (value + b"." + base64_encode(signature)).decode()


def _read(signer: Signer, value: bytes, least: int, most: int) -> list[int]:
    if len(value) > MAX_TOKEN_BYTES:
        raise InvalidTokenError("token too long")
    if not _TOKEN.fullmatch(value):
        raise InvalidTokenError("malformed token")
    try:
        fields = signer.unsign(value).split(b".")
    except BadSignature as error:
        raise InvalidTokenError("invalid signature") from error
    if not least <= len(fields) <= most:
        raise InvalidTokenError("unsupported token format")
    return [int(field, 16) for field in fields]
