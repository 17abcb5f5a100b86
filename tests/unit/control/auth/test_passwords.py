"""Passwords and codes of authenticator apps."""

from __future__ import annotations

import asyncio
import base64
import threading
import time

import pyotp
import pytest
from argon2 import PasswordHasher

from waitroom.control.auth import passwords
from waitroom.control.auth.passwords import (
    MAX_CONCURRENT_CHECKS,
    MAX_WAITING_CHECKS,
    MAX_WAITING_EACH,
    PasswordChecker,
    TooBusyError,
    dummy_hash,
    hash_password,
    matching_step,
    new_totp_secret,
    password_flaw,
    provisioning_uri,
)
from waitroom.settings.validators import password_hash, totp_secret

HOME = "203.0.113.9"
WORDS = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(WORDS)
MOST = MAX_CONCURRENT_CHECKS + MAX_WAITING_CHECKS
# RFC 6238, appendix B, cut to six digits.
RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
RFC_CODES = {59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 20000000000: "353130"}


@pytest.fixture
def checks():
    checks = PasswordChecker()
    yield checks
    checks.close()


async def test_only_the_exact_password_is_correct(checks):
    for wrong in ("", WORDS[:-1], WORDS + " ", WORDS.upper(), QUICK, "x" * 100_000):
        assert not await checks.verify(wrong, QUICK, HOME)
    assert await checks.verify(WORDS, QUICK, HOME)


async def test_composed_and_decomposed_letters_are_equal(checks):
    hashed = hash_password("straße café menu")
    assert await checks.verify("straße café menu", hashed, HOME)


async def test_invalid_hashes_match_nothing(checks):
    for hashed in ("", "x", "$argon2id$v=19$m=8,t=1,p=1$", WORDS):
        assert not await checks.verify(WORDS, hashed, HOME)


def test_hashes_are_accepted_by_the_settings_and_salted():
    first, second = hash_password(WORDS), hash_password(WORDS)
    assert password_hash(first) == first != second
    assert "m=65536,t=3,p=4" in first


