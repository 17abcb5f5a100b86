"""``waitroom user`` and ``waitroom token``."""

from __future__ import annotations

import pyotp
import pytest
from argon2 import PasswordHasher

from support.cli_runner import invoke
from waitroom.control.auth.accounts import AccountsFile, Role
from waitroom.settings.validators import password_hash

WORDS = "correct horse battery"
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = QUICK.hash(WORDS)
SETTINGS = f"""\
[[rooms]]
name = "sale"
upstream = "http://127.0.0.1:3000"
[[users]]
name = "ada"
role = "admin"
password_hash = "{HASH}"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("waitroom.control.auth.passwords.PasswordHasher", lambda: QUICK)
    monkeypatch.setenv("WAITROOM_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def run(folder):
    return invoke


@pytest.fixture
def file(folder):
    return AccountsFile(folder)


def add(run, name="anna", role="operator"):
    result = run("user", "add", name, "--role", role, stdin=f"{WORDS}\nmore\n")
    assert result.exit_code == 0, result.output


def test_a_user_is_added_with_a_password_from_standard_input(run, file):
    result = run("user", "add", "anna", "--role", "operator", stdin=f"{WORDS}\nmore\n")
    assert result.exit_code == 0
    assert str(file.path) in result.output
    user = file.read().users["anna"]
    assert user.role is Role.OPERATOR
    assert PasswordHasher().verify(user.password_hash, WORDS)
    assert WORDS not in result.output + file.path.read_text()


def test_a_terminal_prompts_twice_for_the_hidden_password(run, file, monkeypatch):
    asked = []

    def prompt(text, **options):
        asked.append((text, options))
        return WORDS

    monkeypatch.setattr("waitroom.cli.accounts._on_a_terminal", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    add(run)
    assert asked == [("Password", {"hide_input": True, "confirmation_prompt": True})]


@pytest.mark.parametrize("name", ["Anna", "a b", "-anna", "local", "token:x", "a" * 65, "autopilot"])
def test_ambiguous_names_are_refused(run, file, name):
    result = run("user", "add", "--role", "viewer", "--", name, stdin=f"{WORDS}\n")
    assert result.exit_code == 2
    assert "Error: " in result.output
    assert not file.path.exists()


@pytest.mark.parametrize("stdin", ["", "short\n", "x" * 300 + "\n", "\x00" * 20 + "\n"])
def test_unacceptable_passwords_are_refused(run, file, stdin):
    for arguments in (("user", "add", "anna", "--role", "viewer"), ("user", "hash")):
        result = run(*arguments, stdin=stdin)
        assert result.exit_code == 2
        assert "The password" in result.output
    assert not file.path.exists()


def test_a_password_is_not_an_argument(run, file):
    assert run("user", "add", "anna", WORDS, "--role", "viewer").exit_code == 2
    assert run("user", "add", "anna", "--password", WORDS, "--role", "viewer").exit_code == 2
    assert not file.path.exists()


def test_an_unknown_role_is_refused(run, file):
    assert run("user", "add", "anna", "--role", "god", stdin=f"{WORDS}\n").exit_code == 2
    assert run("user", "add", "anna", stdin=f"{WORDS}\n").exit_code == 2
    assert not file.path.exists()


def test_a_user_is_changed_and_removed(run, file):
    add(run)
    before = file.read().users["anna"]
    assert run("user", "role", "anna", "admin").exit_code == 0
    promoted = file.read().users["anna"]
    assert (promoted.role, promoted.password_hash) == (Role.ADMIN, before.password_hash)
    assert run("user", "password", "anna", stdin="another good password\n").exit_code == 0
    changed = file.read().users["anna"]
    assert PasswordHasher().verify(changed.password_hash, "another good password")
    versions = {user.session_version for user in (before, promoted, changed)}
    assert len(versions) == 3, "each ends the sessions"
    assert run("user", "remove", "anna").exit_code == 0
    assert file.read().users == {}


@pytest.mark.parametrize("command", [("remove",), ("password",), ("role", "admin"), ("totp",), ("totp", "--off")])
def test_an_unknown_user_is_reported(run, file, command):
    add(run)
    result = run("user", command[0], "bob", *command[1:], stdin=f"{WORDS}\n")
    assert result.exit_code == 2
    assert 'Unknown user "bob"' in result.output
    assert list(file.read().users) == ["anna"]


def test_a_duplicate_name_is_refused(run, file):
    add(run)
    before = file.read()
    result = run("user", "add", "anna", "--role", "admin", stdin=f"{WORDS}\n")
    assert result.exit_code == 2
    assert "already" in result.output
    assert file.read() == before


def test_totp_is_enabled_once_the_app_shows_a_valid_code(run, file, monkeypatch):
    add(run)
    monkeypatch.setattr("waitroom.cli.accounts.new_totp_secret", lambda: SECRET)
    monkeypatch.setattr("time.time", lambda: 1_790_000_010.0)
    code = pyotp.TOTP(SECRET).at(1_790_000_010)
    result = run("user", "totp", "anna", stdin="000000\n" * 3)
    assert result.exit_code == 2
    assert "Nothing was changed" in result.output
    assert file.read().users["anna"].totp_secret is None
    result = run("user", "totp", "anna", stdin=f"000000\n{code}\n")
    assert result.exit_code == 0
    assert f"otpauth://totp/Waitroom:anna?secret={SECRET}&issuer=Waitroom" in result.output
    assert file.read().users["anna"].totp_secret == SECRET
    assert "yes" in run("user", "list").output
    assert SECRET not in run("user", "list").output
    assert run("user", "totp", "anna", "--off").exit_code == 0
    assert file.read().users["anna"].totp_secret is None


def test_users_of_the_settings_are_listed_and_not_changed(run, file, tmp_path):
    config = tmp_path / "waitroom.toml"
    config.write_text(SETTINGS)
    add(run)
    shown = run("user", "list", "--config", config)
    assert [line.split() for line in shown.output.splitlines()[1:]] == [
        ["ada", "admin", "no", "settings"],
        ["anna", "operator", "no", "people.json"],
    ]
    assert "argon2" not in shown.output
    for command in (("add", "ada", "--role", "viewer"), ("remove", "ada"), ("role", "ada", "viewer")):
        result = run("user", *command, "--config", config, stdin=f"{WORDS}\n")
        assert result.exit_code == 2
        assert "settings file" in result.output
    assert list(file.read().users) == ["anna"]


def test_the_data_dir_option_takes_precedence_over_the_settings(run, file, tmp_path):
    config = tmp_path / "waitroom.toml"
    config.write_text(SETTINGS)
    other = tmp_path / "other"
    arguments = ("user", "add", "anna", "--role", "viewer", "--data-dir", other)
    assert run(*arguments, stdin=f"{WORDS}\n").exit_code == 0
    assert run(*arguments, "--config", config, stdin=f"{WORDS}\n").exit_code == 2, "the user exists already"
    assert list(AccountsFile(other).read().users) == ["anna"]
    assert not file.path.exists()


def test_empty_lists_are_reported(run):
    assert "No user" in run("user", "list").output
    assert "No token" in run("token", "list").output


def test_invalid_settings_and_damaged_files_are_reported(run, file, tmp_path):
    config = tmp_path / "waitroom.toml"
    config.write_text(SETTINGS.replace(HASH, "a secret"))
    result = run("user", "list", "--config", config)
    assert result.exit_code == 2
    assert "line 7" in result.output
    assert "a secret" not in result.output
    file.path.parent.mkdir()
    file.path.write_text("{")
    for command in (("user", "list"), ("token", "list"), ("token", "add", "ci", "--role", "viewer")):
        result = run(*command)
        assert result.exit_code == 2
        assert "corrupt" in result.output


def test_a_printed_hash_is_valid_in_the_settings(run):
    printed = run("user", "hash", stdin=f"{WORDS}\n").output.strip()
    assert password_hash(printed) == printed
    assert PasswordHasher().verify(printed, WORDS)


def test_a_token_is_shown_once_and_stored_as_a_digest(run, file):
    result = run("token", "add", "ci", "--role", "operator")
    assert result.exit_code == 0
    token = result.stdout.strip()
    assert result.stdout == f"{token}\n", "it can be piped"
    found = file.read().find_token(token)
    assert found is not None
    assert (found.name, found.role) == ("ci", Role.OPERATOR)
    listed = run("token", "list").output
    assert "ci" in listed
    assert token not in listed + file.path.read_text()
    assert found.sha256 not in listed
    assert run("token", "add", "ci", "--role", "viewer").exit_code == 2
    assert run("token", "remove", "ci").exit_code == 0
    assert run("token", "remove", "ci").exit_code == 2
    assert file.read().tokens == {}


def test_a_shop_s_token_names_its_rooms(run, file, tmp_path):
    config = tmp_path / "waitroom.toml"
    config.write_text(SETTINGS)
    add_shop = ("token", "add", "till", "--role", "shop")
    result = run(*add_shop, "--room", "sale", "--room", "vip", "--config", config)
    assert result.exit_code == 2
    assert 'Unknown room "vip". The settings file has: sale.' in result.output
    for arguments in ((), ("--room", "Sale"), ("--room", "")):
        assert run(*add_shop, *arguments).exit_code == 2
    assert run("token", "add", "ci", "--role", "viewer", "--room", "sale").exit_code == 2
    assert not file.path.exists()
    result = run(*add_shop, "--room", "sale", "--config", config)
    assert result.exit_code == 0
    assert "(shop for sale)" in result.stderr
    found = file.read().find_token(result.stdout.strip())
    assert (found.role, found.rooms) == (Role.SHOP, ("sale",))
    # Without the settings file nobody knows the rooms.
    assert run("token", "add", "other", "--role", "shop", "--room", "b", "--room", "a").exit_code == 0
    run("token", "add", "ci", "--role", "viewer")
    lines = [line.split()[:4] for line in run("token", "list").output.splitlines()]
    assert lines[0] == ["name", "role", "rooms", "created"]
    assert [line[:3] for line in lines[1:]] == [
        ["ci", "viewer", "all"],
        ["other", "shop", "a,"],
        ["till", "shop", "sale"],
    ]


def test_no_user_has_the_role_shop(run, file):
    assert run("user", "add", "anna", "--role", "shop", stdin=f"{WORDS}\n").exit_code == 2
    add(run)
    assert run("user", "role", "anna", "shop").exit_code == 2
    assert file.read().users["anna"].role is Role.OPERATOR
