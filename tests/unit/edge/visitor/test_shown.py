"""A shown position rises only for a reason that is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.edge_world import BUSY, PAGE, World, get
from support.endpoint_calls import call, cookie, ticket, told
from support.http_reader import Message
from waitroom.edge.pages.messages import SCRIPT_MESSAGES
from waitroom.edge.visitor.shown import SETTLING_MS, Shown, next_shown, read_shown
from waitroom.queue.positions import RankIndex
from waitroom.queue.store import Visited

PLACE = 120
# A view in which the same place is further back.
OLDER = replace(BUSY, rank_index=RankIndex("0", (0, 30, 70), (81, 111, 151)))
SHOWN = b"waitroom_shown_shop"

positions = st.integers(1, 10**6)


def value(shown: Shown | None) -> str:
    assert shown is not None
    return shown.value()


@given(st.lists(st.tuples(st.integers(1, 3), positions, st.booleans()), min_size=1, max_size=30))
def test_a_position_never_rises_without_a_reason(views: list[tuple[int, int, bool]]) -> None:
    """Whatever views of whatever age a visitor's polls meet."""
    before: Shown | None = None
    for generation, position, settling in views:
        shown = next_shown(before, PLACE, generation, position, settling=settling)
        assert 1 <= shown.position <= position
        if before is not None and shown.position > before.position:
            assert shown.reason
        before = shown
        assert value(read_shown([shown.value().encode()], PLACE)) == shown.value()


@given(positions, positions)
def test_within_a_generation_it_never_rises(first: int, second: int) -> None:
    before = next_shown(None, PLACE, 7, first, settling=False)
    after = next_shown(before, PLACE, 7, second, settling=False)
    assert (after.position, after.reason) == (min(first, second), "")
    assert next_shown(before, PLACE, 6, second, settling=True).position == min(first, second), "an older view"


def test_the_reasons() -> None:
    before = Shown(PLACE, 7, 50)
    assert value(next_shown(before, 900, 7, 400, settling=False)) == value(Shown(900, 7, 400, "new_place"))
    assert value(next_shown(before, 900, 7, 20, settling=False)) == value(Shown(900, 7, 20))
    assert value(next_shown(before, PLACE, 8, 400, settling=False)) == value(Shown(PLACE, 8, 400, "restored"))
    restored = Shown(PLACE, 8, 400, "restored")
    assert next_shown(restored, PLACE, 8, 390, settling=False).reason == "restored", "it stays to be read"


@pytest.mark.parametrize(
    "value", [b"", b"1", b"1.2", b"1.2.3.4", b"-1.2.3", b"1.2.3.odd", b"x.1.1", b"1." + b"2" * 99 + b".3", b"1.2.3 "]
)
def test_what_no_gateway_wrote_is_ignored(value: bytes) -> None:
    assert read_shown([value], PLACE) is None


def test_of_several_values_the_smallest_of_the_place_counts() -> None:
    values = [b"1.7.1", b"120.7.32", b"120.7.16", b"junk"]
    assert value(read_shown(values, PLACE)) == value(Shown(PLACE, 7, 16))
    assert value(read_shown([b"120.7.0"], PLACE)) == value(Shown(PLACE, 7, 1)), "there is no position 0"


@pytest.fixture
def world() -> Iterator[World]:
    with World(view=BUSY) as world:
        yield world


def brought(got: Message) -> bytes:
    return b"Cookie: %b=%b" % (SHOWN, cookie(got, SHOWN) or b"")


def test_pages_and_programs_are_shown_no_rise_by_an_older_view(world: World) -> None:
    first = call(world, "status", ticket(world))
    position = told(first)["position"]
    world.view = OLDER
    assert told(call(world, "status", ticket(world)))["position"] > position, "who brings nothing sees the view's"
    again = call(world, "status", ticket(world), brought(first))
    assert told(again)["position"] == position
    assert told(again)["position_reason"] is None
    assert cookie(again, SHOWN) is None, "nothing has changed"
    page = world.ask(get(b"/", PAGE, ticket(world), brought(first)))
    assert b'data-position="%d"' % position in page.body


def test_no_more_visitors_wait_than_the_shown_position_says(world: World) -> None:
    """Before a view knows of the visitor, the position is all that there is."""
    first = call(world, "status", ticket(world))
    world.view = replace(OLDER, waiting=1)
    again = told(call(world, "status", ticket(world), brought(first)))
    assert again["waiting"] == again["position"] == told(first)["position"]


def test_a_client_without_cookies_gets_the_same_by_a_header(world: World) -> None:
    first = call(world, "status", ticket(world), b"Waitroom-Shown:")
    world.view = OLDER
    again = call(world, "status", ticket(world), b"Waitroom-Shown: " + first[b"Waitroom-Shown"])
    assert told(again)["position"] == told(first)["position"]
    assert b"Waitroom-Shown" not in call(world, "status", ticket(world)), "only to those who ask for it"


def test_a_claimed_position_changes_nothing_but_what_is_shown(world: World) -> None:
    honest, forged = call(world, "status", ticket(world)), b"Cookie: %b=120.7.1" % SHOWN
    got = told(call(world, "status", ticket(world), forged))
    assert got["position"] == 1
    assert got["eta_seconds"] == told(honest)["eta_seconds"]
    assert got["state"] == "waiting"
    world.store.fates[99] = Visited("waiting", 0)
    assert call(world, "claim", ticket(world, 99), b"Cookie: %b=99.7.1" % SHOWN).status == 409


@pytest.mark.parametrize(("language", "reason"), [("en", "new_place"), ("de", "restored"), ("hi", "new_place")])
def test_the_page_names_the_reason(world: World, language: str, reason: str) -> None:
    shown = b"1.7.1" if reason == "new_place" else b"120.6.1"
    world.view = replace(BUSY, message="Back at noon")
    lines = (ticket(world), b"Cookie: %b=%b" % (SHOWN, shown), b"Accept-Language: " + language.encode())
    assert told(call(world, "status", *lines))["position_reason"] == reason
    page = world.ask(get(b"/", PAGE, *lines)).body.decode()
    text = json.loads(page.partition('id="waitroom"')[2].partition(">")[2].partition("</script>")[0])["messages"][
        reason
    ]
    assert f"{text} Back at noon" in page
    assert (text == SCRIPT_MESSAGES[reason]) is (language == "en"), "it is translated"


def test_while_visitors_report_after_a_loss_positions_may_rise(world: World) -> None:
    wall = 7 + SETTLING_MS
    for at, lost, reason in ((wall - 1, True, "restored"), (wall, True, None), (wall - 1, False, None)):
        world.view = replace(BUSY, wall_ms=at, lost_data=lost)
        got = told(call(world, "status", ticket(world), b"Cookie: %b=120.7.1" % SHOWN))
        assert got["position_reason"] == reason


def test_a_place_that_is_over_leaves_nothing(world: World) -> None:
    left = call(world, "leave", ticket(world), b"Cookie: %b=120.7.1" % SHOWN)
    assert cookie(left, SHOWN) == b""
    world.store.fates[99] = Visited("admitted", 1000)
    claimed = call(world, "claim", ticket(world, 99), b"Cookie: %b=99.7.1" % SHOWN)
    assert cookie(claimed, SHOWN) == b""
    assert cookie(call(world, "claim", ticket(world, 99)), SHOWN) is None
