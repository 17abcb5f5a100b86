"""The commands that change a running room, against a stand-in for the admin API."""

from __future__ import annotations

import pytest

from support.cli_runner import Run
from support.fake_admin_api import StandIn, bob, raw_server
from waitroom.cli import operations
from waitroom.cli.api_client import AdminClient
from waitroom.cli.console import CommandError, ExitCode


def test_set_prints_the_preview_and_the_result(run: Run, there: StandIn) -> None:
    result = run("set", "sale", "rate_per_minute=600", "max-active=900", "--note", "the database team agreed")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stdout.splitlines() == [
        "Newcomers wait half as long.",
        "  wait of newcomers: 40 to 45 min -> 20 to 25 min",
        "  wait of the middle of the queue: 20 to 25 min -> 10 to 12 min",
        "Done: rate_per_minute 300 -> 600, max_active 800 -> 900.",
    ]
    tried, done = there.calls("PATCH")
    assert (tried.query, tried.body) == ({"dry_run": "true"}, {"rate_per_minute": 600, "max_active": 900})
    assert done.body == {**tried.body, "note": "the database team agreed"}
    assert tried.headers["If-Match"] == done.headers["If-Match"] == '"7"'


def test_a_dry_run_changes_nothing(run: Run, there: StandIn) -> None:
    for command in (("set", "sale", "max_active=1"), ("pause", "sale"), ("close", "sale"), ("drain", "sale")):
        result = run(*command, "--dry-run")
        assert result.exit_code == ExitCode.SUCCESS
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
def test_valid_assignments(run: Run, there: StandIn, values: list[str], body: dict[str, object]) -> None:
    assert run("set", "sale", *values).exit_code == ExitCode.SUCCESS
    assert there.calls("PATCH")[-1].body == body


@pytest.mark.parametrize(
    ("values", "expected"),
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
        (["rate_per_minute=auto", "autopilot=off"], "remove one"),
        (["state=paused"], "waitroom pause"),
        (["message=hello"], "waitroom message"),
        (["session_seconds=60"], "only in the settings file"),
        (["nonsense=1"], "use one of rate_per_minute, max_active, autopilot"),
    ],
)
def test_invalid_assignments_are_refused_without_a_request(
    run: Run, there: StandIn, values: list[str], expected: str
) -> None:
    result = run("set", "sale", *values)
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert expected in result.stderr
    assert not there.asked


def test_all_errors_are_reported_together(run: Run) -> None:
    result = run("set", "sale", "max_actve=3", "rate_per_minute=fast")
    assert "did you mean max_active?" in result.stderr
    assert "rate_per_minute=fast" in result.stderr


