"""The session cookie, and all ways in which it can be invalid."""

from __future__ import annotations

import hashlib
import json

import pytest
from itsdangerous import URLSafeSerializer

from waitroom.control.auth.session_cookie import (
    COOKIE,
    DEVICE_COOKIE,
    MAX_COOKIE_LENGTH,
    AdminCookies,
    AdminSession,
    Device,
    DeviceCookies,
)
from waitroom.edge.http.headers import shop_cookies
from waitroom.errors import InvalidTokenError
from waitroom.tokens import Ticket, Tokens

NEW, OLD, STRANGE = "the newest secret 0", "an older secret 0000", "somebody else's 0000"
SESSION = AdminSession("anna", "an-id", "a-stamp", 1000)
COOKIES = AdminCookies([NEW, OLD])


def forged(payload: object, secret: str = NEW, salt: str = "waitroom.admin-session.1") -> str:
    made = URLSafeSerializer(
        secret, salt=salt, signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    ).dumps(payload)
    return made if isinstance(made, str) else made.decode()


def test_a_signed_session_is_valid_until_it_expires():
    value = COOKIES.sign(SESSION)
    assert COOKIES.read(value, 999.9) == SESSION
    with pytest.raises(InvalidTokenError, match="expired"):
        COOKIES.read(value, 1000)


def test_secrets_can_be_rotated():
    before = AdminCookies([OLD]).sign(SESSION)
    assert COOKIES.read(before, 0) == SESSION
    with pytest.raises(InvalidTokenError):
        AdminCookies([NEW]).read(before, 0)
    assert AdminCookies([NEW]).read(COOKIES.sign(SESSION), 0) == SESSION, "the newest secret signs"


def test_a_changed_character_invalidates_the_cookie():
    value = COOKIES.sign(SESSION)
    for at in range(len(value)):
        # The last character of base64 holds bits of which some count for nothing.
        other = "A" if value[at] not in "ABCD" else "z"
        with pytest.raises(InvalidTokenError):
            COOKIES.read(value[:at] + other + value[at + 1 :], 0)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "anna",
        forged(["anna", "an-id", "a-stamp", 1000], STRANGE),
        forged(["anna", "an-id", "a-stamp", 1000], salt="waitroom.admin-session.2"),
        forged(["anna", "an-id", "a-stamp", 1000], salt="itsdangerous"),
        forged(["anna", "an-id", "a-stamp"]),
        forged(["anna", "an-id", "a-stamp", 1000, 1]),
        forged({"name": "anna"}),
        forged(5),
        Tokens([NEW], "shop").sign_ticket(Ticket(1, 1, 1, 1, 1)),
        json.dumps(["anna", "an-id", "a-stamp", 1000]),
        "\udcff" * 8,
        "a" * (MAX_COOKIE_LENGTH + 1),
    ],
)
def test_foreign_and_malformed_cookies_are_refused(value):
    with pytest.raises(InvalidTokenError):
        COOKIES.read(value, 0)


def test_the_shop_never_receives_the_cookie():
    """The public and the admin listener may share a host name, and cookies ignore ports."""
    line = f"{COOKIE}={COOKIES.sign(SESSION)}; {DEVICE_COOKIE}=x; basket=1".encode()
    assert shop_cookies(line) == b"Cookie: basket=1\r\n"


def test_a_device_and_a_session_are_not_taken_for_each_other():
    devices, device = DeviceCookies([NEW, OLD]), Device("anna", "an-id", 1000)
    value = devices.sign(device)
    assert devices.read(value, 999.9) == device
    with pytest.raises(InvalidTokenError, match="expired"):
        devices.read(value, 1000)
    assert devices.read(DeviceCookies([OLD]).sign(device), 0) == device
    for read, foreign in ((COOKIES.read, value), (devices.read, COOKIES.sign(SESSION)), (devices.read, value[:-1])):
        with pytest.raises(InvalidTokenError):
            read(foreign, 0)
