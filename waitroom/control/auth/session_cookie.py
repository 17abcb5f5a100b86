"""The cookies of a login session and of a known device, signed like tickets and passes, each with its own salt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from itsdangerous import BadData, URLSafeSerializer

from waitroom.errors import InvalidTokenError

# The edge removes cookies with this prefix from forwarded requests, in case admin and shop share a host name.
COOKIE = "waitroom_admin"
SESSION_SECONDS = 12 * 3600
DEVICE_COOKIE = "waitroom_admin_device"
DEVICE_SECONDS = 180 * 24 * 3600
MAX_COOKIE_LENGTH = 1024

_COOKIE = re.compile(r"[A-Za-z0-9._-]+")


class Expiring(Protocol):
    """The content of a signed value; ``ends_at`` is Unix time in seconds."""

    @property
    def ends_at(self) -> int:
        """When it expires."""


Content = TypeVar("Content", bound=Expiring)


@dataclass(frozen=True, slots=True)
class AdminSession:
    """The content of the cookie.

    Attributes:
        name: The user's name.
        id: The session's id, by which it can be ended.
        session_version: The user's at login; see `waitroom.control.auth.accounts.User.session_version`.
        ends_at: Unix time in seconds.
    """

    name: str
    id: str
    session_version: str
    ends_at: int


@dataclass(frozen=True, slots=True)
class Device:
    """The content of the cookie of a browser in which a user has logged in.

    Attributes:
        name: The user's name; the device is known for this one only.
        id: The device's id, a new one for each login.
        ends_at: Unix time in seconds.
    """

    name: str
    id: str
    ends_at: int


class AdminCookies:
    """Signs and reads session cookies.

    Args:
        secrets: Newest first; the first one signs, all verify.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._serializer = signed_serializer(secrets, "waitroom.admin-session.1")

    def sign(self, session: AdminSession) -> str:
        """Returns the cookie's value."""
        return str(self._serializer.dumps([session.name, session.id, session.session_version, session.ends_at]))

    def read(self, value: str, now: float) -> AdminSession:
        """Returns the session in a cookie, at the Unix time ``now``. Raises `InvalidTokenError`."""
        return read_signed(self._serializer, AdminSession, value, now)


class DeviceCookies:
    """Signs and reads the cookies of known devices.

    Args:
        secrets: Newest first; the first one signs, all verify.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._serializer = signed_serializer(secrets, "waitroom.admin-device.1")

    def sign(self, device: Device) -> str:
        """Returns the cookie's value."""
        return str(self._serializer.dumps([device.name, device.id, device.ends_at]))

    def read(self, value: str, now: float) -> Device:
        """Returns the device in a cookie, at the Unix time ``now``. Raises `InvalidTokenError`."""
        return read_signed(self._serializer, Device, value, now)


def signed_serializer(secrets: Sequence[str], salt: str) -> URLSafeSerializer:
    """Returns the serializer of one kind of value, named by ``salt``. The newest of the secrets, the first, signs."""
    return URLSafeSerializer(
        list(reversed(secrets)),
        salt=salt,
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def read_signed(serializer: URLSafeSerializer, kind: type[Content], value: str, now: float) -> Content:
    """Returns the content of a signed value, at the Unix time ``now``. Raises `InvalidTokenError`."""
    if len(value) > MAX_COOKIE_LENGTH or not _COOKIE.fullmatch(value):
        raise InvalidTokenError("malformed")
    try:
        content = kind(*serializer.loads(value))
    except BadData as error:
        raise InvalidTokenError("invalid signature") from error
    except TypeError as error:
        raise InvalidTokenError("unknown format") from error
    if now >= content.ends_at:
        raise InvalidTokenError("expired")
    return content
