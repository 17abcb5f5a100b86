"""The commands that change a running room, against a stand-in for the admin API."""

from __future__ import annotations

import pytest

from support.cli_runner import Run
from support.fake_admin_api import StandIn, bob, raw_server
from waitroom.cli import operations
from waitroom.cli.api_client import AdminClient
from waitroom.cli.console import Code, End


def test_set_says_what_it_does_before_and_after(run: Run, there: StandIn) -> None:
    result = run("set", "sale", "rate_per_minute=600", "max-active=900", "--note", "the database team agreed")
    assert result.exit_code == Code.DONE
    assert result.stdout.splitlines() == [
        "Newcomers wait half as long.",
        "  the wait of newcomers: 40 to 45 min now, 20 to 25 min then",
        "  the wait of the middle of the line: 20 to 25 min now, 10 to 12 min then",
        "Done: rate_per_minute 300 -> 600, max_active 800 -> 900.",
    ]
    tried, done = there.calls("PATCH")
    assert (tried.query, tried.body) == ({"dry_run": "true"}, {"rate_per_minute": 600, "max_active": 900})
    assert done.body == {**tried.body, "note": "the database team agreed"}
    assert tried.headers["If-Match"] == done.headers["If-Match"] == '"7"'


def test_a_dry_run_changes_nothing(run: Run, there: StandIn) -> None:
    for command in (("set", "sale", "max_active=1"), ("pause", "sale"), ("close", "sale"), ("drain", "sale")):
        result = run(*command, "--dry-run")
        assert result.exit_code == Code.DONE
        assert "nothing was changed" in result.stdout
    assert {one.query.get("dry_run") for one in there.calls("PATCH")} == {"true"}
    assert there.rooms["sale"]["version"] == 7


@pytest.mark.parametrize(
    ("values", "body"),
    [
        (["rate_per_minute=auto"], {"autopilot": True}),
        (["autopilot=off"], {"autopilot": False}),
        (["autopilot=on", "rate_per_minute=AUTO"], {"autopilot": True}),
        (["rate-per-minute = 12.5"], {"rate_per_minute": 12.5}),
        (["max_active=1_000"], {"max_active": 1000}),
    ],
)
def test_what_can_be_set(run: Run, there: StandIn, values: list[str], body: dict[str, object]) -> None:
    assert run("set", "sale", *values).exit_code == Code.DONE
    assert there.calls("PATCH")[-1].body == body


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["rate_per_minut=600"], "did you mean rate_per_minute?"),
        (["max_actve=3", "autopilt=on"], "did you mean autopilot?"),
        (["max_active"], "max_active has no value"),
        (["max_active=many"], "write a whole number of visitors"),
        (["max_active=1.5"], "write a whole number of visitors"),
        (["max_active=0"], "at least 1"),
        (["rate_per_minute=-1"], "above 0, or auto"),
        (["rate_per_minute=nan"], "above 0, or auto"),
        (["rate_per_minute=inf"], "above 0, or auto"),
        (["autopilot=perhaps"], "write on or off"),
        (["max_active=1", "max_active=2"], "given twice"),
        (["rate_per_minute=auto", "autopilot=off"], "leave one out"),
        (["state=paused"], "waitroom pause"),
        (["message=hello"], "waitroom message"),
        (["session_seconds=60"], "in the settings file only"),
        (["nonsense=1"], "there are rate_per_minute, max_active, autopilot"),
    ],
)
def test_what_can_not_be_set_is_told_before_anything_is_asked(
    run: Run, there: StandIn, values: list[str], said: str
) -> None:
    result = run("set", "sale", *values)
    assert result.exit_code == Code.BAD_USE
    assert said in result.stderr
    assert not there.asked


def test_all_slips_are_told_at_once(run: Run) -> None:
    result = run("set", "sale", "max_actve=3", "rate_per_minute=fast")
    assert "did you mean max_active?" in result.stderr
    assert "rate_per_minute=fast" in result.stderr


