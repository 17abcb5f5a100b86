"""A visitor's status for every fate, state and view, and its JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from support.edge_world import BUSY
from waitroom.edge.pages.messages import PageKind
from waitroom.edge.visitor.status import VisitorStatus, build_status, rfc3339
from waitroom.queue.positions import LONGEST_POLL_SECONDS, SHORTEST_POLL_SECONDS
from waitroom.queue.view import RoomState, RoomView

SEEN = datetime(2026, 11, 27, 8, 0, 5, tzinfo=UTC)
STATES = {
    RoomState.OPEN: PageKind.WAITING,
    RoomState.PAUSED: PageKind.PAUSED,
    RoomState.CLOSED: PageKind.CLOSED,
    RoomState.SOLD_OUT: PageKind.SOLD_OUT,
}


def status_of(fate: str = "waiting", view: RoomView | None = BUSY, **more: object) -> VisitorStatus:
    given = {"position": 20, "start_position": 30, "eta": (100, 200), "store_up": True, "jitter": 0.5} | more
    return build_status(fate, view, SEEN, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", RoomState)
def test_a_waiting_visitor_sees_the_rooms_state(state):
    got = status_of(view=replace(BUSY, state=state))
    assert (got.state, got.kind) == (STATES[state].value, STATES[state])
    assert (got.position, got.start_position, got.waiting) == (20, 30, 50)
    assert got.eta == ((100, 200) if state is RoomState.OPEN else None), "nobody knows how long a pause lasts"
    assert got.claim_by is None


def test_without_the_store_the_page_says_the_place_is_kept():
    got = status_of(store_up=False)
    assert (got.state, got.kind) == ("waiting", PageKind.HELD)
    assert got.position == 20
    got = status_of(view=replace(BUSY, state=RoomState.PAUSED), store_up=False)
    assert got.kind is PageKind.PAUSED, "which says as much"


@pytest.mark.parametrize("state", RoomState)
def test_a_called_visitor_may_enter_unless_the_room_accepts_nobody(state):
    got = status_of("called", replace(BUSY, state=state), claim_left_ms=90_500)
    if state in (RoomState.OPEN, RoomState.PAUSED):
        assert (got.state, got.kind) == ("called", PageKind.CALLED)
        assert got.claim_by == SEEN + timedelta(seconds=90.5)
    else:
        assert (got.state, got.kind) == (state.value, STATES[state])
        assert got.claim_by is None
    assert (got.position, got.eta) == (None, None)
    assert got.poll_after == SHORTEST_POLL_SECONDS


@pytest.mark.parametrize("fate", ["admitted", "unknown"])
def test_admitted_and_unknown_visitors_have_no_position(fate):
    got = status_of(fate)
    assert (got.state, got.kind, got.position, got.start_position, got.eta) == (fate, None, None, None, None)
    assert got.waiting == 50


def test_before_the_first_view():
    got = status_of(view=None, position=None, start_position=None, eta=None, store_up=False)
    assert (got.state, got.kind, got.position, got.waiting) == ("waiting", PageKind.HELD, None, None)
    assert (got.message, got.remaining) == ("", None)
    assert status_of("called", None, claim_left_ms=1000).state == "called"


def test_the_number_waiting_is_at_least_the_position():
    assert status_of(position=70).waiting == 70


@pytest.mark.parametrize(
    ("position", "eta", "shortest", "longest"),
    [
        (1, (0, 5), 1, 3),
        (20, (80, 160), 8, 12),
        (10_000, (36_000, 40_000), 20, 30),
        (500, None, 12, 19),
        (None, None, 1, 3),
    ],
)
def test_polls_are_short_near_the_front_long_at_the_back_and_spread(position, eta, shortest, longest):
    polls = [status_of(position=position, eta=eta, jitter=jitter / 10).poll_after for jitter in range(10)]
    assert polls == sorted(polls)
    assert shortest <= polls[0] <= polls[-1] <= longest
    assert all(isinstance(poll, int) and 1 <= poll <= LONGEST_POLL_SECONDS for poll in polls)


def test_polls_are_long_while_the_room_is_paused():
    paused = replace(BUSY, state=RoomState.PAUSED)
    polls = [status_of(view=paused, position=1, eta=(0, 1), jitter=jitter).poll_after for jitter in (0.0, 0.999)]
    assert polls == [15, 30]


# The JSON.

MEMBERS = [
    *(
        "room",
        "state",
        "position",
        "waiting",
        "eta_seconds",
        "poll_after",
        "claim_by",
        "position_reason",
        "message",
        "remaining",
    ),
    "updated_at",
]


def test_the_json_has_all_members():
    everything = status_of(view=replace(BUSY, message='Say "hi" \\ </script> ü\n', remaining=7))
    assert json.loads(everything.json("shop")) == {
        "room": "shop",
        "state": "waiting",
        "position": 20,
        "waiting": 50,
        "eta_seconds": [100, 200],
        "poll_after": 12,
        "claim_by": None,
        "position_reason": None,
        "message": 'Say "hi" \\ </script> ü\n',
        "remaining": 7,
        "updated_at": "2026-11-27T08:00:05Z",
    }
    nothing = json.loads(status_of("unknown", None).json("shop"))
    assert nothing == dict.fromkeys(MEMBERS) | {
        "room": "shop",
        "state": "unknown",
        "poll_after": 2,
        "message": "",
        "updated_at": "2026-11-27T08:00:05Z",
    }
    for one in (everything, status_of("called", claim_left_ms=1000), status_of("admitted"), status_of("unknown", None)):
        assert list(json.loads(one.json("a-b_9"))) == MEMBERS


def test_claim_by_is_the_deadline():
    assert json.loads(status_of("called", claim_left_ms=55_000).json("shop"))["claim_by"] == "2026-11-27T08:01:00Z"


def test_times_are_in_utc():
    assert rfc3339(SEEN.astimezone(timezone(timedelta(hours=5, minutes=30)))) == b"2026-11-27T08:00:05Z"
