"""The newest audit entries seen by this gateway, in a file outside the store: nobody can put another log in place."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import structlog

from waitroom.control.audit.chain import Anchor
from waitroom.control.auth.accounts import AccountsError, write_private

log = structlog.get_logger()

ANCHORS_FILE = "audit_seen.json"


class Anchors:
    """The newest entry seen of each chain.

    Args:
        data_dir: The directory of the file; None keeps them in memory only.
    """

    def __init__(self, data_dir: Path | None) -> None:
        self._path = None if data_dir is None else data_dir / ANCHORS_FILE
        self._anchors = {} if self._path is None else _load(self._path)
        self._saved = dict(self._anchors)

    def get(self, chain: str) -> Anchor | None:
        """The newest entry of a chain that was seen, if any."""
        return self._anchors.get(chain)

    def set(self, chain: str, anchor: Anchor) -> None:
        """Replaces the newest entry seen."""
        self._anchors[chain] = anchor

    def save(self) -> None:
        """Writes the file if anything has changed. A failure is logged; the next call tries again."""
        current = dict(self._anchors)
        if self._path is None or current == self._saved:
            return
        text = json.dumps({chain: astuple(anchor) for chain, anchor in current.items()})
        try:
            write_private(self._path, text + "\n")
        except AccountsError as error:
            log.warning("newest audit log entry not remembered", cause=str(error))
        else:
            self._saved = current


def _load(path: Path) -> dict[str, Anchor]:
    try:
        stored = json.loads(path.read_bytes())
        return {str(chain): Anchor(int(number), str(id_), str(hash_)) for chain, (number, id_, hash_) in stored.items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("unreadable, what was seen of the audit log is forgotten", file=str(path), cause=str(error))
    return {}