@pytest.mark.parametrize(
    "command", [("set", "sale", "max_active=900"), ("pause", "sale"), ("message", "sale", "hi"), ("undo", "sale")]
)
def test_what_somebody_else_changed_meanwhile_is_not_overridden(
    run: Run, there: StandIn, command: tuple[str, ...]
) -> None:
    there.meanwhile = lambda room: bob(room, max_active=100)
    result = run(*command)
    assert result.exit_code == Code.CHANGED_MEANWHILE
    assert "bob" in result.stderr
    assert "max_active 800 → 100" in result.stderr
    assert (there.rooms["sale"]["version"], there.rooms["sale"]["max_active"]) == (8, 100)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (("pause", "sale"), {"state": "paused"}),
        (("pause", "sale", "--message", "Back soon"), {"state": "paused", "message": "Back soon"}),
        (("resume", "sale", "--note", "fixed"), {"state": "open", "note": "fixed"}),
        (("close", "sale"), {"state": "closed"}),
        (("close", "sale", "--sold-out", "--message", "Thanks!"), {"state": "sold_out", "message": "Thanks!"}),
        (("message", "sale", "Hello there"), {"message": "Hello there"}),
        (("message", "sale", ""), {"message": ""}),
        (("drain", "sale"), {"draining": True}),
    ],
)
def test_what_each_command_sends(run: Run, there: StandIn, command: tuple[str, ...], body: dict[str, object]) -> None:
    result = run(*command)
    assert result.exit_code == Code.DONE
    assert there.calls("PATCH")[-1].body == body
    assert "dry_run" not in there.calls("PATCH")[-1].query
    assert "Done: " in result.stdout


def test_a_message_that_outlives_the_pause_is_told(run: Run, there: StandIn) -> None:
    there.rooms["sale"] |= {"state": "paused", "message": "Back soon"}
    assert "The waiting are still told: Back soon" in run("resume", "sale").stdout
    there.rooms["sale"] |= {"state": "paused"}
    assert "still told" not in run("resume", "sale", "--message", "").stdout


