"""Findings: what is wrong or unwise, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

Level = Literal["error", "warning", "note"]

# With one of these, the rest could not be checked.
UNREACHABLE: Final = frozenset({"store-unreachable", "gateway-unreachable"})
_ORDER: Final = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        id: A stable name; docs/doctor.md lists all of them.
        level: ``error`` harms visitors now or with the next failure; ``warning`` is unsafe or unwise; ``note`` may be
            as intended.
        what: The observation, in sentences.
        do: The remedy, in sentences.
    """

    id: str
    level: Level
    what: str
    do: str

    def json(self) -> dict[str, str]:
        """Returns the finding in the format of ``--json``."""
        return asdict(self)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Sorts findings by level, the worst first; otherwise they keep their order."""
    return sorted(findings, key=lambda finding: _ORDER[finding.level])


def exit_code(findings: Sequence[Finding]) -> int:
    """Returns 0 for notes alone, 1 for other findings, 3 if the store or the gateway is unreachable."""
    if any(finding.id in UNREACHABLE for finding in findings):
        return 3
    return 1 if any(finding.level != "note" for finding in findings) else 0
