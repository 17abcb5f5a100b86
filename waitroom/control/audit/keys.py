"""The keys of the audit log: without them nobody can make entries that pass for those of the gateway."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from waitroom.process.data_dir import AUDIT_KEY_FILE, derived_audit_key, load_or_create_secret

ID_DIGITS = 16


class AuditKeys:
    """The keys that this gateway knows: the first one signs, all verify.

    Args:
        keys: At least one.

    Attributes:
        ids: An id for each key, which doesn't disclose it.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {_mac(key, "id")[:ID_DIGITS]: key for key in keys}
        self.ids = tuple(self._keys)

    def mac(self, key_id: str, *parts: str | int) -> str:
        """Returns the HMAC-SHA256 of these parts, none of which contains a line feed; `KeyError` for an unknown key."""
        return _mac(self._keys[key_id], *parts)

    def is_valid(self, mac: str, key_id: str, *parts: str | int) -> bool:
        """Whether ``mac`` is that of these parts by a key that is known."""
        if key_id not in self._keys:
            return False
        return hmac.compare_digest(mac.encode(), self.mac(key_id, *parts).encode())

    def signing_id(self, current: str, replaced: Sequence[str]) -> str:
        """Returns the id of the key to sign with.

        It is the first one, unless another gateway has replaced that by one of ours already: during a rotation no key
        may return.

        Args:
            current: The id of the key that signed last; "" for none.
            replaced: The ids of the keys that others have replaced.
        """
        first = self.ids[0]
        return current if current in self._keys and first in replaced else first


def load_keys(data_dir: Path, key: str | None, accepted: Sequence[str]) -> AuditKeys:
    """Returns the keys of the settings, or those in the file of `data_dir`, one per line. Raises `StartError`.

    Args:
        data_dir: The directory of the file.
        key: The setting ``audit_key``.
        accepted: The setting ``accepted_audit_keys``.
    """
    keys = [key] if key is not None else load_or_create_secret(data_dir / AUDIT_KEY_FILE).splitlines()
    # Also after a secret has been removed from the settings, what its key signed must be verifiable.
    return AuditKeys([*keys, *accepted, *map(derived_audit_key, accepted)])


def _mac(key: str, *parts: str | int) -> str:
    return hmac.new(key.encode(), "\n".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()
