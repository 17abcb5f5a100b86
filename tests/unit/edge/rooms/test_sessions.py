"""Sessions in one worker: cached, kept in the store, and evicted within a bound."""

from __future__ import annotations

import pytest

from support.edge_world import get
from waitroom.edge.http.message import Request, parse_request
from waitroom.edge.rooms import sessions as module
from waitroom.edge.rooms.session import Session, SessionLimits
from waitroom.edge.rooms.sessions import KEEP_INTERVAL_SECONDS, UNCONFIRMED_END_SECONDS, Sessions
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


def test_a_pass_identifies_a_session(sessions):
    session = known(sessions, pass_())
    assert (session.id, session.expires_at, session.ends_at) == (1, NOW + 900, NOW + 14400)
    assert not session.over


@pytest.mark.interpreted
def test_a_pass_is_verified_once(sessions, monkeypatch):
    session = known(sessions, pass_())
    monkeypatch.setattr(tokens, "read_pass", None)
    assert sessions.read(pass_()) is session


@pytest.mark.parametrize("value", [b"", b"x", pass_()[:-1], b"0" + pass_()])
def test_an_invalid_pass_is_ignored_and_not_cached(sessions, value):
    assert sessions.read(value) is None
    assert sessions._by_pass == {}


def test_all_passes_of_a_session_share_it(sessions):
    old, new = pass_(left=100), pass_(left=900)
    assert known(sessions, old) is known(sessions, new)
    assert known(sessions, old).expires_at == NOW + 900, "the newest counts"
    assert known(sessions, pass_(left=50)).expires_at == NOW + 900


def test_the_latest_end_and_the_earliest_hard_end_count(sessions):
    """A hold moves the end of a newer pass; an older pass that comes later takes nothing back."""
    held = tokens.sign_pass(Pass(1, NOW + 900, NOW + 15000, 600)).encode()
    session = known(sessions, held)
    known(sessions, pass_())
    assert (session.ends_at, session.hard_end) == (NOW + 15000, NOW + 14400)
    known(sessions, pass_(left=901, ends=14300))
    assert (session.ends_at, session.hard_end) == (NOW + 15000, NOW + 14300)


def asks(method: bytes, *lines: bytes) -> Request:
    return parse_request(get(b"/x", *lines, method=method))[0]


def test_a_request_that_waited_proceeds_only_before_the_sessions_end(sessions):
    session = known(sessions, pass_(ends=1000))
    assert session.allows(asks(b"POST"), NOW + 999)
    assert not session.allows(asks(b"POST"), NOW + 1000)


def test_after_a_release_only_waiting_reads_proceed(sessions):
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
def test_an_issued_pass_is_cached(sessions, monkeypatch):
    session, value = sessions.issue_pass(5, expires_at=NOW + 900, ends_at=NOW + 14400)
    monkeypatch.setattr(tokens, "read_pass", None)
    assert sessions.read(value.encode()) is session


def test_a_new_pass_lasts_as_long_as_earlier_ones(sessions):
    sessions.issue_pass(5, expires_at=NOW + 900, ends_at=NOW + 14400)
    session, value = sessions.issue_pass(5, expires_at=NOW + 100, ends_at=NOW + 100)
    assert Sessions(tokens).read(value.encode()).expires_at == NOW + 900
    assert session.ends_at == NOW + 14400


# Keeping them.


def test_activity_is_reported_once_per_interval(sessions):
    session = known(sessions, pass_())
    for second in range(30):
        sessions.begin(session, NOW + second)
        sessions.finish(session)
        changes = sessions.take_pending(NOW + second)
        assert list(changes) == ([keep(left=14400 - second)] if second in (0, KEEP_INTERVAL_SECONDS) else [])


def test_a_request_in_flight_is_activity(sessions):
    """An open WebSocket, or a long download."""
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    told = [second for second in range(60) if sessions.take_pending(NOW + second)]
    assert told == [0, 15, 30, 45]
    sessions.finish(session)
    assert sessions.take_pending(NOW + 60) == []


def test_several_requests_in_flight(sessions):
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    sessions.begin(session, NOW)
    sessions.take_pending(NOW)
    sessions.finish(session)
    assert sessions.take_pending(NOW + 20) == [keep(left=14380)]
    sessions.finish(session)
    assert sessions.take_pending(NOW + 40) == []


