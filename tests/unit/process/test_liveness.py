"""Which processes are replaced: those that are silent for too long, one at a time and few of them."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from waitroom.process.liveness import (
    CHILDLESS_SECONDS,
    LOOK_SECONDS,
    MOST_REPLACEMENTS,
    REPLACEMENT_WINDOW_SECONDS,
    REPLACING_SECONDS,
    STALL_SECONDS,
    Decision,
    Liveness,
)

LIMIT = 20.0


class Watch:
    """A supervisor that looks once a second, and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.liveness = Liveness(LIMIT)

    def look(self, alive: Iterable[str] = (), silent: Iterable[str] = (), after: float = LOOK_SECONDS) -> Decision:
        self.now += after
        signs = dict.fromkeys(alive, True) | dict.fromkeys(silent, False)
        return self.liveness.look(self.now, signs, processes=len(signs))

    def looks(self, seconds: float, alive: Iterable[str] = (), silent: Iterable[str] = ()) -> list[Decision]:
        return [self.look(alive, silent) for _ in range(round(seconds / LOOK_SECONDS))]

    def replace(self, name: str) -> None:
        """Lets a process be silent until it is replaced, and its replacement start."""
        self.look([name])
        assert replaced(self.looks(LIMIT, silent=[name])) == [name]
        self.look()
        assert self.look([name]) == Decision()


def replaced(decisions: Iterable[Decision]) -> list[str]:
    return [one.replace for one in decisions if one.replace is not None]


def test_a_silent_process_is_replaced_after_the_limit() -> None:
    watch = Watch()
    watch.look(["edge 0", "edge 1"])

    assert replaced(watch.looks(LIMIT - 1, ["edge 1"], ["edge 0"])) == []
    assert watch.look(["edge 1"], ["edge 0"]).replace == "edge 0"


def test_a_sign_of_life_in_time_starts_again() -> None:
    watch = Watch()
    for _ in range(5):
        assert replaced(watch.looks(LIMIT - 1, silent=["edge 0"])) == []
        watch.look(["edge 0"])


def test_a_process_that_is_not_ready_is_not_stuck() -> None:
    watch = Watch()
    assert replaced(watch.looks(10 * LIMIT, ["edge 1"])) == []
    assert replaced(watch.looks(LIMIT, ["edge 1"], ["edge 0"])) == []  # counts from when it was first ready


def test_silence_is_the_time_since_the_last_sign_of_a_process_that_is_ready() -> None:
    liveness = Liveness(LIMIT)
    for now, signs in enumerate(
        [{"edge 0": True, "edge 1": True}, {"edge 0": True, "edge 1": False}, {"edge 1": False}]
    ):
        liveness.look(float(now), signs, 2)
    assert [liveness.silence(name) for name in ("edge 0", "edge 1", "edge 2")] == [0.0, 2.0, 0.0]


def test_stalls_of_the_supervisor_are_no_silence() -> None:
    """As after a suspended machine, or in a container that was frozen."""
    watch = Watch()
    watch.look(["edge 0"])
    for _ in range(round(LIMIT) - 1):
        assert watch.look(silent=["edge 0"], after=3600).replace is None
    assert watch.look(silent=["edge 0"], after=STALL_SECONDS + 0.1).replace == "edge 0"


def test_one_is_replaced_at_a_time_the_longest_silent_first() -> None:
    watch = Watch()
    watch.look(["edge 0", "edge 1"])
    watch.look(["edge 0"], ["edge 1"])
    assert replaced(watch.looks(LIMIT - 1, silent=["edge 0", "edge 1"])) == ["edge 1"]
    assert replaced(watch.looks(REPLACING_SECONDS / 2, silent=["edge 0"])) == []  # the replacement is starting
    assert watch.look(["edge 1"], ["edge 0"]).replace == "edge 0"


def test_a_replacement_that_never_starts_keeps_no_other_from_being_replaced() -> None:
    watch = Watch()
    watch.look(["edge 1"], ["edge 0"])
    assert replaced(watch.looks(LIMIT, ["edge 1"], ["edge 0"])) == ["edge 0"]
    assert replaced(watch.looks(REPLACING_SECONDS - 1, silent=["edge 1"])) == []
    assert watch.look(silent=["edge 1"]).replace == "edge 1"


def test_beyond_three_in_ten_minutes_there_is_one_warning() -> None:
    watch = Watch()
    for name in ("edge 0", "edge 1", "store"):
        watch.replace(name)

    beyond = watch.looks(2 * LIMIT, silent=["control"])
    assert replaced(beyond) == []
    assert [one.warn for one in beyond if one.warn] == [("control",)]
    assert beyond[-1].stuck == {"control"}

    watch.look(["control"])
    again = watch.looks(2 * LIMIT, silent=["control"])
    assert [one.warn for one in again if one.warn] == [("control",)]

    assert replaced(watch.looks(REPLACEMENT_WINDOW_SECONDS, silent=["control"]))[:1] == ["control"]


def test_a_supervisor_without_children_gives_up() -> None:
    watch = Watch()
    watch.look(["edge 0"])
    without = watch.looks(CHILDLESS_SECONDS)
    assert [one.childless for one in without] == [False] * (len(without) - 1) + [True]
    assert not watch.look(["edge 0"]).childless


NAMES = ("edge 0", "edge 1", "control", "store")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.5, 30.0]),
            st.dictionaries(st.sampled_from(NAMES), st.sampled_from([True, False, False, False])),
        ),
        max_size=400,
    )
)
@settings(max_examples=examples(60, long=3000))
def test_replacements_are_rare_and_deserved(history: list[tuple[float, dict[str, bool]]]) -> None:
    """Whatever happens, nobody is replaced who has shown life within the limit, and never more than three."""
    liveness, now = Liveness(LIMIT), 0.0
    last_seen: dict[str, float] = {}
    times: list[float] = []
    for step, signs in history:
        now += step
        decision = liveness.look(now, signs, len(signs))
        for name, sign in signs.items():
            if sign or name not in last_seen:
                last_seen[name] = now
        for name in NAMES:
            if name not in signs:
                last_seen.pop(name, None)
        if decision.replace is not None:
            assert now - last_seen[decision.replace] >= LIMIT
            times.append(now)
        assert len([at for at in times if now - at < REPLACEMENT_WINDOW_SECONDS]) <= MOST_REPLACEMENTS
        assert decision.stuck <= signs.keys()