@pytest.mark.parametrize(
    "command", [("close", "sale"), ("drain", "sale"), ("undo", "sale"), ("end-session", "sale", "1f")]
)
def test_dangerous_ones_ask_first(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    def done() -> list[object]:
        return [one for one in there.asked if one.method != "GET" and "dry_run" not in one.query]

    result = run(*command, typed="n\n")
    assert result.exit_code == Code.NOT_DONE
    assert "nothing was changed" in result.stderr
    assert run(*command, typed="\n").exit_code == Code.NOT_DONE, "no is what is meant by nothing"
    assert not done()
    result = run(*command, "--yes", typed="")
    assert result.exit_code == Code.DONE
    assert "[y/N]" not in result.stdout
    assert len(done()) == 1
    assert run(*command, typed="y\n").exit_code == Code.DONE
    assert len(done()) == 2


def test_what_the_gateway_warns_of_is_asked_too(run: Run, there: StandIn) -> None:
    assert "[y/N]" not in run("set", "sale", "max_active=10", "--dry-run", typed="").stdout
    assert "[y/N]" not in run("set", "sale", "max_active=900", typed="").stdout
    there.warnings = ["780 are inside: nobody is let in until 770 have left."]
    result = run("set", "sale", "max_active=10", typed="n\n")
    assert "Beware: 780 are inside" in result.stdout
    assert result.exit_code == Code.NOT_DONE
    assert there.rooms["sale"]["max_active"] == 900
    assert run("set", "sale", "max_active=10").exit_code == Code.DONE, "in a pipe there is nobody to ask"


def test_undo_says_what_it_takes_back(run: Run, there: StandIn) -> None:
    result = run("undo", "sale", "--note", "too fast")
    assert "Taking back: ann, " in result.stdout
    assert "Done: rate_per_minute 300 -> 200." in result.stdout
    (call,) = there.calls("POST")
    assert (call.headers["If-Match"], call.body) == ('"7"', {"note": "too fast"})


@pytest.mark.parametrize("last", [None, {"at": "", "who": "ann", "what": "undid it", "undoable": False}])
def test_nothing_to_undo(run: Run, there: StandIn, last: dict[str, object] | None) -> None:
    there.rooms["sale"] |= {"last_change": last, "undo": None}
    result = run("undo", "sale")
    assert result.exit_code == Code.NOT_DONE
    assert "Nothing to undo" in result.stderr
    assert not there.calls("POST")


def test_undo_takes_an_operators_change_back_also_after_the_shops(run: Run, there: StandIn) -> None:
    there.rooms["sale"]["last_change"] = {"at": "", "who": "the shop", "what": "state open → sold_out"}
    assert "Taking back: ann, " in run("undo", "sale").stdout
    assert len(there.calls("POST")) == 1


def test_admit(run: Run, there: StandIn) -> None:
    result = run("admit", "sale", "77.a.b")
    assert result.exit_code == Code.NOT_DONE
    assert "The room is full." in result.stderr
    there.free_slots = 1
    assert run("admit", "sale", "77.a.b", "--note", "a journalist").exit_code == Code.DONE
    assert there.calls("POST")[-1].body == {"ticket": "77.a.b", "note": "a journalist"}


def test_a_room_that_was_not_seen_yet_is_not_changed(run: Run, there: StandIn) -> None:
    there.rooms["sale"] = {"name": "sale", "upstream": "", "store_up": False}
    result = run("pause", "sale")
    assert result.exit_code == Code.NO_ANSWER
    assert "has not seen sale in its store" in result.stderr
    assert not there.calls("PATCH")


EACH = [
    *(("set", "sal", "max_active=9"), ("pause", "sal"), ("resume", "sal"), ("close", "sal"), ("message", "sal", "x")),
    *(("drain", "sal"), ("undo", "sal"), ("admit", "sal", "7"), ("end-session", "sal", "7"), ("history", "sal")),
    ("diff", "sal"),
]


@pytest.mark.parametrize("command", EACH, ids=lambda command: command[0])
def test_a_room_there_is_not(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == Code.BAD_USE
    assert "No room is called sal: did you mean sale?" in result.stderr
    there.rooms = {"autumn": there.rooms["sale"] | {"name": "autumn"}}
    assert "there is autumn" in run(*command).stderr


def test_a_change_that_got_no_answer_may_have_been_made(run: Run, there: StandIn) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    room = b'{"name": "sale", "state": "open", "version": 7}'
    seen = answer + b'ETag: "7"\r\nContent-Length: %d\r\n\r\n' % len(room) + room
    with raw_server(seen, b"") as url:
        result = run("message", "sale", "hello", "--admin", url)
    assert result.exit_code == Code.NO_ANSWER
    assert "may have been done all the same" in result.stderr


def test_drain_waits_until_nobody_is_inside(there: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    client = AdminClient(there.url)
    bob(there.rooms["sale"], draining=True)
    room = client.room("sale").value
    steps = iter([{"active": 20, "called": 1}, {"active": 20}, {"active": 1, "called": 0}, {"active": 0}])
    operations.until_empty(client, room, lambda _: there.rooms["sale"].update(next(steps)))
    assert capsys.readouterr().out.splitlines() == [
        *("783 inside or called", "21 inside or called", "1 inside or called", "sale is empty.")
    ]


def test_drain_does_not_wait_for_what_was_taken_back(there: StandIn) -> None:
    client = AdminClient(there.url)
    bob(there.rooms["sale"], draining=True)
    room = client.room("sale").value
    with pytest.raises(End, match="draining True → False") as raised:
        operations.until_empty(client, room, lambda _: bob(there.rooms["sale"], draining=False))
    assert raised.value.code is Code.CHANGED_MEANWHILE


def test_drain_outlives_a_gateway_that_is_away(there: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    client = AdminClient(there.url)
    bob(there.rooms["sale"], draining=True)
    room = client.room("sale").value
    steps = iter(["http://127.0.0.1:1", "http://127.0.0.1:1", there.url])

    def pause(_: float) -> None:
        there.rooms["sale"] |= {"active": 0, "called": 0}
        client.__init__(next(steps))  # type: ignore[misc]

    operations.until_empty(client, room, pause)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["783 insid", "No answer", "sale is e"]


def test_what_was_changed_while_the_question_was_open_is_not_overridden(
    run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(_question: str) -> bool:
        bob(there.rooms["sale"], max_active=100)
        return True

    monkeypatch.setattr(operations.typer, "confirm", answered)
    for command in (("close", "sale"), ("undo", "sale")):
        result = run(*command, typed="")
        assert result.exit_code == Code.CHANGED_MEANWHILE
        assert "bob" in result.stderr
    assert there.rooms["sale"]["state"] == "open"
