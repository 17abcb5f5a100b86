"""``waitroom status``, once and live; and how commands find a gateway and authenticate."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console

from support.cli_runner import Run
from support.fake_admin_api import StandIn, raw_server
from waitroom.cli import gateway, status
from waitroom.cli.api_client import AdminClient, RejectedError
from waitroom.cli.console import ExitCode, sanitize


def drawn(client: AdminClient, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(status.render(client.rooms().value.rooms, console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_room_is_one_line_in_a_pipe(run: Run, there: StandIn) -> None:
    result = run("status")
    assert result.exit_code == ExitCode.SUCCESS
    heading, line, last = result.stdout.splitlines()
    assert heading.split("  ")[0].strip() == "room"
    for part in ("sale", "open", "12,345", "780 of 800", "297 of 300", "40 to 45 min", "412 ms", "4/min", "up"):
        assert part in line
    assert "2 of 2" in line
    assert last.startswith("sale: last change by ann, 24 Nov ")
    assert "\x1b" not in result.stdout


def test_a_terminal_too_narrow_for_a_row_gets_a_column(there: StandIn) -> None:
    client = AdminClient(there.url)
    assert any({"sale", "12,345", "412"} <= set(line.split()) for line in drawn(client, 200).splitlines())
    lines = drawn(client, 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert ["waiting", "12,345"] in [line.split() for line in lines]
    assert "40 to 45 min" in "\n".join(lines)


def test_problems_are_shown(run: Run, there: StandIn) -> None:
    there.rooms["sale"] |= {"store_problem": "the store is a replica"}
    there.rooms["sale"] |= {"store_up": False, "workers": {"alive": 1, "wanted": 2}, "message": "Back soon"}
    there.rooms["sale"] |= {"state": "paused", "draining": True, "remaining": 40}
    there.rooms["sale"]["autopilot"] = {
        "on": True,
        "floor": 60,
        "ceiling": 900,
        "summary": "Holds: errors.",
        "at": None,
    }
    there.rooms["new"] = {"name": "new", "upstream": "", "store_up": False}
    shown = run("status").stdout
    for part in (
        "unavailable",
        "1 of 2",
        "draining",
        "sale: the store is a replica",
        "sale: message to waiting visitors: Back soon",
        "sale: 40 left in stock",
    ):
        assert part in shown
    assert "autopilot on, between 60 and 900 per minute. Holds: errors." in shown
    assert "unknown" in shown


def test_a_passthrough_room_shows_what_its_limits_would_have_held(run: Run, there: StandIn) -> None:
    assert "passthrough" not in run("status").stdout
    over = {"rate": {"total": 1234, "per_minute": 60.0}, "max_active": {"total": 0, "per_minute": None}}
    there.rooms["sale"]["over_limit"] = over
    shown = run("status").stdout
    assert (
        "sale: passthrough. Visitors that each limit would have held: rate: 1,234 (60/min), max_active: 0 (-/min)"
        in shown
    )


def test_terminal_control_characters_are_not_printed(run: Run, there: StandIn) -> None:
    there.rooms["sale"]["message"] = "a\x1b]0;owned\x07b\x9bc\u202ed [bold]e[/bold]\nf"
    assert "a\ufffd]0;owned\ufffdb\ufffdc\ufffdd [bold]e[/bold] f" in run("status").stdout
    assert "\x1b" not in run("status", "--json").stdout
    assert sanitize("caf\u00e9 \U0001f600") == "caf\u00e9 \U0001f600"


def test_json_output_is_the_response_of_the_gateway(run: Run, there: StandIn) -> None:
    assert json.loads(run("status", "--json").stdout) == list(there.rooms.values())


def pause_until(count: int, between: Callable[[int], None] = lambda _attempt: None) -> Callable[[float], None]:
    """Returns a pause that ends the watching after a number of attempts."""
    done = 0

    def pause(_seconds: float) -> None:
        nonlocal done
        done += 1
        if done == count:
            raise KeyboardInterrupt
        between(done)

    return pause


def test_watching_continues_while_the_gateway_is_unavailable(
    there: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(100))
    monkeypatch.setattr(status.time, "time", lambda: 1_800_000_000 + next(times))

    def between(attempt: int) -> None:
        failing = attempt in (1, 2)
        there.instead = lambda _: web.Response(status=500, text="oh") if failing else None

    with pytest.raises(KeyboardInterrupt):
        status.watch_rooms(AdminClient(there.url), as_json=False, pause=pause_until(4, between))
    shown = capsys.readouterr().out
    assert shown.count("12,345") == 4, "the last state stays"
    since = [line.split(": ")[0] for line in shown.splitlines() if line.startswith("No response since ")]
    assert len(since) == 2
    assert since[0] == since[1]


def test_watching_can_start_before_the_gateway(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        status.watch_rooms(AdminClient(f"http://127.0.0.1:{unused_tcp_port}"), as_json=True, pause=pause_until(2))
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second
    assert "Connection refused" in first["why"]


def test_watching_as_json_prints_one_line_per_refresh(there: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        status.watch_rooms(AdminClient(there.url), as_json=True, pause=pause_until(3))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["rooms"][0]["name"] for line in lines] == ["sale"] * 3


def test_watching_ends_if_the_first_request_is_rejected_and_continues_if_a_later_one_is(
    there: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    def between(_attempt: int) -> None:
        there.token = "new"

    with pytest.raises(KeyboardInterrupt):
        status.watch_rooms(AdminClient(there.url), as_json=False, pause=pause_until(2, between))
    assert "Nobody is logged in." in capsys.readouterr().out
    with pytest.raises(RejectedError):
        status.watch_rooms(AdminClient(there.url), as_json=False, pause=pause_until(2))


def test_ctrl_c_ends_watching_with_success(run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.time, "sleep", pause_until(2))
    result = run("status", "--watch")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stdout.count("12,345") == 2


# How a gateway is found, and how commands authenticate.


def settings(folder: Path, there: StandIn, data_dir: str = "data") -> str:
    path = folder / "waitroom.toml"
    room = '[[rooms]]\nname = "sale"\nupstream = "http://127.0.0.1:3000"\n'
    path.write_text(f'admin_listen = "{there.url.removeprefix("http://")}"\ndata_dir = "{data_dir}"\n{room}')
    return str(path)


def test_settings_determine_the_gateway_and_the_local_token(run: Run, there: StandIn, tmp_path: Path) -> None:
    there.token = "of-this-start"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / gateway.LOCAL_TOKEN_FILE).write_text("of-this-start\n")
    assert run("status", "--config", settings(tmp_path, there)).exit_code == ExitCode.SUCCESS


def test_the_environment_determines_the_gateway(
    run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WAITROOM_ADMIN_LISTEN", there.url.removeprefix("http://"))
    monkeypatch.setenv("WAITROOM_DATA_DIR", str(tmp_path))
    (tmp_path / gateway.LOCAL_TOKEN_FILE).write_text("local")
    there.token = "local"
    run.url = ""
    result = run("status", "--admin", "")
    assert result.exit_code == ExitCode.SUCCESS, result.stderr


def test_precedence_of_tokens(run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "waitroom-data").mkdir()
    (tmp_path / "waitroom-data" / gateway.LOCAL_TOKEN_FILE).write_text("local")
    (tmp_path / "mine").write_text("from-the-file\n")
    run("status")
    monkeypatch.setenv("WAITROOM_TOKEN", "from-the-environment")
    run("status")
    run("status", "--token-file", "mine")
    sent = [one.headers["Authorization"].removeprefix("Bearer ") for one in there.asked]
    assert sent == ["local", "from-the-environment", "from-the-file"]


def test_the_local_token_is_sent_only_to_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / gateway.LOCAL_TOKEN_FILE
    path.write_text("local")
    assert gateway._token_provider(None, path, True)() == "local"
    assert gateway._token_provider(None, path, False)() is None


def test_an_unreadable_local_token_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / gateway.LOCAL_TOKEN_FILE
    path.mkdir()
    assert gateway._token_provider(None, path, True)() is None


def test_an_invalid_token_file_is_refused(run: Run, there: StandIn, tmp_path: Path) -> None:
    (tmp_path / "two").write_text("hush hush\n")
    for name, said in (("missing", "can't read"), ("two", "spaces")):
        result = run("status", "--token-file", name)
        assert result.exit_code == ExitCode.INVALID_INPUT
        assert said in result.stderr
        assert "hush" not in result.output
    assert not there.asked


def test_a_missing_or_wrong_token_is_explained(run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    there.token = "right"
    result = run("status")
    assert result.exit_code == ExitCode.FORBIDDEN
    assert "--token-file or WAITROOM_TOKEN" in result.stderr
    monkeypatch.setenv("WAITROOM_TOKEN", "wrong-and-secret")
    result = run("status")
    assert result.exit_code == ExitCode.FORBIDDEN
    assert "Token rejected" in result.stderr
    assert "wrong-and-secret" not in result.output


EVERY = [
    *(("status",), ("set", "sale", "max_active=9"), ("pause", "sale"), ("resume", "sale"), ("close", "sale")),
    *(("message", "sale", "x"), ("drain", "sale"), ("undo", "sale"), ("admit", "sale", "7")),
    *(
        ("end-session", "sale", "7"),
        ("history", "sale"),
        ("decisions", "sale"),
        ("diff", "sale"),
        ("diff",),
        ("audit",),
    ),
    *(("audit", "show"), ("audit", "export"), ("audit", "verify")),
]
NAMES = [" ".join(command) for command in EVERY]
CODES = {
    400: ExitCode.INVALID_INPUT,
    401: ExitCode.FORBIDDEN,
    403: ExitCode.FORBIDDEN,
    404: ExitCode.INVALID_INPUT,
    409: ExitCode.FAILURE,
    412: ExitCode.CONFLICT,
    422: ExitCode.INVALID_INPUT,
    428: ExitCode.FAILURE,
    429: ExitCode.FORBIDDEN,
    500: ExitCode.FAILURE,
    503: ExitCode.UNAVAILABLE,
}


@pytest.mark.parametrize("command", EVERY, ids=NAMES)
def test_every_rejection_is_reported_with_its_exit_code(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    for number, code in CODES.items():
        there.instead = lambda _, number=number: there.problem(number, f"Because of {number}.", errors={"field": "bad"})
        result = run(*command)
        assert (result.exit_code, result.stdout) == (code, ""), number
        assert f"Because of {number}." in result.stderr
        assert "field: bad" in result.stderr


@pytest.mark.parametrize("command", EVERY, ids=NAMES)
def test_every_command_reports_an_unavailable_gateway(run: Run, command: tuple[str, ...], unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    result = run(*command, "--admin", url)
    assert (result.exit_code, result.stdout) == (ExitCode.UNAVAILABLE, "")
    assert f"Gateway unavailable: {url}: Connection refused" in result.stderr
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>") as url:
        result = run(*command, "--admin", url)
    assert (result.exit_code, result.stdout) == (ExitCode.UNAVAILABLE, "")
    assert "not a Waitroom gateway" in result.stderr


@pytest.mark.parametrize("command", EVERY, ids=NAMES)
def test_every_command_times_out(run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "TIMEOUT_SECONDS", 0.05)
    with raw_server(b"", hang=True) as url:
        result = run(*command, "--admin", url)
    assert (result.exit_code, result.stdout) == (ExitCode.UNAVAILABLE, "")
    assert "no response within 0.05 s" in result.stderr


def test_a_password_in_the_address_is_not_repeated(run: Run) -> None:
    result = run("status", "--admin", "http://ann:hush@127.0.0.1:1/x?token=hush")
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert "hush" not in result.output
