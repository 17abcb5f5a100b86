"""The outcomes of requests: documented, and countable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from waitroom.edge.outcomes import ExchangeOutcome, ForwardOutcome, RequestOutcome

DOCS = Path(__file__).parents[3] / "docs" / "operating.md"


def values(types: object) -> set[str]:
    """The values of a union of literals."""
    found: set[str] = set()
    for one in get_args(types):
        found |= {one} if isinstance(one, str) else values(one)
    return found


def test_every_outcome_is_documented() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("| outcome |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    names = set(re.findall(r"`(\w+)`", " ".join(cells)))
    assert names == values(RequestOutcome)


def test_every_end_of_an_exchange_can_be_counted() -> None:
    assert values(ExchangeOutcome) - {"ok"} | values(ForwardOutcome) <= values(RequestOutcome)
