"""The sessions one worker has seen: found again in memory, kept in the store, and forgotten within a bound."""

from __future__ import annotations

import pytest

from support.edge_world import get
from waitroom.edge.http.message import Request, parse_request
from waitroom.edge.rooms import sessions as module
from waitroom.edge.rooms.sessions import KEEP_INTERVAL_SECONDS, UNCONFIRMED_END_SECONDS, Session, Sessions
from waitroom.edge.rooms.throttle import SessionLimits
from waitroom.queue.store import SessionChange
from waitroom.tokens import Pass, Tokens

NOW = 1_800_000_000
tokens = Tokens(["a secret of sixteen characters"], "shop")


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(tokens)


def pass_(id_: int = 1, *, left: int = 900, ends: int = 14400) -> bytes:
    return tokens.sign_pass(Pass(id_, NOW + left, NOW + ends)).encode()


def known(sessions: Sessions, value: bytes) -> Session:
    session = sessions.read(value)
    assert session is not None
    return session


def keep(id_: int = 1, left: int = 14400) -> SessionChange:
    return SessionChange("keep", id_, left * 1000)


# Passes.


def test_a_pass_stands_for_a_session(sessions):
    session = known(sessions, pass_())
    assert (session.id, session.expires_at, session.ends_at) == (1, NOW + 900, NOW + 14400)
    assert not session.over


@pytest.mark.interpreted
def test_a_pass_is_verified_once(sessions, monkeypatch):
    session = known(sessions, pass_())
    monkeypatch.setattr(tokens, "read_pass", None)
    assert sessions.read(pass_()) is session


@pytest.mark.parametrize("value", [b"", b"x", pass_()[:-1], b"0" + pass_()])
def test_what_is_no_pass_stands_for_nothing_and_is_not_remembered(sessions, value):
    assert sessions.read(value) is None
    assert sessions._by_pass == {}


def test_all_passes_of_a_session_stand_for_the_same(sessions):
    old, new = pass_(left=100), pass_(left=900)
    assert known(sessions, old) is known(sessions, new)
    assert known(sessions, old).expires_at == NOW + 900, "the newest counts"
    assert known(sessions, pass_(left=50)).expires_at == NOW + 900


def test_the_longest_of_the_passes_ends_counts_and_the_earliest_hard_end(sessions):
    """A hold moves the end of a newer pass; an older pass that comes later takes nothing back."""
    held = tokens.sign_pass(Pass(1, NOW + 900, NOW + 15000, 600)).encode()
    session = known(sessions, held)
    known(sessions, pass_())
    assert (session.ends_at, session.hard_end) == (NOW + 15000, NOW + 14400)
    known(sessions, pass_(left=901, ends=14300))
    assert (session.ends_at, session.hard_end) == (NOW + 15000, NOW + 14300)


def asks(method: bytes, *lines: bytes) -> Request:
    return parse_request(get(b"/x", *lines, method=method))[0]


def test_a_request_that_has_waited_begins_only_within_the_session_s_time(sessions):
    session = known(sessions, pass_(ends=1000))
    assert session.allows(asks(b"POST"), NOW + 999)
    assert not session.allows(asks(b"POST"), NOW + 1000)


def test_of_a_released_session_s_requests_that_have_waited_only_reads_begin(sessions):
    session = known(sessions, pass_())
    sessions.release(session, NOW, 30)
    assert session.allows(asks(b"GET"), NOW + 29)
    assert session.allows(asks(b"HEAD"), NOW + 29)
    assert not session.allows(asks(b"POST"), NOW + 29)
    assert not session.allows(asks(b"GET", b"Connection: Upgrade", b"Upgrade: websocket"), NOW + 29)
    assert not session.allows(asks(b"GET"), NOW + 30)


def test_a_pass_never_outlasts_its_session(sessions):
    known(sessions, pass_(ends=1000))
    _, value = sessions.issue_pass(1, expires_at=NOW + 5000, ends_at=NOW + 9000)
    found = tokens.read_pass(value.encode())
    assert (found.expires_at, found.ends_at) == (NOW + 1000, NOW + 1000)


def test_a_pass_issued_for_a_session_that_is_over_has_the_given_times(sessions):
    session = known(sessions, pass_())
    sessions.release(session, NOW, 0)
    _, value = sessions.issue_pass(1, expires_at=NOW + 500, ends_at=NOW + 9000)
    assert tokens.read_pass(value.encode()) == Pass(1, NOW + 500, NOW + 9000)
    assert session.over


