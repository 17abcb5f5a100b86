"""The line, by random operations: a real store against the reference model and against what must always hold."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from support.examples import examples
from support.queue_machine import machine_settings
from support.queue_rules import Line


def _run(url: str, count: int) -> None:
    class LineOfServer(Line):
        def __init__(self) -> None:
            super().__init__(url)

    run_state_machine_as_test(LineOfServer, settings=machine_settings(count))


@pytest.mark.slow
def test_queue_on_valkey(valkey: str) -> None:
    _run(valkey, examples(50, long=1000))


@pytest.mark.slow
def test_queue_on_the_systems_redis(redis: str) -> None:
    _run(redis, examples(10, long=200))
