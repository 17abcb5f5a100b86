"""Accounts: users and API tokens with their roles, from the settings and from ``people.json`` in ``data_dir``."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import dataclasses as checked

from waitroom.errors import WaitroomError
from waitroom.process.data_dir import create_directory, write_durably
from waitroom.settings import UserSettings

ACCOUNTS_FILE = "people.json"
LOCAL_TOKEN_FILE = "operator.token"  # noqa: S105 - a file's name
LOCK_TIMEOUT_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.05
TOKEN_PREFIX = "wrt_"  # noqa: S105 - so that secret scanners recognize leaked tokens

_TOKEN_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


class AccountsError(WaitroomError):
    """``people.json`` can't be read, written or changed. The message says how to fix that and quotes no secret."""


class Role(StrEnum):
    """The permissions of an account.

    Each role of people and programs that operate rooms includes those before it. ``shop`` is for the tokens of shops
    only: it has none of these permissions, and is limited to `Actor.rooms`.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SHOP = "shop"

    def includes(self, required: Role) -> bool:
        """Whether this role includes the permissions of ``required``."""
        if Role.SHOP in (self, required):
            return self is required
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(required)


UserRole = Literal["viewer", "operator", "admin"]
"""The roles of users."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of an action.

    Attributes:
        name: A user's name; ``token:NAME`` for an API token; ``local`` for access from this machine.
        role: The actor's role.
        address: The client's address, as reported by trusted proxies.
        via: ``dashboard``, ``api``, ``cli`` or ``autopilot``.
        rooms: The rooms that the role `Role.SHOP` is limited to; empty for others.
    """

    name: str
    role: Role
    address: str
    via: str
    rooms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """A user who may log in."""

    name: str
    role: Role
    password_hash: str = field(repr=False)
    totp_secret: str | None = field(default=None, repr=False)
    in_settings: bool = False

    @property
    def session_version(self) -> str:
        """Part of a session: changes with role, password or second factor, which ends the user's sessions."""
        known = json.dumps([self.name, self.role, self.password_hash, self.totp_secret])
        return hashlib.sha256(known.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token.

    Attributes:
        name, role: Those of its `Actor`.
        sha256: The digest of the token.
        created_at: Unix time in seconds.
        rooms: The rooms that the role `Role.SHOP` is limited to; empty for others. They need not exist.
    """

    name: str
    role: Role
    sha256: str = field(repr=False)
    created_at: int = 0
    rooms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accounts:
    """All users and tokens, by name."""

    users: Mapping[str, User] = field(default_factory=dict)
    tokens: Mapping[str, ApiToken] = field(default_factory=dict)

    def find_token(self, token: str) -> ApiToken | None:
        """Returns the matching token, in constant time, whether or not there is one."""
        digest, found = token_digest(token), None
        for one in self.tokens.values():
            if hmac.compare_digest(one.sha256, digest):
                found = one
        return found


def token_digest(token: str) -> str:
    """Returns the digest stored for a token. Tokens are too long to be guessed, so plain SHA-256 is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


_STRICT = ConfigDict(extra="forbid")


@checked.dataclass(frozen=True, config=_STRICT)
class _StoredUser:
    role: UserRole
    password_hash: str
    totp_secret: str | None = None


@checked.dataclass(frozen=True, config=_STRICT)
class _StoredToken:
    role: Role
    sha256: str
    created_at: int
    rooms: list[str] = field(default_factory=list)


@checked.dataclass(frozen=True, config=_STRICT)
class _StoredAccounts:
    users: dict[str, _StoredUser] = field(default_factory=dict)
    tokens: dict[str, _StoredToken] = field(default_factory=dict)


_STORED_ACCOUNTS = TypeAdapter(_StoredAccounts)


class AccountsFile:
    """``people.json``: read by the control process, changed by the ``waitroom user`` and ``waitroom token`` commands.

    Changes are atomic; of two concurrent ones, one waits.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / ACCOUNTS_FILE

    def read(self) -> Accounts:
        """Returns all accounts in the file; none if it is missing. Raises `AccountsError`."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Accounts()
        except OSError as error:
            raise AccountsError(_unreadable(self.path, error)) from None
        try:
            stored = _STORED_ACCOUNTS.validate_json(text)
        except ValidationError:
            pass  # the error would quote the file's contents
        else:
            return Accounts(
                {n: User(n, Role(one.role), one.password_hash, one.totp_secret) for n, one in stored.users.items()},
                {
                    n: ApiToken(n, one.role, one.sha256, one.created_at, tuple(one.rooms))
                    for n, one in stored.tokens.items()
                },
            )
        raise AccountsError(f"{self.path} is corrupt: restore a copy, or delete it and add the users again.")

    def add_user(self, user: User) -> None:
        """Adds a user. Raises `AccountsError`."""

        def add(accounts: Accounts) -> Accounts:
            if user.name in accounts.users:
                raise AccountsError(
                    f'The user "{user.name}" already exists. To change it: waitroom user password, role or totp.'
                )
            return Accounts({**accounts.users, user.name: user}, accounts.tokens)

        self._change(add)

    def change_user(self, name: str, change: Callable[[User], User]) -> None:
        """Replaces a user by the result of ``change``. Raises `AccountsError`."""

        def replace(accounts: Accounts) -> Accounts:
            others = _without(accounts.users, name, "user")
            return Accounts({**others, name: change(accounts.users[name])}, accounts.tokens)

        self._change(replace)

    def remove_user(self, name: str) -> None:
        """Removes a user. Raises `AccountsError`."""
        self._change(lambda accounts: Accounts(_without(accounts.users, name, "user"), accounts.tokens))

    def add_token(self, name: str, role: Role, rooms: Sequence[str] = ()) -> str:
        """Creates and returns a token, which is stored only as a digest. Raises `AccountsError`.

        Args:
            name: Its name.
            role: Its role.
            rooms: The rooms that the role `Role.SHOP` is limited to, at least one; none for other roles.
        """
        if role is Role.SHOP and not rooms:
            raise AccountsError("A token with the role shop needs a room: add --room ROOM, once for each room.")
        if role is not Role.SHOP and rooms:
            raise AccountsError(f"The role {role} is valid for all rooms: omit --room, or use --role shop.")
        if not _TOKEN_NAME.fullmatch(name):
            raise AccountsError(f'"{name}" is not a valid token name: use 1 to 64 of a-z, 0-9, ".", "_", "@" and "-".')
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)

        def add(accounts: Accounts) -> Accounts:
            if name in accounts.tokens:
                raise AccountsError(f'The token "{name}" already exists: remove it first, or choose another name.')
            one = ApiToken(name, role, token_digest(token), int(time.time()), tuple(sorted(set(rooms))))
            return Accounts(accounts.users, {**accounts.tokens, name: one})

        self._change(add)
        return token

    def remove_token(self, name: str) -> None:
        """Removes a token. Raises `AccountsError`."""
        self._change(lambda accounts: Accounts(accounts.users, _without(accounts.tokens, name, "token")))

    def _change(self, change: Callable[[Accounts], Accounts]) -> None:
        create_directory(self.path.parent)
        with _locked(self.path.with_suffix(".lock")):
            accounts = change(self.read())
            stored = {
                "users": {
                    one.name: {"role": one.role, "password_hash": one.password_hash, "totp_secret": one.totp_secret}
                    for one in accounts.users.values()
                },
                "tokens": {
                    # Earlier versions refuse a file with a field that they don't know.
                    one.name: {"role": one.role, "sha256": one.sha256, "created_at": one.created_at}
                    | ({"rooms": one.rooms} if one.rooms else {})
                    for one in accounts.tokens.values()
                },
            }
            write_private(self.path, json.dumps(stored, indent=1) + "\n")


