"""Proofs: signed headers by which a shop recognizes the gateway's requests. Says what they contain, and verifies them.

A proof is a JSON Web Token (RFC 7519) with HS256 in the header ``Waitroom-Proof``. Its claims: ``iss``, always
"waitroom"; ``aud``, the room; ``sub``, the session as in ``Waitroom-Session``, absent if the request has none; ``via``,
see `Via`; ``iat`` and ``exp``, Unix times in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, get_args

import jwt

HEADER: Final = "Waitroom-Proof"
ALGORITHM: Final = "HS256"
ISSUER: Final = "waitroom"
LIFETIME_SECONDS: Final = 120
LEEWAY_SECONDS: Final = 5
# As long as the output of SHA-256, which RFC 7518, section 3.2, requires. Some libraries refuse shorter keys.
MIN_SECRET_LENGTH: Final = 32
MAX_PROOF_LENGTH: Final = 4096

# How a request reaches the shop: with a session, by a bypass rule, on a path that the room doesn't cover, without a
# pass while nobody waits, as a CORS preflight, or as the gateway's own health check.
Via = Literal["session", "bypass", "uncovered", "without_pass", "preflight", "health"]
VIAS: Final[tuple[Via, ...]] = get_args(Via)

# Three parts in base64url, the last of the length of an HMAC-SHA256. Nothing else is decoded at all.
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}", re.ASCII)
# The form of a shop_secret in the gateway's settings.
_SECRET = re.compile(rf"[A-Za-z0-9._~+/=-]{{{MIN_SECRET_LENGTH},}}")
# Paths that a server may read in another way than as they are written.
_AMBIGUOUS = re.compile(r"//|/\.\.?(?:[/;]|\Z)|[\\%]")


class InvalidProofError(Exception):
    """A request has no valid proof. The message is a short reason that quotes nothing of the request."""


def refusal(error: InvalidProofError) -> bytes:
    """The body of the 403 response: plain text."""
    return f"Refused: the request didn't come through the waiting room ({error}).\n".encode()


class ProofVerifier:
    """Decides which requests a shop accepts; the middlewares share it.

    Args:
        room: The name of the room in front of the shop.
        secrets: The room's ``shop_secret``; during a rotation, also the previous or the next one.
        via: The ways by which requests may come; all by default.
        leave_alone: Paths that need no proof. A path that ends with a slash covers all paths below it, any other only
            itself.

    Raises:
        ValueError: A secret is no ``shop_secret``, a way is unknown, a path is invalid, or no secret is given.
        TypeError: A text was given instead of a list.
    """

    def __init__(
        self,
        *,
        room: str,
        secrets: Sequence[str],
        via: Iterable[Via] = VIAS,
        leave_alone: Iterable[str] = (),
    ) -> None:
        for name, value in (("secrets", secrets), ("via", via), ("leave_alone", leave_alone)):
            if isinstance(value, str):
                raise TypeError(f'{name} must be a list, such as ["..."], not a single text.')
        if not room:
            raise ValueError("room must not be empty: give the name of the room in the gateway's settings.")
        if not secrets:
            raise ValueError("secrets must not be empty: give the room's shop_secret.")
        for number, secret in enumerate(secrets, 1):
            if not _SECRET.fullmatch(secret):
                raise ValueError(
                    f"secret {number} must have at least {MIN_SECRET_LENGTH} characters, all of them letters, digits "
                    "or -._~+/= (no line end). Give the room's shop_secret; `waitroom secret` generates one."
                )
        self._room = room
        self._secrets = tuple(secrets)
        self._via = frozenset(via)
        if unknown := self._via - set(VIAS):
            raise ValueError(f"via has unknown values: {', '.join(sorted(unknown))}. Use some of {', '.join(VIAS)}.")
        paths = tuple(leave_alone)
        for path in paths:
            if not path.startswith("/"):
                raise ValueError(f'leave_alone has "{path}", which must begin with "/".')
            if path == "/":
                raise ValueError('leave_alone has "/", which covers every path. Name the paths that need no proof.')
        self._exact = frozenset(paths)
        self._prefixes = tuple(path for path in paths if path.endswith("/"))

    def leaves_alone(self, path: str) -> bool:
        """Whether a path needs no proof.

        Args:
            path: The decoded path, as the shop's routes see it.
        """
        if path in self._exact:
            return True
        return path.startswith(self._prefixes) and not _AMBIGUOUS.search(path)

    def verify(self, proofs: Sequence[str]) -> dict[str, Any]:
        """Returns the claims of a request's proof.

        Args:
            proofs: The values of all its ``Waitroom-Proof`` headers.

        Raises:
            InvalidProofError: There isn't exactly one, or it isn't valid.
        """
        if len(proofs) != 1:
            raise InvalidProofError("several proofs" if proofs else "no proof")
        proof = proofs[0]
        if len(proof) > MAX_PROOF_LENGTH or not _FORM.fullmatch(proof):
            raise InvalidProofError("malformed proof")
        claims = self._decode(proof)
        via = claims.get("via")
        if not isinstance(via, str) or via not in self._via:
            raise InvalidProofError("not accepted this way")
        return claims

    def _decode(self, proof: str) -> dict[str, Any]:
        for secret in self._secrets:
            try:
                return jwt.decode(
                    proof,
                    secret,
                    algorithms=[ALGORITHM],
                    audience=self._room,
                    issuer=ISSUER,
                    leeway=LEEWAY_SECONDS,
                    # A gateway whose clock is a little ahead is no forgery, so the time of issue isn't compared.
                    options={"require": ["iss", "aud", "iat", "exp"], "strict_aud": True, "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise InvalidProofError("expired proof, or wrong clock") from None
            except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
                raise InvalidProofError("proof of another room") from None
            except (jwt.PyJWTError, ValueError, RecursionError):
                raise InvalidProofError("malformed proof") from None
        raise InvalidProofError("signed with another secret")
