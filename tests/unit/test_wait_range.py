"""The range of a wait: one rounding for visitors and operators."""

from __future__ import annotations

import pytest

from support.room_views import OPEN
from waitroom.cli.formatting import format_wait
from waitroom.control.dashboard.presenter import room_texts
from waitroom.edge.pages.i18n import DEFAULT_LANGUAGE, Language
from waitroom.wait_range import short_wait

WAITS = [
    (0, 59, "under 1 min"),
    (0, 61, "up to 2 min"),
    (60, 60, "1 min"),
    (290, 301, "4 to 6 min"),
    (1080, 1460, "15 to 25 min"),
    (3500, 7500, "55 min to 3 h"),
    (3600, 7200, "60 to 120 min"),
    (7200, 7260, "2 to 3 h"),
    (10801, 14399, "3 to 4 h"),
]


@pytest.mark.parametrize(("low", "high", "text"), WAITS)
def test_all_who_are_told_of_a_wait_are_told_the_same(low, high, text):
    room = {**OPEN, "wait_seconds": {"newcomer": [low, high]}}
    assert short_wait(low, high) == room_texts(room)["newcomer"] == format_wait((low, high)) == text
    visitors = Language(DEFAULT_LANGUAGE, {}).wait(low, high)
    said = visitors.removeprefix("about ").replace("less than a minute", "under 1 minute")
    for unit, short in (("minutes", "min"), ("minute", "min"), ("hours", "h"), ("hour", "h")):
        said = said.replace(unit, short)
    assert said == text
