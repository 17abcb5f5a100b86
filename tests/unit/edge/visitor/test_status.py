"""A visitor's status for every fate, state and view, and its JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from support.edge_world import BUSY
from waitroom.edge.pages.messages import PageKind, PageText
from waitroom.edge.pages.times import rfc3339
from waitroom.edge.visitor.status import SharedStatus, VisitorStatus, build_rejected_status, build_status
from waitroom.queue.positions import LONGEST_POLL_SECONDS, SHORTEST_POLL_SECONDS
from waitroom.queue.schedule import Draws, Event, EventRecord, Phase
from waitroom.queue.view import RoomState, RoomView

SEEN = datetime(2026, 11, 27, 8, 0, 5, tzinfo=UTC)
NOW = SEEN.timestamp()
STATES = {
    RoomState.OPEN: PageKind.WAITING,
    RoomState.PREQUEUE: PageKind.PREQUEUE,
    RoomState.PAUSED: PageKind.PAUSED,
    RoomState.CLOSED: PageKind.CLOSED,
    RoomState.SOLD_OUT: PageKind.SOLD_OUT,
}


def status_of(fate: str = "waiting", view: RoomView | None = BUSY, **more: object) -> VisitorStatus:
    given = {"position": 20, "start_position": 30, "eta": (100, 200), "store_up": True, "jitter": 0.5, "now": NOW}
    return build_status(fate, SharedStatus(view, SEEN), **(given | more))  # type: ignore[arg-type]


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
    if state in (RoomState.OPEN, RoomState.PREQUEUE, RoomState.PAUSED):
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
    assert (got.shared.message, got.shared.remaining) == ("", None)
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
        "likely_sold_out",
        "message",
        "remaining",
    ),
    *("updated_at", "event", "lot", "lane", "reopening"),
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
        "likely_sold_out": None,
        "message": 'Say "hi" \\ </script> ü\n',
        "remaining": 7,
        "updated_at": "2026-11-27T08:00:05Z",
        "event": None,
        "lot": None,
        "lane": None,
        "reopening": None,
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


@pytest.mark.parametrize(("likely", "text"), [(True, "true"), (False, "false"), (None, "null")])
def test_whether_it_is_likely_sold_out(likely, text):
    got = status_of()
    got.likely_sold_out = likely
    assert f'"likely_sold_out":{text},'.encode() in got.json("shop")


# Events.

OPENS, STARTS, ENDS = (SEEN + timedelta(hours=hours) for hours in (1, 2, 3))


def ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)


def event_of(phase: Phase = Phase.SCHEDULED, *, prequeue: datetime | None = OPENS, **more: object) -> EventRecord:
    event = Event("sale", 'The "sale" </script>', ms(STARTS), ms(prequeue), ms(ENDS), "random")  # type: ignore[arg-type]
    given = {"cancelled": False, "ended_ms": ms(ENDS) if phase is Phase.ENDED else None} | more
    times = {"prequeue_at_ms": None, "started_ms": None, "begin": {}, "totals": {}, "stats": {}}
    return EventRecord(event, phase, "file", **times, **given)  # type: ignore[arg-type]


def view_of(event: EventRecord | None, **more: object) -> RoomView:
    return replace(BUSY, wall_ms=ms(SEEN), event=event, **more)  # type: ignore[arg-type]


def test_the_json_has_the_event():
    got = json.loads(status_of(view=view_of(event_of(Phase.PREQUEUE), state=RoomState.PREQUEUE)).json("shop"))
    assert got["state"] == "prequeue"
    assert got["event"] == {
        "name": "sale",
        "title": 'The "sale" </script>',
        "phase": "prequeue",
        "prequeue_starts_at": "2026-11-27T09:00:05Z",
        "starts_at": "2026-11-27T10:00:05Z",
        "ends_at": "2026-11-27T11:00:05Z",
    }
    bare = event_of(prequeue=None)
    bare = replace(bare, event=replace(bare.event, end_ms=None))
    got = json.loads(status_of(view=view_of(bare)).json("shop"))["event"]
    assert (got["prequeue_starts_at"], got["ends_at"]) == (None, None)


def test_an_event_is_shown_for_a_day_after_its_end():
    ended = view_of(event_of(Phase.ENDED))
    for hours, shown in ((23, True), (24, False)):
        view = replace(ended, wall_ms=ms(ENDS + timedelta(hours=hours)))
        assert (SharedStatus(view, SEEN).event is not None) is shown
    assert SharedStatus(view_of(event_of(Phase.ENDED, cancelled=True)), SEEN).event is None


CLOSED_BY_EVENT = {"state": RoomState.CLOSED, "own_state": RoomState.OPEN}
CLOSED = {"state": RoomState.CLOSED, "own_state": RoomState.CLOSED}
SOLD_OUT = {"state": RoomState.SOLD_OUT, "own_state": RoomState.SOLD_OUT}


@pytest.mark.parametrize(
    ("phase", "room", "reopening", "text"),
    [
        (Phase.SCHEDULED, CLOSED_BY_EVENT, "event", PageText.SCHEDULED),
        (Phase.SCHEDULED, CLOSED | {"state_by": "schedule"}, "event", PageText.SCHEDULED),
        (Phase.SCHEDULED, CLOSED, None, PageText.CLOSED),
        (Phase.SCHEDULED, SOLD_OUT, "event", PageText.SOLD_OUT),
        (Phase.RUNNING, SOLD_OUT | {"state_by": "stock"}, "stock", PageText.SOLD_OUT_FOR_NOW),
        (Phase.SCHEDULED, SOLD_OUT | {"state_by": "stock"}, "stock", PageText.SOLD_OUT_FOR_NOW),
        (Phase.RUNNING, SOLD_OUT, None, PageText.SOLD_OUT),
        (Phase.RUNNING, CLOSED, None, PageText.CLOSED),
        (Phase.ENDED, CLOSED | {"state_by": "schedule"}, None, PageText.ENDED),
        (None, CLOSED, None, PageText.CLOSED),
        (None, SOLD_OUT | {"state_by": "stock"}, "stock", PageText.SOLD_OUT_FOR_NOW),
    ],
)
def test_why_a_room_may_open_again(phase, room, reopening, text):
    shared = SharedStatus(view_of(None if phase is None else event_of(phase), **room), SEEN)
    got = build_rejected_status(shared, shared.state, jitter=0.5, now=NOW)
    assert got.kind is not None
    assert (got.state, got.place) == (shared.state.value, 0)
    assert json.loads(got.json("shop"))["reopening"] == reopening
    assert shared.text(got.kind) is text
    assert (shared.notice is not None) is (reopening is not None and phase is Phase.SCHEDULED)


@pytest.mark.parametrize("prequeue", [OPENS, None])
def test_visitors_poll_when_the_next_phase_has_begun(prequeue):
    """Each within a few seconds after it, and never faster than others; a phase that the store lacks awaits it."""
    shared = SharedStatus(view_of(event_of(prequeue=prequeue), **CLOSED_BY_EVENT), SEEN)
    opening = (prequeue or STARTS).timestamp()
    spread = [jitter / 100 for jitter in range(100)]
    for before in (0.0, 0.4, 1.0, 5.5, 14.5):
        polls = [
            build_rejected_status(shared, shared.state, jitter=jitter, now=opening - before).poll_after
            for jitter in spread
        ]
        arrivals = {poll - before for poll in polls}
        assert min(arrivals) >= 0
        assert max(arrivals) < max(before, SHORTEST_POLL_SECONDS) - before + 4
        assert len(arrivals) >= 2
        assert min(polls) >= SHORTEST_POLL_SECONDS
    for late in (6, 3600):
        got = build_rejected_status(shared, shared.state, jitter=0.0, now=opening + late)
        assert got.poll_after == LONGEST_POLL_SECONDS / 2
    assert build_rejected_status(shared, shared.state, jitter=0.5, now=opening - 3000).poll_after in (22, 23)


def test_visitors_of_a_prequeue_poll_at_the_start():
    view = view_of(event_of(Phase.PREQUEUE), state=RoomState.PREQUEUE)
    polls = [status_of(view=view, jitter=jitter, now=STARTS.timestamp() - 7).poll_after for jitter in (0.0, 0.5, 0.99)]
    assert polls == [7, 9, 10]


def test_a_room_that_is_sold_out_for_now_is_polled_every_half_minute():
    view = view_of(None, state_by="stock", **SOLD_OUT)
    polls = [status_of(view=view, jitter=jitter).poll_after for jitter in (0.0, 0.5, 0.99)]
    assert polls == [27, 28, 30]


def test_the_store_knows_the_state_before_the_view():
    view = view_of(event_of(), **CLOSED_BY_EVENT)
    got = status_of(view=view, state=RoomState.PREQUEUE)
    assert (got.state, got.kind, got.eta) == ("prequeue", PageKind.PREQUEUE, None)


def test_which_places_were_drawn():
    draws = Draws("100:200:ab 300::cd")
    assert [draws.is_drawn(place) for place in (100, 101, 200, 201, 301)] == [False, True, True, False, False]


def test_a_large_prequeue_polls_over_the_time_that_the_workers_need():
    view = replace(view_of(event_of(Phase.PREQUEUE)), state=RoomState.PREQUEUE, waiting=60_000)
    shared = SharedStatus(view, SEEN, 5000)
    start = STARTS.timestamp()
    polls = [
        build_status("waiting", shared, position=None, store_up=True, jitter=jitter / 1000, now=start - 5).poll_after
        for jitter in range(1000)
    ]
    assert (min(polls), max(polls)) == (5, 17)
    assert max(Counter(polls).values()) <= 1000 / 12 + 1