@pytest.mark.parametrize(
    "command", [("set", "sale", "max_active=900"), ("pause", "sale"), ("message", "sale", "hi"), ("undo", "sale")]
)
def test_a_concurrent_change_is_not_overwritten(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    there.meanwhile = lambda room: bob(room, max_active=100)
    result = run(*command)
    assert result.exit_code == ExitCode.CONFLICT
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
def test_requests_of_each_command(run: Run, there: StandIn, command: tuple[str, ...], body: dict[str, object]) -> None:
    result = run(*command)
    assert result.exit_code == ExitCode.SUCCESS
    assert there.calls("PATCH")[-1].body == body
    assert "dry_run" not in there.calls("PATCH")[-1].query
    assert "Done: " in result.stdout


def test_resume_mentions_a_message_that_is_still_shown(run: Run, there: StandIn) -> None:
    there.rooms["sale"] |= {"state": "paused", "message": "Back soon"}
    assert "Message still shown to waiting visitors: Back soon" in run("resume", "sale").stdout
    there.rooms["sale"] |= {"state": "paused"}
    assert "still shown" not in run("resume", "sale", "--message", "").stdout


@pytest.mark.parametrize(
    "command", [("close", "sale"), ("drain", "sale"), ("undo", "sale"), ("end-session", "sale", "1f")]
)
def test_dangerous_commands_ask_for_confirmation(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    def done() -> list[object]:
        return [one for one in there.asked if one.method != "GET" and "dry_run" not in one.query]

    result = run(*command, typed="n\n")
    assert result.exit_code == ExitCode.FAILURE
    assert "nothing was changed" in result.stderr
    assert run(*command, typed="\n").exit_code == ExitCode.FAILURE, "the default answer is no"
    assert not done()
    result = run(*command, "--yes", typed="")
    assert result.exit_code == ExitCode.SUCCESS
    assert "[y/N]" not in result.stdout
    assert len(done()) == 1
    assert run(*command, typed="y\n").exit_code == ExitCode.SUCCESS
    assert len(done()) == 2


def test_warnings_of_the_gateway_require_confirmation(run: Run, there: StandIn) -> None:
    assert "[y/N]" not in run("set", "sale", "max_active=10", "--dry-run", typed="").stdout
    assert "[y/N]" not in run("set", "sale", "max_active=900", typed="").stdout
    there.warnings = ["780 are inside: nobody is let in until 770 have left."]
    result = run("set", "sale", "max_active=10", typed="n\n")
    assert "Warning: 780 are inside" in result.stdout
    assert result.exit_code == ExitCode.FAILURE
    assert there.rooms["sale"]["max_active"] == 900
    assert run("set", "sale", "max_active=10").exit_code == ExitCode.SUCCESS, "commands in a pipe ask no questions"


def test_undo_prints_the_change(run: Run, there: StandIn) -> None:
    result = run("undo", "sale", "--note", "too fast")
    assert "Undoing: ann, " in result.stdout
    assert "Done: rate_per_minute 300 -> 200." in result.stdout
    (call,) = there.calls("POST")
    assert (call.headers["If-Match"], call.body) == ('"7"', {"note": "too fast"})


@pytest.mark.parametrize("last", [None, {"at": "", "who": "ann", "what": "undid it", "undoable": False}])
def test_nothing_to_undo(run: Run, there: StandIn, last: dict[str, object] | None) -> None:
    there.rooms["sale"] |= {"last_change": last, "undo": None}
    result = run("undo", "sale")
    assert result.exit_code == ExitCode.FAILURE
    assert "Nothing to undo" in result.stderr
    assert not there.calls("POST")


def test_undo_reverts_an_operators_change_even_after_one_of_the_shop(run: Run, there: StandIn) -> None:
    there.rooms["sale"]["last_change"] = {"at": "", "who": "the shop", "what": "state open → sold_out"}
    assert "Undoing: ann, " in run("undo", "sale").stdout
    assert len(there.calls("POST")) == 1


def test_admit(run: Run, there: StandIn) -> None:
    result = run("admit", "sale", "77.a.b")
    assert result.exit_code == ExitCode.FAILURE
    assert "The room is full." in result.stderr
    there.free_slots = 1
    assert run("admit", "sale", "77.a.b", "--note", "a journalist").exit_code == ExitCode.SUCCESS
    assert there.calls("POST")[-1].body == {"ticket": "77.a.b", "note": "a journalist"}


def test_a_room_without_a_state_is_not_changed(run: Run, there: StandIn) -> None:
    there.rooms["sale"] = {"name": "sale", "upstream": "", "store_up": False}
    result = run("pause", "sale")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "has not read sale from its store" in result.stderr
    assert not there.calls("PATCH")


EACH = [
    *(("set", "sal", "max_active=9"), ("pause", "sal"), ("resume", "sal"), ("close", "sal"), ("message", "sal", "x")),
    *(("drain", "sal"), ("undo", "sal"), ("admit", "sal", "7"), ("end-session", "sal", "7"), ("history", "sal")),
    ("diff", "sal"),
]


@pytest.mark.parametrize("command", EACH, ids=lambda command: command[0])
def test_an_unknown_room(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert "Unknown room sal: did you mean sale?" in result.stderr
    there.rooms = {"autumn": there.rooms["sale"] | {"name": "autumn"}}
    assert "choose from autumn" in run(*command).stderr


def test_a_change_without_a_response_may_have_been_made(run: Run, there: StandIn) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    room = b'{"name": "sale", "state": "open", "version": 7}'
    seen = answer + b'ETag: "7"\r\nContent-Length: %d\r\n\r\n' % len(room) + room
    with raw_server(seen, b"") as url:
        result = run("message", "sale", "hello", "--admin", url)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "may have been made" in result.stderr


def test_drain_waits_until_the_room_is_empty(there: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    client = AdminClient(there.url)
    bob(there.rooms["sale"], draining=True)
    room = client.room("sale").value
    steps = iter([{"active": 20, "called": 1}, {"active": 20}, {"active": 1, "called": 0}, {"active": 0}])
    operations.wait_until_empty(client, room, lambda _: there.rooms["sale"].update(next(steps)))
    assert capsys.readouterr().out.splitlines() == [
        *("783 active or called", "21 active or called", "1 active or called", "sale is empty.")
    ]


def test_drain_stops_waiting_if_it_is_cancelled(there: StandIn) -> None:
    client = AdminClient(there.url)
    bob(there.rooms["sale"], draining=True)
    room = client.room("sale").value
    with pytest.raises(CommandError, match="draining True → False") as raised:
        operations.wait_until_empty(client, room, lambda _: bob(there.rooms["sale"], draining=False))
    assert raised.value.code is ExitCode.CONFLICT


def test_drain_keeps_waiting_while_the_gateway_is_unavailable(
    there: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    client = AdminClient(there.url)
    bob(there.rooms["sale"], draining=True)
    room = client.room("sale").value
    steps = iter(["http://127.0.0.1:1", "http://127.0.0.1:1", there.url])

    def pause(_: float) -> None:
        there.rooms["sale"] |= {"active": 0, "called": 0}
        client.__init__(next(steps))  # type: ignore[misc]

    operations.wait_until_empty(client, room, pause)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["783 activ", "No respon", "sale is e"]


def test_a_change_during_the_confirmation_is_not_overwritten(
    run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm(_question: str) -> bool:
        bob(there.rooms["sale"], max_active=100)
        return True

    monkeypatch.setattr(operations.typer, "confirm", confirm)
    for command in (("close", "sale"), ("undo", "sale")):
        result = run(*command, typed="")
        assert result.exit_code == ExitCode.CONFLICT
        assert "bob" in result.stderr
    assert there.rooms["sale"]["state"] == "open"
