"""The command, as far as it needs no gateway."""

import inspect

import pytest

from support.cli_runner import invoke
from waitroom import __version__, gate

GOOD = '[[rooms]]\nname = "sale"\nupstream = "http://127.0.0.1:3000"\n'


@pytest.fixture
def run(monkeypatch):
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.setenv(name, {"COLUMNS": "200", "NO_COLOR": "1"}[name])
    return invoke


@pytest.fixture
def file(tmp_path):
    def write(text, name="waitroom.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_good_settings_are_called_good(run, file):
    result = run("check-config", file(GOOD))
    assert result.exit_code == 0
    assert "is good: 1 room (sale)" in result.output


def test_all_that_is_wrong_is_said_at_once(run, file):
    result = run("check-config", file(GOOD + 'rate_per_minute = "fast"\nmax_actve = 3\n'))
    assert result.exit_code == 2
    assert "line 4" in result.output
    assert "line 5" in result.output
    assert "max_active" in result.output


def test_an_operators_broken_template_is_told_before_anyone_sees_it(run, file):
    file("<p>{{ nonsense }}</p>", "own.html")
    result = run("check-config", file(GOOD + 'template = "own.html"\n'))
    assert result.exit_code == 2
    assert "own.html, line 1" in result.output
    assert "nonsense" in result.output


def test_a_gateway_with_wrong_settings_does_not_start(run):
    result = run("run", "--upstream", "ftp://shop", "--rate-per-minute", "0")
    assert result.exit_code == 2
    assert "--upstream" in result.output
    assert "--rate-per-minute" in result.output


def test_a_secret_is_good_enough_for_the_settings_and_never_the_same(run, file):
    first, second = run("secret").output.strip(), run("secret").output.strip()
    assert first != second
    assert run("check-config", file(f'secrets = ["{first}", "{second}"]\n{GOOD}')).exit_code == 0


def test_no_gateway_there_is_said_so(run, unused_tcp_port):
    result = run("status", "--admin", f"http://127.0.0.1:{unused_tcp_port}")
    assert result.exit_code == 3
    assert "No gateway answers" in result.output


def test_an_address_of_another_kind_is_refused(run):
    assert run("status", "--admin", "file:///etc/passwd").exit_code == 2


def test_the_version(run):
    built = "in plain Python" if inspect.getsourcefile(gate) == gate.__file__ else "compiled"
    assert run("--version").output == f"waitroom {__version__}, the path of a request {built}\n"
