"""Neighbourhoods with active sessions, and how the workers of a gateway share them."""

from __future__ import annotations

from pathlib import Path

from waitroom.edge.rooms.neighbours import MAX_NEIGHBOURHOODS, NeighbourFiles, Neighbours

KEY = b"a key that all workers share"


def test_a_neighbourhood_is_active_as_long_as_a_session() -> None:
    known = Neighbours(KEY, 900)
    assert not known.active("203.0.113.9", 0)
    known.record("203.0.113.9", 1000)
    assert known.active("203.0.113.9", 1899)
    assert not known.active("203.0.113.9", 1900)
    assert not known.active("203.0.113.8", 1000)
    known.record("203.0.113.9", 1500)
    assert known.active("203.0.113.9", 2399)


def test_recording_it_again_soon_changes_nothing() -> None:
    known = Neighbours(KEY, 900)
    known.record("203.0.113.9", 1000)
    assert known.changed
    known.dump(1000)
    known.record("203.0.113.9", 1014)
    assert not known.changed
    known.record("203.0.113.9", 1015)
    assert known.changed


def test_workers_share_neighbourhoods(tmp_path: Path) -> None:
    known = [Neighbours(KEY, 900) for _ in range(3)]
    files = [NeighbourFiles(tmp_path, "shop", slot) for slot in range(3)]
    other_room = NeighbourFiles(tmp_path, "shop-2", 0)
    other_room.exchange(Neighbours(KEY, 900).dump(0))
    known[0].record("203.0.113.9", 1000)
    assert files[0].exchange(known[0].dump(1000)) is None, "there are no others yet"
    for one, file in zip(known[1:], files[1:], strict=True):
        learned = file.exchange(None)
        assert learned is not None
        one.load(learned)
        assert one.active("203.0.113.9", 1000)
        assert file.exchange(None) is None, "nothing has changed"
    known[0].dump(2000)  # run out by now
    assert files[0].exchange(known[0].dump(2000)) is None
    learned = files[1].exchange(None)
    assert learned is not None
    known[1].load(learned)
    assert not known[1].active("203.0.113.9", 1000)


def test_the_files_contain_no_addresses(tmp_path: Path) -> None:
    known = Neighbours(KEY, 900)
    known.record("203.0.113.9", 1000)
    NeighbourFiles(tmp_path, "shop", 0).exchange(known.dump(1000))
    (file,) = tmp_path.iterdir()
    assert b"203" not in file.read_bytes()
    assert Neighbours(b"another key", 900).dump(0) != known.dump(1000)


def test_a_damaged_file_is_tolerated(tmp_path: Path) -> None:
    for content in (b"", b"x", b"x" * 100, b"\xff" * 1000):
        (tmp_path / "neighbours-shop.7").write_bytes(content)
        known = Neighbours(KEY, 900)
        learned = NeighbourFiles(tmp_path, "shop", 0).exchange(None)
        known.load(learned or [])
        assert not known.active("203.0.113.9", 1000)
        (tmp_path / "neighbours-shop.7").unlink()


def test_what_is_kept_is_bounded() -> None:
    known = Neighbours(KEY, 900)
    for number in range(MAX_NEIGHBOURHOODS + 100):
        known.record(str(number), 1000)
    assert len(known.dump(1000)) == 16 * MAX_NEIGHBOURHOODS
    assert known.active(str(MAX_NEIGHBOURHOODS + 99), 1000)
    assert not known.active("0", 1000)
