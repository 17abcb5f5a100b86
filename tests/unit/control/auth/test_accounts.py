"""Who is known: roles, the file of people, and that it is read again when it has changed."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from waitroom.control.auth.accounts import (
    FILE,
    LOCAL_TOKEN_FILE,
    ApiToken,
    People,
    PeopleError,
    PeopleFile,
    Register,
    Role,
    User,
    new_local_token,
    token_digest,
)
from waitroom.settings import UserSettings

HASH = "$argon2id$v=19$m=65536,t=3,p=4$p07iChp4nsDuWfEWKAxsQQ$GWcPT97M5juN9zNMv9qK2/4i9RHCMC/LnL5JOst+6/c"
OTHER_HASH = HASH.replace("GWcP", "AAAA")
ANNA = User("anna", Role.OPERATOR, HASH)


@pytest.fixture
def file(tmp_path: Path) -> PeopleFile:
    return PeopleFile(tmp_path / "data")


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("least", list(Role))
def test_each_role_may_what_the_one_before_may(role: Role, least: Role) -> None:
    order = ["viewer", "operator", "admin"]
    assert role.may(least) == (order.index(role) >= order.index(least))


@pytest.mark.parametrize(
    "changed",
    [
        User("anne", Role.OPERATOR, HASH),
        User("anna", Role.ADMIN, HASH),
        User("anna", Role.OPERATOR, OTHER_HASH),
        User("anna", Role.OPERATOR, HASH, "JBSWY3DPEHPK3PXPJBSWY3DPEH"),
    ],
)
def test_the_stamp_changes_with_all_that_must_end_sessions(changed: User) -> None:
    assert changed.stamp != ANNA.stamp
    assert User("anna", Role.OPERATOR, HASH, in_settings=True).stamp == ANNA.stamp


def test_nobody_is_known_where_there_is_no_file(file: PeopleFile) -> None:
    assert file.read() == People()


def test_what_is_put_in_is_read_back_and_only_the_owner_may_read_it(file: PeopleFile) -> None:
    with_code = User("bob", Role.VIEWER, OTHER_HASH, "JBSWY3DPEHPK3PXPJBSWY3DPEH")
    file.add_user(ANNA)
    file.add_user(with_code)
    token = file.add_token("ci", Role.VIEWER)
    people = file.read()
    assert people.users == {"anna": ANNA, "bob": with_code}
    assert people.tokens["ci"].role is Role.VIEWER
    for path in file.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert token not in file.path.read_text()
    assert {path.name for path in file.path.parent.iterdir()} == {FILE, "people.lock"}, "nothing is left beside it"


def test_nothing_secret_shows_where_people_are_printed(file: PeopleFile) -> None:
    file.add_user(User("anna", Role.ADMIN, HASH, "JBSWY3DPEHPK3PXPJBSWY3DPEH"))
    file.add_token("ci", Role.VIEWER)
    shown = repr(file.read())
    assert "argon2" not in shown
    assert "JBSWY" not in shown
    assert file.read().tokens["ci"].sha256 not in shown


def test_a_name_is_added_once(file: PeopleFile) -> None:
    file.add_user(ANNA)
    with pytest.raises(PeopleError, match="already"):
        file.add_user(User("anna", Role.ADMIN, OTHER_HASH))
    file.add_token("ci", Role.VIEWER)
    with pytest.raises(PeopleError, match="already"):
        file.add_token("ci", Role.ADMIN)
    assert file.read().users["anna"] == ANNA


@pytest.mark.parametrize("name", ["", "CI", "a b", "-a", "a" * 65, "ci\n", "token:ci"])
def test_a_tokens_name_is_checked(file: PeopleFile, name: str) -> None:
    with pytest.raises(PeopleError, match="not a valid token name"):
        file.add_token(name, Role.VIEWER)


def test_who_isnt_there_can_be_neither_changed_nor_removed(file: PeopleFile) -> None:
    file.add_user(ANNA)
    for change in (
        lambda: file.remove_user("bob"),
        lambda: file.change_user("bob", lambda user: user),
        lambda: file.remove_token("bob"),
    ):
        with pytest.raises(PeopleError, match=r'Unknown (user|token) "bob"'):
            change()
    file.remove_user("anna")
    assert file.read() == People()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"users": {"anna": {"role": "god", "password_hash": "secret-words"}}}',
        '{"users": {"anna": {"role": "admin"}}}',
        '{"users": {"anna": {"role": "admin", "password_hash": "x", "is": "secret-words"}}}',
        '{"tokens": {"ci": {"role": "admin", "sha256": 5, "created_at": 1}}}',
        '{"secret-words": 1}',
    ],
)
def test_a_damaged_file_is_said_to_be_one_and_never_stands_for_nobody(file: PeopleFile, text: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(text)
    with pytest.raises(PeopleError, match="corrupt") as caught:
        file.read()
    assert "secret-words" not in str(caught.value)
    assert caught.value.__context__ is None, "what was in the file would be in the log"
    with pytest.raises(PeopleError):
        file.add_user(ANNA)
    assert file.path.read_text() == text


def test_a_file_that_cant_be_read_never_stands_for_nobody(file: PeopleFile) -> None:
    file.add_user(ANNA)
    file.path.unlink()
    file.path.mkdir()
    with pytest.raises(PeopleError, match="can't be read"):
        file.read()


def test_a_folder_in_its_place_never_stands_for_nobody(file: PeopleFile) -> None:
    file.path.mkdir(parents=True)
    with pytest.raises(PeopleError, match="can't be read"):
        file.read()
    with pytest.raises(PeopleError, match="can't be read"):
        Register(file.path.parent, ()).now()


def test_of_many_changes_at_once_none_is_lost(file: PeopleFile) -> None:
    threads = [threading.Thread(target=file.add_token, args=(f"t{n}", Role.VIEWER)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.read().tokens) == 12


def test_a_change_that_fails_leaves_the_file_as_it_was(file: PeopleFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.add_user(ANNA)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PeopleError, match="No space left"):
        file.remove_user("anna")
    assert file.read().users == {"anna": ANNA}
    assert {path.name for path in file.path.parent.iterdir()} == {FILE, "people.lock"}


def test_the_register_reads_the_file_again_when_it_has_changed_and_only_then(
    file: PeopleFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = Register(file.path.parent, ())
    assert register.now() == People()
    file.add_user(ANNA)
    assert register.now().users == {"anna": ANNA}
    with monkeypatch.context() as patched:
        patched.setattr(PeopleFile, "read", lambda _: pytest.fail("read for nothing"))
        assert register.now().users == {"anna": ANNA}
    file.change_user("anna", lambda user: User(user.name, Role.VIEWER, user.password_hash))
    assert register.now().users["anna"].role is Role.VIEWER
    file.path.write_text("{")
    with pytest.raises(PeopleError):
        register.now()
    file.path.unlink()
    assert register.now() == People()


def test_a_name_in_the_settings_goes_before_the_one_in_the_file(file: PeopleFile) -> None:
    file.add_user(ANNA)
    file.add_user(User("bob", Role.VIEWER, HASH))
    register = Register(file.path.parent, [UserSettings("anna", "viewer", OTHER_HASH)])
    users = register.now().users
    assert users["anna"] == User("anna", Role.VIEWER, OTHER_HASH, in_settings=True)
    assert users["bob"].role is Role.VIEWER


def test_a_token_is_known_by_nothing_but_itself(file: PeopleFile) -> None:
    token = file.add_token("ci", Role.OPERATOR)
    file.add_token("other", Role.VIEWER)
    people = file.read()
    found = people.bearer(token)
    assert found is not None
    assert (found.name, found.role) == ("ci", Role.OPERATOR)
    wrong = ["", token[:-1], token + "A", token.lower(), token.removeprefix("wrt_"), found.sha256, "ci"]
    assert [people.bearer(one) for one in wrong] == [None] * len(wrong)
    file.remove_token("ci")
    assert file.read().bearer(token) is None


def test_tokens_of_one_name_differ_each_time(file: PeopleFile) -> None:
    first = file.add_token("ci", Role.VIEWER)
    file.remove_token("ci")
    assert file.add_token("ci", Role.VIEWER) != first


def test_the_local_token_is_new_each_time_and_its_owners_alone(tmp_path: Path) -> None:
    first, second = new_local_token(tmp_path), new_local_token(tmp_path)
    path = tmp_path / LOCAL_TOKEN_FILE
    assert first != second == path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_digest_of_a_token_is_compared() -> None:
    people = People(tokens={"ci": ApiToken("ci", Role.ADMIN, token_digest("wrt_x"))})
    assert people.bearer("wrt_x") is not None
    assert json.dumps(people.tokens["ci"].sha256).count("wrt_x") == 0
