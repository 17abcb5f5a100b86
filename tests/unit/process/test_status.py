"""The service manager's view of the children."""

from __future__ import annotations

import pytest

from waitroom.process.status import describe, has_stuck_role

ALL = ("edge 0", "edge 1", "control", "store")


@pytest.mark.parametrize(
    ("ready", "stuck", "line"),
    [
        (ALL, (), "2 of 2 workers serving"),
        (("edge 1", "control"), (), "1 of 2 workers serving, store starting"),
        (ALL, ("edge 0", "store"), "1 of 2 workers serving, edge 0 stuck, store stuck"),
        ((), (), "0 of 2 workers serving, control starting, store starting"),
    ],
)
def test_the_status_is_one_line(ready: tuple[str, ...], stuck: tuple[str, ...], line: str) -> None:
    assert describe(ALL, ready, stuck) == line


@pytest.mark.parametrize(
    ("stuck", "expected"),
    [
        ((), False),
        (("edge 0",), False),
        (("edge 0", "edge 1"), True),
        (("control",), True),
        (("store",), True),
    ],
)
def test_a_restart_is_asked_for_only_if_a_role_is_stuck(stuck: tuple[str, ...], expected: bool) -> None:
    assert has_stuck_role(ALL, stuck) is expected