def test_a_session_past_its_end_is_not_kept(sessions):
    """Else an open WebSocket would hold its slot for ever, a margin at a time."""
    session = known(sessions, pass_(ends=20))
    sessions.begin(session, NOW)
    assert sessions.take_pending(NOW) == [keep(left=20)]
    assert sessions.take_pending(NOW + 19) == [keep(left=1)]
    for second in (35, 50, 65):
        assert sessions.take_pending(NOW + second) == [SessionChange("resume", session.id, 0)]
    sessions.acknowledge([SessionChange("resume", session.id, 0)], [0], NOW + 65)
    assert session.over
    assert sessions.take_pending(NOW + 80) == []
    sessions.finish(session)


def test_the_end_of_a_session_is_the_one_in_the_store(sessions):
    """A clock that jumped says that it is over; what was held stays held."""
    session = known(sessions, pass_(ends=20))
    session.ends_at += 5
    sessions.acknowledge([SessionChange("resume", session.id, 0)], [30_500], NOW + 25)
    assert (session.ends_at, session.ends_at - session.hard_end) == (NOW + 56, 5)
    sessions.acknowledge([SessionChange("resume", session.id, 0)], [90_000], NOW + 40)
    assert session.ends_at == NOW + 56, "an end ahead is left alone"


def test_an_inactive_session_is_not_kept(sessions):
    known(sessions, pass_())
    assert sessions.take_pending(NOW) == []


def test_requeued_updates_are_sent_with_the_next(sessions):
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


def test_updates_requeued_twice_are_sent_once(sessions):
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


def test_an_ended_session_admits_nobody(sessions):
    old, new = pass_(left=100), pass_(left=900)
    session = known(sessions, old)
    known(sessions, new)
    sessions.begin(session, NOW)
    sessions.release(session, NOW, 30)
    assert sessions.read(old) is None
    assert sessions.read(new) is None
    assert sessions.read(pass_(left=200)) is None, "a pass not seen before is no exception"
    assert sessions.take_pending(NOW) == [SessionChange("release", 1, 28800_000)], "it isn't kept as well"
    assert sessions.take_pending(NOW + 60) == [], "not even by the request that still runs"
    sessions.finish(session)


def test_a_session_reported_over_admits_nobody(sessions):
    first, second = known(sessions, pass_(1)), known(sessions, pass_(2))
    for session in (first, second):
        sessions.begin(session, NOW)
    sessions.acknowledge(sessions.take_pending(NOW), [True, False], NOW)
    assert sessions.read(pass_(1)) is first
    assert sessions.read(pass_(2)) is None


def test_a_session_that_ended_meanwhile_is_not_requeued(sessions):
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    changes = sessions.take_pending(NOW)
    sessions.release(session, NOW, 30)
    sessions.requeue(changes)
    assert [change.operation for change in sessions.take_pending(NOW + 1)] == ["release"]


def test_an_acknowledgement_does_not_shorten_the_grace_of_a_release(sessions):
    session = known(sessions, pass_())
    sessions.begin(session, NOW)
    changes = sessions.take_pending(NOW)
    sessions.release(session, NOW, 30)
    sessions.acknowledge(changes, [False], NOW)
    assert session.grace_until == NOW + 30


@pytest.mark.parametrize(("operation", "grace_until"), [("keep", NOW + UNCONFIRMED_END_SECONDS), ("resume", 0.0)])
def test_only_a_session_with_a_valid_pass_gets_a_moment_when_reported_over(sessions, operation, grace_until):
    session = known(sessions, pass_())
    sessions.acknowledge([SessionChange(operation, 1, 0)], [False], NOW)
    assert session.over
    assert session.grace_until == grace_until


def test_acknowledgements_for_evicted_sessions_are_ignored(sessions):
    sessions.acknowledge([keep(99)], [False], NOW)
    sessions.requeue([keep(99)])
    assert sessions.take_pending(NOW) == []


# The bound.


@pytest.fixture
def small(monkeypatch) -> Sessions:
    monkeypatch.setattr(module, "MAX_CACHED_PASSES", 4)
    return Sessions(tokens)


def test_the_cache_is_bounded(small):
    for id_ in range(100):
        known(small, pass_(id_))
        assert len(small._by_pass) <= 4
        assert len(small._by_id) <= 4


def test_an_evicted_pass_is_verified_again(small):
    for id_ in range(10):
        known(small, pass_(id_))
    assert known(small, pass_(0)).id == 0


def test_evicting_an_old_pass_keeps_the_session_of_a_newer_one(small):
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


def test_a_session_with_a_request_in_flight_is_not_evicted(small):
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


def test_a_session_is_evicted_after_its_last_request(small):
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
