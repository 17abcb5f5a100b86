"""Run inside schemathesis: changes are decided on the room as it is, else all would be refused as stale."""

from __future__ import annotations

import re
from typing import Any
from urllib.request import urlopen

import schemathesis

_WELL_FORMED = re.compile(r'"[0-9]{1,15}"')


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    given = (case.headers or {}).get("If-Match")
    if not isinstance(given, str) or not _WELL_FORMED.fullmatch(given):
        return
    with urlopen(f"{case.operation.base_url}/rooms/shop", timeout=10) as answer:
        case.headers["If-Match"] = answer.headers["ETag"]
