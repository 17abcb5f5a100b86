import socket

import pytest

from waitroom.drill.demo import ROOM, Scale, free_port, settings_text
from waitroom.settings import load_settings


@pytest.mark.parametrize("visitors", [1, 50, 400, 3000])
@pytest.mark.parametrize("seconds", [5.0, 20.0, 60.0, 300.0])
def test_the_crowd_is_served_in_time_at_a_rate_the_shop_can_handle(visitors, seconds):
    scale = Scale.of(visitors, seconds)
    assert scale.baseline_seconds + scale.seconds == seconds
    assert scale.rate_per_minute / 60 * scale.seconds >= visitors
    queries_per_second = scale.rate_per_minute / 60 * 7
    slowest_query = 0.03
    assert queries_per_second * slowest_query <= scale.capacity
    assert scale.stock > visitors


def test_a_crowd_of_the_default_size_takes_forty_to_fifty_seconds():
    scale = Scale.of(400, 60)
    assert 40 <= 400 * 60 / scale.rate_per_minute <= 50


@pytest.mark.parametrize(("visitors", "seconds"), [(0, 60), (10, 4.9)])
def test_too_few_visitors_or_seconds_are_refused(visitors, seconds):
    with pytest.raises(ValueError, match="at least"):
        Scale.of(visitors, seconds)


def test_the_settings_are_valid(tmp_path):
    scale = Scale.of(400, 60)
    data = tmp_path / 'a "quoted" folder'
    config = tmp_path / "waitroom.toml"
    config.write_text(
        settings_text(
            scale,
            listen="127.0.0.1:8080",
            admin="127.0.0.1:8081",
            upstream="http://127.0.0.1:3000",
            data_dir=data,
        )
    )
    settings = load_settings(config, {}, {})
    assert (settings.listen, settings.admin_listen) == ("127.0.0.1:8080", "127.0.0.1:8081")
    assert (settings.workers, settings.data_dir) == (2, str(data))
    (room,) = settings.rooms
    assert (room.name, room.upstream) == (ROOM, "http://127.0.0.1:3000")
    assert (room.rate_per_minute, room.max_active) == (scale.rate_per_minute, scale.max_active)


def test_a_preferred_port_is_used_only_if_it_is_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        other = free_port(port)
        assert other != port
    assert free_port(port) == port
    assert free_port(port, taken=[port]) != port
