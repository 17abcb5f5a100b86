"""The commands that need no running gateway."""

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


def test_valid_settings(run, file):
    result = run("check-config", file(GOOD))
    assert result.exit_code == 0
    assert "is valid: 1 room (sale)" in result.output


def test_all_errors_are_reported_together(run, file):
    result = run("check-config", file(GOOD + 'rate_per_minute = "fast"\nmax_actve = 3\n'))
    assert result.exit_code == 2
    assert "line 4" in result.output
    assert "line 5" in result.output
    assert "max_active" in result.output


def test_unwise_settings_are_valid_with_a_warning(run, file, tmp_path):
    text = f'secrets = ["{"a" * 16}"]\ndata_dir = "{tmp_path}"\nadmin_listen = "0.0.0.0:8081"\n' + GOOD
    result = run("check-config", file(text))
    assert result.exit_code == 0
    assert "(weak-secret)" in result.output
    assert "(admin-without-users)" in result.output
    assert "is valid" in result.output
    assert "a" * 16 not in result.output


def test_a_broken_custom_template_is_reported(run, file):
    file("<p>{{ nonsense }}</p>", "own.html")
    result = run("check-config", file(GOOD + 'template = "own.html"\n'))
    assert result.exit_code == 2
    assert "own.html, line 1" in result.output
    assert "nonsense" in result.output


def test_a_gateway_with_invalid_settings_does_not_start(run):
    result = run("run", "--upstream", "ftp://shop", "--rate-per-minute", "0")
    assert result.exit_code == 2
    assert "--upstream" in result.output
    assert "--rate-per-minute" in result.output


def test_a_password_on_the_command_line_is_refused_and_not_shown(run):
    result = run("run", "--upstream", "http://127.0.0.1:3000", "--redis", "redis://:hunter2@10.0.0.5:99999")
    assert result.exit_code == 2
    assert "WAITROOM_REDIS_URL" in result.output
    assert "hunter2" not in result.output


def test_generated_secrets_are_valid_and_unique(run, file):
    first, second = run("secret").output.strip(), run("secret").output.strip()
    assert first != second
    assert run("check-config", file(f'secrets = ["{first}", "{second}"]\n{GOOD}')).exit_code == 0


def test_an_unavailable_gateway_is_reported(run, unused_tcp_port):
    result = run("status", "--admin", f"http://127.0.0.1:{unused_tcp_port}")
    assert result.exit_code == 3
    assert "Gateway unavailable" in result.output


def test_an_invalid_url_is_refused(run):
    assert run("status", "--admin", "file:///etc/passwd").exit_code == 2


def test_the_version(run):
    built = "in pure Python" if inspect.getsourcefile(gate) == gate.__file__ else "compiled"
    assert run("--version").output == f"waitroom {__version__} (request path {built})\n"
