"""The interval of an event's samples."""

from __future__ import annotations

import pytest

from waitroom.control.monitoring.event_samples import MAX_SAMPLES, sample_interval


@pytest.mark.parametrize(
    ("hours", "interval"), [(0, 5), (2, 5), (2.7, 5), (2.8, 10), (5.5, 10), (6, 20), (24, 80), (24 * 30, 2560)]
)
def test_the_interval_doubles_with_the_length_of_the_event(hours: float, interval: int) -> None:
    seconds = int(hours * 3600)
    assert sample_interval(seconds) == interval
    assert seconds / interval <= MAX_SAMPLES