async def test_concurrent_and_waiting_checks_are_bounded(checks, monkeypatch):
    gate, running, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def slow(*_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert gate.wait(30)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr(passwords, "_verify", slow)
    waiting = [asyncio.ensure_future(checks.verify(WORDS, QUICK, str(n))) for n in range(MOST)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(10, gate.set)  # so that a failing test ends
    with pytest.raises(TooBusyError):
        await checks.verify(WORDS, QUICK, HOME)
    gate.set()
    assert all(await asyncio.gather(*waiting))
    assert most <= MAX_CONCURRENT_CHECKS
    assert await checks.verify(WORDS, QUICK, HOME), "another check is accepted"


async def test_cancelled_checks_free_their_places(checks, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(passwords, "_verify", lambda *_: gate.wait(30))
    waiting = [asyncio.ensure_future(checks.verify(WORDS, QUICK, str(n))) for n in range(MOST)]
    await asyncio.sleep(0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    gate.set()
    assert await checks.verify(WORDS, QUICK, HOME)


class Checked:
    """Checks that take until they are let go, in the order in which they begin."""

    def __init__(self, monkeypatch):
        self.begun, self.gate = [], threading.Semaphore(0)
        monkeypatch.setattr(passwords, "_verify", self._verify)

    def _verify(self, password, _hashed):
        self.begun.append(password)
        return self.gate.acquire(timeout=30)


async def test_many_checks_of_one_source_delay_no_other_by_more_than_one(monkeypatch):
    checked, checks = Checked(monkeypatch), PasswordChecker(1)

    def ask(password, source, *, known=False):
        return asyncio.ensure_future(checks.verify(password, QUICK, source, known=known))

    try:
        flood = [ask(f"made up {n}", "192.0.2.66") for n in range(30)]
        await asyncio.sleep(0)
        operator, known = ask("operator", HOME), ask("known", "ada", known=True)
        for _ in range(MAX_WAITING_EACH + 3):
            checked.gate.release()
        assert all(await asyncio.gather(operator, known))
        answers = await asyncio.gather(*flood, return_exceptions=True)
    finally:
        checks.close()
    assert checked.begun[:4] == ["made up 0", "known", "made up 1", "operator"]
    assert sum(isinstance(answer, TooBusyError) for answer in answers) == 30 - 1 - MAX_WAITING_EACH


async def test_a_full_queue_makes_room_for_another_source(monkeypatch):
    checked, checks = Checked(monkeypatch), PasswordChecker(1)
    try:
        waiting = [
            asyncio.ensure_future(checks.verify("x", QUICK, f"192.0.2.{n // 2}")) for n in range(MAX_WAITING_CHECKS + 1)
        ]
        await asyncio.sleep(0)
        operator = asyncio.ensure_future(checks.verify("operator", QUICK, HOME))
        for _ in range(MAX_WAITING_CHECKS + 2):
            checked.gate.release()
        assert await operator
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        checks.close()
    assert sum(isinstance(answer, TooBusyError) for answer in answers) == 1


async def test_a_check_that_waits_too_long_is_refused(monkeypatch):
    checked, checks = Checked(monkeypatch), PasswordChecker(1)
    monkeypatch.setattr(passwords, "MAX_WAIT_SECONDS", 0.0)
    try:
        first = asyncio.ensure_future(checks.verify("first", QUICK, HOME))
        await asyncio.sleep(0)
        with pytest.raises(TooBusyError):
            await checks.verify("second", QUICK, HOME)
        checked.gate.release()
        assert await first
        checked.gate.release()
        assert await checks.verify("third", QUICK, HOME)
    finally:
        checks.close()
    assert checked.begun == ["first", "third"]


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("short", "shorter than 12"),
        ("x" * 257, "longer than 256"),
        ("with a tab\there", "unprintable"),
        ("with half \udcff a letter", "unprintable"),
    ],
)
def test_flaws_of_passwords_are_named(password, words):
    assert words in password_flaw(password)
    assert password_flaw("x" * 12) == password_flaw("x" * 256) == password_flaw("Ünïcödé wörds ✓") == ""


@pytest.mark.parametrize(("now", "code"), RFC_CODES.items())
def test_codes_match_the_rfc(now, code):
    assert matching_step(RFC_SECRET, code, now) == now // 30


def test_a_code_is_valid_one_interval_early_or_late():
    otp, now = pyotp.TOTP(RFC_SECRET), 1_790_000_010
    found = [matching_step(RFC_SECRET, otp.at(now + 30 * late), now) for late in range(-2, 3)]
    assert found == [None, now // 30 - 1, now // 30, now // 30 + 1, None]


@pytest.mark.parametrize(
    "code", ["", "28708", "2870822", "287 0820", "a87082", "-87082", "\uff12\uff18\uff17\uff10\uff18\uff12", "287082\n"]
)
def test_malformed_codes_are_refused(code):
    assert matching_step(RFC_SECRET, code, 59) is None
    assert matching_step(RFC_SECRET, "287 082", 59) == 1, "with a space, as apps show it"


def test_new_secrets_work_in_apps_and_settings():
    secret = new_totp_secret()
    assert totp_secret(secret) == secret != new_totp_secret()
    uri = pyotp.parse_uri(provisioning_uri("anna@example.com", secret))
    assert (uri.secret, uri.name, uri.issuer) == (secret, "anna@example.com", "Waitroom")
    now = time.time()
    assert matching_step(secret, uri.at(now), now) == now // 30


def test_unknown_users_always_get_the_same_real_hash():
    hashes = ["b", "a", "c"]
    for name in ("", "anna", "ünknown"):
        assert dummy_hash(name, hashes) == dummy_hash(name, sorted(hashes)) in hashes
    assert {dummy_hash(name, hashes) for name in "abc"} == set(hashes)
