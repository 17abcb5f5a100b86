"""Passwords (argon2id) and the codes of authenticator apps (TOTP, RFC 6238)."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pyotp.utils import strings_equal

from waitroom.errors import WaitroomError

MIN_LENGTH = 12
MAX_LENGTH = 256
# Each check takes 64 MiB and much of a core: nobody may make us run many at the same time.
MAX_CONCURRENT_CHECKS = 2
MAX_WAITING_CHECKS = 16
ISSUER = "Waitroom"
CODE_SECONDS = 30
CODE_TOLERANCE = 1  # clocks of phones differ

_CODE = re.compile(r"[0-9]{6}")


class TooBusyError(WaitroomError):
    """Too many password checks are running; one more would wait too long."""


def password_flaw(password: str) -> str:
    """Returns why a password is rejected; empty if it is accepted."""
    if len(password) < MIN_LENGTH:
        return f"is shorter than {MIN_LENGTH} characters: use a few words."
    if len(password) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters."
    if not password.isprintable():
        return "contains unprintable characters."
    return ""


def hash_password(password: str) -> str:
    """Returns an argon2id hash with the parameters of the second choice in RFC 9106."""
    return PasswordHasher().hash(_normalized(password))


class PasswordChecker:
    """Checks passwords in its own threads, few at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT_CHECKS, thread_name_prefix="password")
        self._pending = 0

    async def verify(self, password: str, hashed: str) -> bool:
        """Whether the password is correct. Raises `TooBusyError`."""
        if self._pending >= MAX_CONCURRENT_CHECKS + MAX_WAITING_CHECKS:
            raise TooBusyError("too many logins in progress")
        self._pending += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _verify, password[: MAX_LENGTH + 1], hashed)
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Lets running checks finish and starts no others."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _verify(password: str, hashed: str) -> bool:
    try:
        return PasswordHasher().verify(hashed, _normalized(password))
    except (VerificationError, InvalidHashError):
        return False


def _normalized(password: str) -> str:
    """Normalizes a password, however a keyboard composes its letters."""
    return unicodedata.normalize("NFKC", password)


def matching_step(secret: str, code: str, now: float) -> int | None:
    """Returns the 30-second interval that a code belongs to: that of the Unix time ``now`` or a neighbour.

    Returns:
        The interval's number, by which reuse of a code is detected; None if the code is wrong.
    """
    code = code.replace(" ", "")
    if not _CODE.fullmatch(code):
        return None
    otp, middle, found = pyotp.TOTP(secret), int(now // CODE_SECONDS), None
    for step in range(middle - CODE_TOLERANCE, middle + CODE_TOLERANCE + 1):
        if strings_equal(otp.generate_otp(step), code):
            found = step
    return found


def new_totp_secret() -> str:
    """Returns a new secret for an authenticator app."""
    return pyotp.random_base32()


def provisioning_uri(name: str, secret: str) -> str:
    """Returns the URI that authenticator apps import, as text or as a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def dummy_hash(name: str, hashes: Sequence[str]) -> str:
    """Returns a hash to check the password of an unknown user against, so that it takes as long as a known one's.

    It is a real user's, always the same for a name. So users whose hashes take different times don't stand out.
    """
    return sorted(hashes)[sum(name.encode()) % len(hashes)]
