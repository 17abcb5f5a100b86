"""``waitroom status``, once and live; and how commands find a gateway and say who they are."""

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
from waitroom.cli.api_client import AdminClient, Refused
from waitroom.cli.console import Code, plain


def drawn(client: AdminClient, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(status.picture(client.rooms().value.rooms, console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_room_on_one_line_in_a_pipe(run: Run, there: StandIn) -> None:
    result = run("status")
    assert result.exit_code == Code.DONE
    heading, line, last = result.stdout.splitlines()
    assert heading.split("  ")[0].strip() == "room"
    for part in ("sale", "open", "12,345", "780 of 800", "297 of 300", "40 to 45 min", "412 ms", "4 a min", "up"):
        assert part in line
    assert "2 of 2" in line
    assert last.startswith("sale was changed by ann, 24 Nov ")
    assert "\x1b" not in result.stdout


def test_a_terminal_too_narrow_for_a_row_gets_a_column(there: StandIn) -> None:
    client = AdminClient(there.url)
    assert any({"sale", "12,345", "412"} <= set(line.split()) for line in drawn(client, 200).splitlines())
    lines = drawn(client, 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert ["waiting", "12,345"] in [line.split() for line in lines]
    assert "40 to 45 min" in "\n".join(lines)


def test_what_is_not_well_is_said(run: Run, there: StandIn) -> None:
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
    for part in ("doesn't answer", "1 of 2", "draining", "sale tells the waiting: Back soon", "sale has 40 left"):
        assert part in shown
    assert "autopilot on, between 60 and 900 a minute. Holds: errors." in shown
    assert "not seen yet" in shown


def test_what_a_terminal_would_obey_is_not_printed(run: Run, there: StandIn) -> None:
    there.rooms["sale"]["message"] = "a\x1b]0;owned\x07b\x9bc\u202ed [bold]e[/bold]\nf"
    assert "a\ufffd]0;owned\ufffdb\ufffdc\ufffdd [bold]e[/bold] f" in run("status").stdout
    assert "\x1b" not in run("status", "--json").stdout
    assert plain("caf\u00e9 \U0001f600") == "caf\u00e9 \U0001f600"


def test_as_json_it_is_what_the_gateway_said(run: Run, there: StandIn) -> None:
    assert json.loads(run("status", "--json").stdout) == list(there.rooms.values())


def looks(count: int, between: Callable[[int], None] = lambda _look: None) -> Callable[[float], None]:
    """A pause that ends the watching after so many looks."""
    done = 0

    def pause(_seconds: float) -> None:
        nonlocal done
        done += 1
        if done == count:
            raise KeyboardInterrupt
        between(done)

    return pause


def test_watching_goes_on_while_nobody_answers(
    there: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(100))
    monkeypatch.setattr(status.time, "time", lambda: 1_800_000_000 + next(times))

    def between(look: int) -> None:
        failing = look in (1, 2)
        there.instead = lambda _: web.Response(status=500, text="oh") if failing else None

    with pytest.raises(KeyboardInterrupt):
        status.watching(AdminClient(there.url), as_json=False, pause=looks(4, between))
    shown = capsys.readouterr().out
    assert shown.count("12,345") == 4, "what was seen last stays"
    since = [line.split(": ")[0] for line in shown.splitlines() if line.startswith("No answer since ")]
    assert len(since) == 2
    assert since[0] == since[1]


def test_watching_begins_before_the_gateway_does(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        status.watching(AdminClient(f"http://127.0.0.1:{unused_tcp_port}"), as_json=True, pause=looks(2))
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second
    assert "Connection refused" in first["why"]


def test_watching_as_json_is_a_line_a_look(there: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        status.watching(AdminClient(there.url), as_json=True, pause=looks(3))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["rooms"][0]["name"] for line in lines] == ["sale"] * 3


def test_who_is_refused_at_first_watches_nothing_and_later_goes_on(
    there: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    def between(_look: int) -> None:
        there.token = "new"

    with pytest.raises(KeyboardInterrupt):
        status.watching(AdminClient(there.url), as_json=False, pause=looks(2, between))
    assert "Nobody is logged in." in capsys.readouterr().out
    with pytest.raises(Refused):
        status.watching(AdminClient(there.url), as_json=False, pause=looks(2))


def test_ctrl_c_ends_the_watching_well(run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.time, "sleep", looks(2))
    result = run("status", "--watch")
    assert result.exit_code == Code.DONE
    assert result.stdout.count("12,345") == 2


# How a gateway is found, and who one says one is.


def settings(folder: Path, there: StandIn, data_dir: str = "data") -> str:
    path = folder / "waitroom.toml"
    room = '[[rooms]]\nname = "sale"\nupstream = "http://127.0.0.1:3000"\n'
    path.write_text(f'admin_listen = "{there.url.removeprefix("http://")}"\ndata_dir = "{data_dir}"\n{room}')
    return str(path)


def test_the_settings_lead_there_and_to_the_token_of_this_machine(run: Run, there: StandIn, tmp_path: Path) -> None:
    there.token = "of-this-start"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / gateway.LOCAL_TOKEN_FILE).write_text("of-this-start\n")
    assert run("status", "--config", settings(tmp_path, there)).exit_code == Code.DONE


def test_the_environment_leads_there(run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAITROOM_ADMIN_LISTEN", there.url.removeprefix("http://"))
    monkeypatch.setenv("WAITROOM_DATA_DIR", str(tmp_path))
    (tmp_path / gateway.LOCAL_TOKEN_FILE).write_text("local")
    there.token = "local"
    run.url = ""
    result = run("status", "--admin", "")
    assert result.exit_code == Code.DONE, result.stderr


def test_whose_token_goes_before_whose(
    run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "waitroom-data").mkdir()
    (tmp_path / "waitroom-data" / gateway.LOCAL_TOKEN_FILE).write_text("local")
    (tmp_path / "mine").write_text("from-the-file\n")
    run("status")
    monkeypatch.setenv("WAITROOM_TOKEN", "from-the-environment")
    run("status")
    run("status", "--token-file", "mine")
    sent = [one.headers["Authorization"].removeprefix("Bearer ") for one in there.asked]
    assert sent == ["local", "from-the-environment", "from-the-file"]


def test_the_token_of_this_machine_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / gateway.LOCAL_TOKEN_FILE
    path.write_text("local")
    assert gateway._token_giver(None, path, True)() == "local"
    assert gateway._token_giver(None, path, False)() is None


def test_a_token_of_somebody_else_s_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / gateway.LOCAL_TOKEN_FILE
    path.mkdir()
    assert gateway._token_giver(None, path, True)() is None


def test_a_token_file_that_is_none(run: Run, there: StandIn, tmp_path: Path) -> None:
    (tmp_path / "two").write_text("hush hush\n")
    for name, said in (("missing", "can't be read"), ("two", "spaces")):
        result = run("status", "--token-file", name)
        assert result.exit_code == Code.BAD_USE
        assert said in result.stderr
        assert "hush" not in result.output
    assert not there.asked


def test_who_is_not_known_is_told_how_to_be(run: Run, there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    there.token = "right"
    result = run("status")
    assert result.exit_code == Code.NOT_ALLOWED
    assert "--token-file or WAITROOM_TOKEN" in result.stderr
    monkeypatch.setenv("WAITROOM_TOKEN", "wrong-and-secret")
    result = run("status")
    assert result.exit_code == Code.NOT_ALLOWED
    assert "doesn't know your token" in result.stderr
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
    400: Code.BAD_USE,
    401: Code.NOT_ALLOWED,
    403: Code.NOT_ALLOWED,
    404: Code.BAD_USE,
    409: Code.NOT_DONE,
    412: Code.CHANGED_MEANWHILE,
    422: Code.BAD_USE,
    428: Code.NOT_DONE,
    429: Code.NOT_ALLOWED,
    500: Code.NOT_DONE,
    503: Code.NO_ANSWER,
}


@pytest.mark.parametrize("command", EVERY, ids=NAMES)
def test_every_refusal_is_told_and_ends_with_its_code(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    for number, code in CODES.items():
        there.instead = lambda _, number=number: there.problem(number, f"Because of {number}.", errors={"field": "bad"})
        result = run(*command)
        assert (result.exit_code, result.stdout) == (code, ""), number
        assert f"Because of {number}." in result.stderr
        assert "field: bad" in result.stderr


@pytest.mark.parametrize("command", EVERY, ids=NAMES)
def test_every_command_says_that_nobody_answers(run: Run, command: tuple[str, ...], unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    result = run(*command, "--admin", url)
    assert (result.exit_code, result.stdout) == (Code.NO_ANSWER, "")
    assert f"No gateway answers: {url}: Connection refused" in result.stderr
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>") as url:
        result = run(*command, "--admin", url)
    assert (result.exit_code, result.stdout) == (Code.NO_ANSWER, "")
    assert "no Waitroom gateway" in result.stderr


@pytest.mark.parametrize("command", EVERY, ids=NAMES)
def test_every_command_waits_no_longer_than_it_should(
    run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "SECONDS", 0.05)
    with raw_server(b"", hang=True) as url:
        result = run(*command, "--admin", url)
    assert (result.exit_code, result.stdout) == (Code.NO_ANSWER, "")
    assert "nothing came within 0.05 s" in result.stderr


def test_a_password_in_the_address_is_not_repeated(run: Run) -> None:
    result = run("status", "--admin", "http://ann:hush@127.0.0.1:1/x?token=hush")
    assert result.exit_code == Code.BAD_USE
    assert "hush" not in result.output
