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

from waitroom.control.auth.fair_queue import FairQueue
from waitroom.errors import WaitroomError
from waitroom.settings.gateway import available_cores

MIN_LENGTH = 12
MAX_LENGTH = 256
# Each check takes 64 MiB and much of a core: nobody may make us run many at the same time, and visitors come first.
MAX_CONCURRENT_CHECKS = max(1, min(2, available_cores() // 2))
MAX_WAITING_CHECKS = 64
MAX_WAITING_EACH = 8  # of one source
MAX_WAITING_KNOWN = 16  # from known devices, in addition
MAX_WAIT_SECONDS = 10.0
ISSUER = "Waitroom"
CODE_SECONDS = 30
CODE_TOLERANCE = 1  # clocks of phones differ

_CODE = re.compile(r"[0-9]{6}")


_Turn = asyncio.Future[None]


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
    """Checks passwords in its own threads, few at a time.

    Waiting checks are served in turn by their sources, so that a source with many of them delays no other by more than
    one check. Known devices come first.

    Args:
        concurrent: The maximum number of checks at the same time.
    """

    def __init__(self, concurrent: int = MAX_CONCURRENT_CHECKS) -> None:
        self._threads = ThreadPoolExecutor(concurrent, thread_name_prefix="password")
        self._free = concurrent
        self._known = FairQueue[_Turn](MAX_WAITING_KNOWN, MAX_WAITING_EACH)
        self._others = FairQueue[_Turn](MAX_WAITING_CHECKS, MAX_WAITING_EACH)

    async def verify(self, password: str, hashed: str, source: str, *, known: bool = False) -> bool:
        """Whether the password is correct.

        Args:
            password: As sent by the client.
            hashed: An argon2id hash.
            source: Where the check comes from: a neighbourhood, or a known device.
            known: Whether it comes from a known device.

        Raises:
            TooBusyError: Too many other checks are waiting, or this one has waited for `MAX_WAIT_SECONDS`.
        """
        await self._wait_for_turn(self._known if known else self._others, source)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, _verify, password[: MAX_LENGTH + 1], hashed)
        # Nobody can stop a thread: its place is free once it has ended, even if the client has gone.
        work.add_done_callback(lambda _: self._next_turn())
        return await asyncio.shield(work)

    async def _wait_for_turn(self, queue: FairQueue[_Turn], source: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: _Turn = asyncio.get_running_loop().create_future()
        refused = queue.push(source, turn)
        if refused is turn:
            raise TooBusyError("too many logins in progress")
        if refused is not None and not refused.done():
            refused.set_exception(TooBusyError("too many logins in progress"))
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await turn
        except BaseException as error:
            queue.remove(turn)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next_turn()  # it came at the same moment
            if isinstance(error, TimeoutError):
                raise TooBusyError("logins take too long") from error
            raise

    def _next_turn(self) -> None:
        while (turn := self._known.pop() or self._others.pop()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

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
