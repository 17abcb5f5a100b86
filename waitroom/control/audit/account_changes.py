"""Records changes of accounts in the audit log, including those made while no control process ran.

The state recorded last is kept beside ``people.json`` in ``data_dir``: the role of each user and token, and a digest of
the rest. A process that is killed between writing the log and writing this file records the same change twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import (
    AccountRegistry,
    Accounts,
    AccountsError,
    Actor,
    ApiToken,
    Role,
    write_private,
)
from waitroom.errors import StoreUnavailable
from waitroom.settings import UserSettings

log = structlog.get_logger()

RECORDED_FILE = "people.noted.json"
CHECK_SECONDS = 2.0

# Role and digest by name.
Snapshot = Mapping[str, tuple[str, str]]

# A command on this machine, or an editor: neither file records the author.
_LOCAL = Actor("local", Role.ADMIN, "", "cli")


class AccountWatcher:
    """Watches the users and tokens of one gateway.

    Args:
        data_dir: The directory of ``people.json``.
        settings_users: The users that the settings define.
        audit: The audit log.
    """

    def __init__(self, data_dir: Path, settings_users: Iterable[UserSettings], audit: Audit) -> None:
        self._registry = AccountRegistry(data_dir, settings_users)
        self._path = data_dir / RECORDED_FILE
        self._audit = audit
        self._recorded: Snapshot | None = None

    async def check(self) -> None:
        """Records what has changed since the last record."""
        try:
            now = snapshot(await asyncio.to_thread(self._registry.current))
            if self._recorded is None:
                self._recorded = await asyncio.to_thread(self._load_recorded)
            if now == self._recorded:
                return
            old, new = difference(self._recorded, now), difference(now, self._recorded)
            await self._audit.write(_LOCAL, "people", old=old, new=new)
            self._recorded = now
            await asyncio.to_thread(write_private, self._path, json.dumps(now) + "\n")
        except StoreUnavailable:
            pass  # the next check retries
        except AccountsError as error:
            log.error("account changes not recorded in the audit log", cause=str(error))

    def _load_recorded(self) -> Snapshot:
        """Returns the state recorded last; empty if the file is missing or unreadable, so that all is recorded."""
        try:
            stored = json.loads(self._path.read_bytes())
            return {str(name): (str(role), str(digest)) for name, (role, digest) in stored.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("recording all accounts in the audit log again", cause=type(error).__name__)
        return {}


def snapshot(accounts: Accounts) -> Snapshot:
    """Returns the state to compare. Tokens are prefixed, so that their names cannot collide with users'."""
    users = {name: (str(user.role), user.session_version) for name, user in accounts.users.items()}
    tokens = {f"token:{name}": (_role(token), _digest(token.sha256)) for name, token in accounts.tokens.items()}
    return {**users, **tokens}


def _role(token: ApiToken) -> str:
    return f"{token.role} of {', '.join(token.rooms)}" if token.rooms else str(token.role)


def difference(accounts: Snapshot, others: Snapshot) -> dict[str, str]:
    """Returns the roles of accounts missing or different in ``others``; of changed credentials only the fact."""
    return {
        name: role if name not in others or others[name][0] != role else "other credentials"
        for name, (role, digest) in accounts.items()
        if others.get(name) != (role, digest)
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
