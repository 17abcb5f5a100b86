"""Logging in on the admin listener: what a password and a code open, and how tries at them are bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pyotp
import pytest

from support.admin_app import TOTP, WORDS, Admin
from waitroom.control.auth.accounts import Role
from waitroom.control.auth.login import WRONG_CREDENTIALS
from waitroom.control.auth.passwords import PasswordChecker, TooBusyError
from waitroom.control.auth.session_cookie import DEVICE_SECONDS, SESSION_SECONDS

pytestmark = pytest.mark.slow

STRANGER = {"X-Forwarded-For": "203.0.113.9"}


async def test_a_login_sets_a_cookie_hidden_from_scripts_and_other_sites(admin: Admin) -> None:
    answer = await admin.log_in("Otto ")
    assert answer.set_cookie is not None
    attributes = set(answer.set_cookie.split("; ")[1:])
    assert attributes == {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={SESSION_SECONDS}"}
    assert (
        await admin.get("/api/v1/me", answer.cookie)
    ).text == '{"name": "otto", "role": "operator", "via": "dashboard"}'
    assert admin.diary.last() == ("otto", "login", "done", "")


async def test_over_https_the_cookie_is_secure(admin: Admin) -> None:
    https = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Host": "127.0.0.1"}
    answer = await admin.log_in("otto", headers={**https, "Origin": "https://127.0.0.1"})
    assert answer.status == 303
    assert "; Secure" in str(answer.set_cookie)
    assert admin.diary.entries[-1].address == "203.0.113.9"


WAYS_TO_BE_WRONG = {
    "wrong password": ("otto", {"password": "incorrect horse"}, "otto"),
    "unknown user": ("nobody", {}, "unknown"),
    "wrong code": ("tina", {"code": "000000"}, "tina"),
}


async def test_the_response_is_the_same_whatever_was_wrong(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    verify = PasswordChecker.verify

    async def watched(self: PasswordChecker, password: str, hashed: str, source: str, *, known: bool) -> bool:
        checked.append(hashed)
        return await verify(self, password, hashed, source, known=known)

    monkeypatch.setattr(PasswordChecker, "verify", watched)
    pages = set()
    for note, (name, fields, told) in WAYS_TO_BE_WRONG.items():
        answer = await admin.log_in(name, **{"password": WORDS, **fields})
        assert (answer.status, answer.set_cookie) == (403, None)
        assert WRONG_CREDENTIALS in answer.text
        pages.add(answer.text.replace(name, "NAME"))
        assert admin.diary.last() == (told, "login", "refused", note)
        assert admin.diary.entries[-1].role is Role.VIEWER
    assert len(pages) == 1
    assert len(checked) == len(WAYS_TO_BE_WRONG), "a password is checked for who is unknown, too"
    assert {hashed.split("$")[3] for hashed in checked} == {"m=8,t=1,p=1"}


async def test_an_unknown_user_cannot_log_in_with_the_placeholder_password(admin: Admin) -> None:
    assert (await admin.log_in("nobody", WORDS)).status == 403


@pytest.mark.parametrize("fields", [{}, {"name": "otto"}, {"password": WORDS}, {"name": "", "password": ""}])
async def test_an_incomplete_form_logs_nobody_in(admin: Admin, fields: dict[str, str]) -> None:
    answer = await admin.post("/login", data={"x": "y", **fields})
    assert (answer.status, answer.set_cookie) == (403, None)


async def test_a_code_is_required_and_works_once(admin: Admin) -> None:
    otp = pyotp.TOTP(TOTP)
    code = otp.at(admin.now)
    assert (await admin.log_in("tina")).status == 403
    assert (await admin.log_in("tina", "wrong words indeed", code=code)).status == 403
    assert (await admin.log_in("tina", code=f"{code[:3]} {code[3:]}")).status == 303
    again = await admin.log_in("tina", code=code)
    assert again.status == 403
    assert admin.diary.last() == ("tina", "login", "refused", "code already used")
    admin.now += 30
    assert (await admin.log_in("tina", code=otp.at(admin.now))).status == 303
    admin.now += 300
    assert (await admin.log_in("tina", code=code)).status == 403, "too old"


async def test_attempts_are_throttled_with_retry_after(admin: Admin) -> None:
    answers = [await admin.log_in("otto", "incorrect horse") for _ in range(5)]
    assert [one.status for one in answers] == [403, 403, 403, 403, 429]
    assert "Too many attempts. Try again in 1 s." in answers[-1].text
    assert answers[-1].headers["Retry-After"] == "1"
    right = await admin.log_in("otto")
    assert (right.status, right.set_cookie) == (429, None), "the right password is not told from a wrong one"
    assert admin.diary.last() == ("otto", "login", "refused", "too many attempts")
    # Who isn't there is slowed as well.
    answers = [await admin.log_in("nobody", headers={"X-Forwarded-For": "198.51.100.1"}) for _ in range(5)]
    assert [one.status for one in answers] == [403, 403, 403, 403, 429]
    assert (await admin.log_in("vera")).status == 303, "others aren't"


async def test_a_known_device_gets_in_while_strangers_try_its_users_name(admin: Admin) -> None:
    answer = await admin.log_in("otto")
    [device] = answer.devices
    attributes = set(device.split("; ")[1:])
    assert attributes == {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={DEVICE_SECONDS}"}
    known = {"Cookie": device.partition(";")[0]}
    while (await admin.log_in("otto", "incorrect horse")).status != 429:
        pass
    assert (await admin.log_in("otto")).status == 429
    assert (await admin.log_in("otto", headers={"Cookie": known["Cookie"][:-1]})).status == 429, "a made-up device"
    assert (await admin.log_in("vera", "incorrect horse", headers=known)).status == 403, "it is otto's, not vera's"
    for _ in range(2):
        answer = await admin.log_in("otto", headers=known)
        assert answer.status == 303
        known = {"Cookie": answer.devices[0].partition(";")[0]}
    # Its own attempts are limited, too.
    answers = [await admin.log_in("otto", "incorrect horse", headers=known) for _ in range(7)]
    assert [one.status for one in answers] == [403] * 6 + [429]
    assert all(one.devices == [] for one in answers)
    assert (await admin.get("/api/v1/me", known)).status == 401, "it is no login"


async def test_too_many_concurrent_logins_are_asked_to_retry(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: object, known: bool) -> bool:
        raise TooBusyError("so many")

    monkeypatch.setattr(PasswordChecker, "verify", busy)
    answer = await admin.log_in("otto")
    assert (answer.status, answer.set_cookie) == (503, None)
    assert answer.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"json": {"name": "otto", "password": WORDS}}, 415),
        ({"data": b"name=otto", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"data": {"name": "x" * 9000}}, 413),
        (
            {
                "data": "&".join(f"a{n}=1" for n in range(20)),
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            },
            400,
        ),
        (
            {
                "data": b"name=%ff%fe&password=%00",
                "headers": {"Content-Type": "application/x-www-form-urlencoded; charset=nonsense"},
            },
            403,
        ),
    ],
)
async def test_other_content_than_a_login_form_is_refused(admin: Admin, more: dict[str, Any], status: int) -> None:
    answer = await admin.post("/login", **more)
    assert (answer.status, answer.set_cookie) == (status, None)


async def test_a_body_of_unknown_length_is_refused(admin: Admin) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"name=otto"

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await admin.post("/login", headers, data=endless())).status == 413


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_foreign_page_logs_nobody_in(admin: Admin, headers: dict[str, str]) -> None:
    answer = await admin.ask("POST", "/login", headers, data={"name": "otto", "password": WORDS})
    assert (answer.status, answer.set_cookie) == (403, None)
    assert admin.diary.last() == ("unknown", "request", "refused", "Cross-site request")