class AccountRegistry:
    """The current accounts: those of the settings, and those of the file, which is reloaded when it has changed.

    A name in the settings takes precedence over the same one in the file.
    """

    def __init__(self, data_dir: Path, settings_users: Iterable[UserSettings]) -> None:
        self._file = AccountsFile(data_dir)
        self._settings_users = {user.name: user for user in users_from_settings(settings_users)}
        self._loaded: tuple[object, Accounts] | None = None

    def current(self) -> Accounts:
        """Reloads the file if it has changed, which blocks. Raises `AccountsError`."""
        version = _file_version(self._file.path)
        if self._loaded is None or self._loaded[0] != version:
            accounts = self._file.read()
            self._loaded = (version, Accounts({**accounts.users, **self._settings_users}, accounts.tokens))
        return self._loaded[1]


def users_from_settings(settings: Iterable[UserSettings]) -> list[User]:
    """Returns the users that the settings define."""
    return [User(one.name, Role(one.role), one.password_hash, one.totp_secret, in_settings=True) for one in settings]


def has_accounts(data_dir: Path) -> bool:
    """Whether users or tokens are stored in ``data_dir``; true also if only the gateway's user may know."""
    try:
        (data_dir / ACCOUNTS_FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def new_local_token() -> str:
    """Returns a token for local access; it is valid until the next start."""
    return secrets.token_urlsafe(32)


def write_local_token(data_dir: Path, token: str) -> None:
    """Writes the token for readers of ``data_dir``. Raises `AccountsError`, or `StartError` if it can't be created."""
    create_directory(data_dir)
    write_private(data_dir / LOCAL_TOKEN_FILE, token + "\n")


def write_private(path: Path, text: str) -> None:
    """Writes a file atomically, readable only by its owner. Raises `AccountsError`."""
    try:
        write_durably(path, text)
    except OSError as error:
        raise AccountsError(f"{path} can't be written: {error.strerror}. Run this as the gateway's user.") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock. Raises `AccountsError`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AccountsError(f"{path} can't be opened: {error.strerror}. Run this as the gateway's user.") from None
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise AccountsError("Another command is changing users or tokens; try again.") from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _without(table: Mapping[str, Any], name: str, kind: str) -> dict[str, Any]:
    if name not in table:
        known = ", ".join(sorted(table)) or "none"
        raise AccountsError(f'Unknown {kind} "{name}". The file has: {known}.')
    return {key: value for key, value in table.items() if key != name}


def _file_version(path: Path) -> object:
    """Returns a value that changes with the file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccountsError(_unreadable(path, error)) from None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} can't be read: {error.strerror}. Make it readable for the gateway's user."