def test_another_pass_of_a_session_that_is_over_changes_nothing(sessions):
    session = known(sessions, pass_())
    sessions.release(session, NOW, 30)
    assert sessions.read(pass_(left=800)) is None
    assert (session.expires_at, session.ends_at) == (NOW + 30, NOW + 30)


@pytest.mark.interpreted
def test_an_admitted_visitor_is_known_at_once(sessions, monkeypatch):
    session, value = sessions.issue_pass(5, expires_at=NOW + 900, ends_at=NOW + 14400)
    monkeypatch.setattr(tokens, "read_pass", None)
    assert sessions.read(value.encode()) is session


def test_a_new_pass_lasts_as_long_as_those_before(sessions):
    sessions.issue_pass(5, expires_at=NOW + 900, ends_at=NOW + 14400)
    session, value = sessions.issue_pass(5, expires_at=NOW + 100, ends_at=NOW + 100)
    assert Sessions(tokens).read(value.encode()).expires_at == NOW + 900
    assert session.ends_at == NOW + 14400


# Keeping them.


def test_activity_is_told_once_in_a_while(sessions):
    session = known(sessions, pass_())
    for second in range(30):
        sessions.begin(session, NOW + second)
        sessions.finish(session)
        changes = sessions.take_pending(NOW + second)
        assert list(changes) == ([keep(left=14400 - second)] if second in (0, KEEP_INTERVAL_SECONDS) else [])


def test_a_request_under_way_is_activity(sessions):
    """An open WebSocket, or a long download."""
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    told = [second for second in range(60) if sessions.take_pending(NOW + second)]
    assert told == [0, 15, 30, 45]
    sessions.finish(session)
    assert sessions.take_pending(NOW + 60) == []


def test_several_requests_under_way(sessions):
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    sessions.begin(session, NOW)
    sessions.take_pending(NOW)
    sessions.finish(session)
    assert sessions.take_pending(NOW + 20) == [keep(left=14380)]
    sessions.finish(session)
    assert sessions.take_pending(NOW + 40) == []


def test_a_session_past_its_end_is_kept_by_nothing(sessions):
    """Else an open WebSocket would hold its slot for ever, a margin at a time."""
    session = known(sessions, pass_(ends=20))
    sessions.begin(session, NOW)
    assert sessions.take_pending(NOW) == [keep(left=20)]
    assert sessions.take_pending(NOW + 19) == [keep(left=1)]
    for second in (20, 40, 60):
        assert sessions.take_pending(NOW + second) == []
    sessions.finish(session)


def test_who_does_nothing_is_not_kept(sessions):
    known(sessions, pass_())
    assert sessions.take_pending(NOW) == []


def test_what_could_not_be_told_is_told_with_the_next(sessions):
    session = known(sessions, pass_())
    other = known(sessions, pass_(2))
    sessions.begin(session, NOW)
    sessions.finish(session)
    sessions.enqueue(session, "hold", 1000)
    changes = sessions.take_pending(NOW)
    assert changes == [keep(), SessionChange("hold", 1, 1000)]
    sessions.requeue(changes)
    sessions.enqueue(other, "extend", 2000)
    again = sessions.take_pending(NOW + 1)
    assert again == [keep(left=14399), SessionChange("hold", 1, 1000), SessionChange("extend", 2, 2000)]
    assert sessions.take_pending(NOW + 1) == []


def test_what_could_not_be_told_twice_is_told_once(sessions):
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    for second in range(3):
        sessions.requeue(sessions.take_pending(NOW + 20 * second))
    assert sessions.take_pending(NOW + 60) == [keep(left=14340)]


# Limits.


@pytest.mark.parametrize("tunnel_first", [True, False])
async def test_tunnels_and_other_requests_count_separately(tunnel_first):
    sessions = Sessions(tokens, SessionLimits(in_flight=1))
    session = known(sessions, pass_())
    sessions.begin(session, NOW, tunnel=tunnel_first)
    assert sessions.allow_request(session, 0.0, tunnel=not tunnel_first)
    assert session.throttle is None, "it is within both limits"
    assert not sessions.allow_request(session, 0.0, tunnel=tunnel_first)
    sessions.finish(session, tunnel=tunnel_first)


# The end of them.


