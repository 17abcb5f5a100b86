"""How many examples a property test tries: some in every run, many where there is time for them."""

from __future__ import annotations

from hypothesis import settings

# Registered in conftest.py, chosen by `make test-long`.
LONG = "long"


def examples(usual: int, *, long: int) -> int:
    """So many, or ``long`` under that profile."""
    return long if settings.get_current_profile_name() == LONG else usual