def test_an_ended_session_lets_nobody_in(sessions):
    old, new = pass_(left=100), pass_(left=900)
    session = known(sessions, old)
    known(sessions, new)
    sessions.begin(session, NOW)
    sessions.release(session, NOW, 30)
    assert sessions.read(old) is None
    assert sessions.read(new) is None
    assert sessions.read(pass_(left=200)) is None, "nor by a pass that wasn't seen before"
    assert sessions.take_pending(NOW) == [SessionChange("release", 1, 28800_000)], "it isn't kept as well"
    assert sessions.take_pending(NOW + 60) == [], "not even by the request that still runs"
    sessions.finish(session)


def test_a_session_that_the_store_says_is_over_lets_nobody_in(sessions):
    first, second = known(sessions, pass_(1)), known(sessions, pass_(2))
    for session in (first, second):
        sessions.begin(session, NOW)
    sessions.acknowledge(sessions.take_pending(NOW), [True, False], NOW)
    assert sessions.read(pass_(1)) is first
    assert sessions.read(pass_(2)) is None


def test_a_session_that_ended_meanwhile_is_not_kept_by_another_try(sessions):
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    changes = sessions.take_pending(NOW)
    sessions.release(session, NOW, 30)
    sessions.requeue(changes)
    assert [change.operation for change in sessions.take_pending(NOW + 1)] == ["release"]


def test_what_the_store_says_of_a_released_session_takes_nothing_of_its_grace(sessions):
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    changes = sessions.take_pending(NOW)
    sessions.release(session, NOW, 30)
    sessions.acknowledge(changes, [False], NOW)
    assert session.grace_until == NOW + 30


@pytest.mark.parametrize(("operation", "grace_until"), [("keep", NOW + UNCONFIRMED_END_SECONDS), ("resume", 0.0)])
def test_only_a_session_with_a_good_pass_is_given_a_moment_when_the_store_calls_it_over(
    sessions, operation, grace_until
):
    session = known(sessions, pass_())
    sessions.acknowledge([SessionChange(operation, 1, 0)], [False], NOW)
    assert session.over
    assert session.grace_until == grace_until


def test_what_the_store_says_of_sessions_that_are_forgotten_is_nobody_s_business(sessions):
    sessions.acknowledge([keep(99)], [False], NOW)
    sessions.requeue([keep(99)])
    assert sessions.take_pending(NOW) == []


# The bound.


@pytest.fixture
def small(monkeypatch) -> Sessions:
    monkeypatch.setattr(module, "MOST_KEPT", 4)
    return Sessions(tokens)


def test_no_more_are_remembered_than_there_is_room_for(small):
    for id_ in range(100):
        known(small, pass_(id_))
        assert len(small._by_pass) <= 4
        assert len(small._by_id) <= 4


def test_a_pass_that_is_forgotten_is_verified_again(small):
    for id_ in range(10):
        known(small, pass_(id_))
    assert known(small, pass_(0)).id == 0


def test_when_an_old_pass_is_forgotten_the_session_of_a_newer_one_is_not(small):
    """Else what the store says of it would reach nobody, and a session that is over would go on."""
    session = known(small, pass_(1, left=100))
    newer = pass_(1, left=900)
    known(small, newer)
    for id_ in range(2, 5):
        known(small, pass_(id_))
    assert small.read(newer) is session
    small.begin(session, NOW)
    small.acknowledge(small.take_pending(NOW), [False], NOW)
    assert small.read(newer) is None


def test_a_session_with_a_request_under_way_is_not_forgotten(small):
    session = known(small, pass_(1))
    small.begin(session, NOW)
    for id_ in range(2, 12):
        known(small, pass_(id_))
    assert known(small, pass_(1)) is session
    small.release(session, NOW, 0)
    for id_ in range(12, 22):
        known(small, pass_(id_))
    assert small.read(pass_(1)) is None
    small.finish(session)


def test_but_when_the_request_has_ended_it_is(small):
    for id_ in range(100):
        session = known(small, pass_(id_))
        small.begin(session, NOW)
        for other in range(1000, 1005):
            known(small, pass_(other))
        small.finish(session)
        small.take_pending(NOW)
        assert len(small._by_id) <= 5
    assert not small._busy


def test_the_same_pass_twice_counts_once(small):
    """Two tabs that were let in within one second are given the same one."""
    for _ in range(3):
        small.issue_pass(1, expires_at=NOW + 900, ends_at=NOW + 14400)
    for id_ in range(2, 12):
        known(small, pass_(id_))
    assert 1 not in small._by_id
