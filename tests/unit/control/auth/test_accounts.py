"""Accounts: roles, the file, and its reload."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from waitroom.control.auth.accounts import (
    ACCOUNTS_FILE,
    LOCAL_TOKEN_FILE,
    AccountRegistry,
    Accounts,
    AccountsError,
    AccountsFile,
    ApiToken,
    Role,
    User,
    new_local_token,
    token_digest,
    write_local_token,
)
from waitroom.settings import UserSettings

HASH = "$argon2id$v=19$m=65536,t=3,p=4$p07iChp4nsDuWfEWKAxsQQ$GWcPT97M5juN9zNMv9qK2/4i9RHCMC/LnL5JOst+6/c"
OTHER_HASH = HASH.replace("GWcP", "AAAA")
ANNA = User("anna", Role.OPERATOR, HASH)


@pytest.fixture
def file(tmp_path: Path) -> AccountsFile:
    return AccountsFile(tmp_path / "data")


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("least", list(Role))
def test_each_role_includes_the_ones_before(role: Role, least: Role) -> None:
    order = ["viewer", "operator", "admin"]
    if role in order and least in order:
        assert role.includes(least) == (order.index(role) >= order.index(least))
    else:
        assert role.includes(least) == (role is least), "a shop's permissions are its own"


@pytest.mark.parametrize(
    "changed",
    [
        User("anne", Role.OPERATOR, HASH),
        User("anna", Role.ADMIN, HASH),
        User("anna", Role.OPERATOR, OTHER_HASH),
        User("anna", Role.OPERATOR, HASH, "JBSWY3DPEHPK3PXPJBSWY3DPEH"),
    ],
)
def test_the_session_version_changes_with_whatever_ends_sessions(changed: User) -> None:
    assert changed.session_version != ANNA.session_version
    assert User("anna", Role.OPERATOR, HASH, in_settings=True).session_version == ANNA.session_version


def test_a_missing_file_has_no_accounts(file: AccountsFile) -> None:
    assert file.read() == Accounts()


def test_accounts_are_stored_readable_only_by_the_owner(file: AccountsFile) -> None:
    with_code = User("bob", Role.VIEWER, OTHER_HASH, "JBSWY3DPEHPK3PXPJBSWY3DPEH")
    file.add_user(ANNA)
    file.add_user(with_code)
    token = file.add_token("ci", Role.VIEWER)
    accounts = file.read()
    assert accounts.users == {"anna": ANNA, "bob": with_code}
    assert accounts.tokens["ci"].role is Role.VIEWER
    for path in file.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert token not in file.path.read_text()
    left = {path.name for path in file.path.parent.iterdir()}
    assert left == {ACCOUNTS_FILE, "people.lock"}, "nothing is left beside it"


def test_repr_contains_no_secrets(file: AccountsFile) -> None:
    file.add_user(User("anna", Role.ADMIN, HASH, "JBSWY3DPEHPK3PXPJBSWY3DPEH"))
    file.add_token("ci", Role.VIEWER)
    shown = repr(file.read())
    assert "argon2" not in shown
    assert "JBSWY" not in shown
    assert file.read().tokens["ci"].sha256 not in shown


def test_names_are_unique(file: AccountsFile) -> None:
    file.add_user(ANNA)
    with pytest.raises(AccountsError, match="already"):
        file.add_user(User("anna", Role.ADMIN, OTHER_HASH))
    file.add_token("ci", Role.VIEWER)
    with pytest.raises(AccountsError, match="already"):
        file.add_token("ci", Role.ADMIN)
    assert file.read().users["anna"] == ANNA


@pytest.mark.parametrize("name", ["", "CI", "a b", "-a", "a" * 65, "ci\n", "token:ci"])
def test_invalid_token_names_are_refused(file: AccountsFile, name: str) -> None:
    with pytest.raises(AccountsError, match="not a valid token name"):
        file.add_token(name, Role.VIEWER)


def test_a_shop_s_token_is_limited_to_rooms(file: AccountsFile) -> None:
    file.add_token("till", Role.SHOP, ["vip", "sale", "vip"])
    assert file.read().tokens["till"].rooms == ("sale", "vip")
    with pytest.raises(AccountsError, match="--room"):
        file.add_token("other", Role.SHOP)
    for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
        with pytest.raises(AccountsError, match="all rooms"):
            file.add_token("other", role, ["sale"])
    assert list(file.read().tokens) == ["till"]


def test_tokens_of_the_previous_version_are_valid_and_it_can_read_the_file(file: AccountsFile) -> None:
    stored = {"role": "operator", "sha256": token_digest("wrt_old"), "created_at": 1}
    file.path.parent.mkdir()
    file.path.write_text(json.dumps({"users": {}, "tokens": {"ci": stored}}))
    found = file.read().find_token("wrt_old")
    assert found == ApiToken("ci", Role.OPERATOR, stored["sha256"], 1, ())
    file.add_token("look", Role.VIEWER)
    written = json.loads(file.path.read_text())["tokens"]
    assert written["ci"] == stored
    assert written["look"].keys() == stored.keys(), "the previous version refuses a file with unknown fields"


def test_unknown_accounts_can_be_neither_changed_nor_removed(file: AccountsFile) -> None:
    file.add_user(ANNA)
    for change in (
        lambda: file.remove_user("bob"),
        lambda: file.change_user("bob", lambda user: user),
        lambda: file.remove_token("bob"),
    ):
        with pytest.raises(AccountsError, match=r'Unknown (user|token) "bob"'):
            change()
    file.remove_user("anna")
    assert file.read() == Accounts()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"users": {"anna": {"role": "god", "password_hash": "secret-words"}}}',
        '{"users": {"anna": {"role": "shop", "password_hash": "secret-words"}}}',
        '{"users": {"anna": {"role": "admin"}}}',
        '{"users": {"anna": {"role": "admin", "password_hash": "x", "is": "secret-words"}}}',
        '{"tokens": {"ci": {"role": "admin", "sha256": 5, "created_at": 1}}}',
        '{"secret-words": 1}',
    ],
)
def test_a_corrupt_file_is_an_error(file: AccountsFile, text: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(text)
    with pytest.raises(AccountsError, match="corrupt") as caught:
        file.read()
    assert "secret-words" not in str(caught.value)
    assert caught.value.__context__ is None, "what was in the file would be in the log"
    with pytest.raises(AccountsError):
        file.add_user(ANNA)
    assert file.path.read_text() == text


def test_an_unreadable_file_is_an_error(file: AccountsFile) -> None:
    file.add_user(ANNA)
    file.path.unlink()
    file.path.mkdir()
    with pytest.raises(AccountsError, match="can't be read"):
        file.read()


def test_a_folder_in_place_of_the_file_is_an_error(file: AccountsFile) -> None:
    file.path.mkdir(parents=True)
    with pytest.raises(AccountsError, match="can't be read"):
        file.read()
    with pytest.raises(AccountsError, match="can't be read"):
        AccountRegistry(file.path.parent, ()).current()


def test_concurrent_changes_are_all_kept(file: AccountsFile) -> None:
    threads = [threading.Thread(target=file.add_token, args=(f"t{n}", Role.VIEWER)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.read().tokens) == 12


def test_a_failed_change_leaves_the_file_untouched(file: AccountsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.add_user(ANNA)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(AccountsError, match="No space left"):
        file.remove_user("anna")
    assert file.read().users == {"anna": ANNA}
    assert {path.name for path in file.path.parent.iterdir()} == {ACCOUNTS_FILE, "people.lock"}


def test_the_registry_reloads_the_file_only_when_it_has_changed(
    file: AccountsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = AccountRegistry(file.path.parent, ())
    assert registry.current() == Accounts()
    file.add_user(ANNA)
    assert registry.current().users == {"anna": ANNA}
    with monkeypatch.context() as patched:
        patched.setattr(AccountsFile, "read", lambda _: pytest.fail("read for nothing"))
        assert registry.current().users == {"anna": ANNA}
    file.change_user("anna", lambda user: User(user.name, Role.VIEWER, user.password_hash))
    assert registry.current().users["anna"].role is Role.VIEWER
    file.path.write_text("{")
    with pytest.raises(AccountsError):
        registry.current()
    file.path.unlink()
    assert registry.current() == Accounts()


def test_the_settings_take_precedence_over_the_file(file: AccountsFile) -> None:
    file.add_user(ANNA)
    file.add_user(User("bob", Role.VIEWER, HASH))
    registry = AccountRegistry(file.path.parent, [UserSettings("anna", "viewer", OTHER_HASH)])
    users = registry.current().users
    assert users["anna"] == User("anna", Role.VIEWER, OTHER_HASH, in_settings=True)
    assert users["bob"].role is Role.VIEWER


def test_only_the_exact_token_matches(file: AccountsFile) -> None:
    token = file.add_token("ci", Role.OPERATOR)
    file.add_token("other", Role.VIEWER)
    accounts = file.read()
    found = accounts.find_token(token)
    assert found is not None
    assert (found.name, found.role) == ("ci", Role.OPERATOR)
    wrong = ["", token[:-1], token + "A", token.lower(), token.removeprefix("wrt_"), found.sha256, "ci"]
    assert [accounts.find_token(one) for one in wrong] == [None] * len(wrong)
    file.remove_token("ci")
    assert file.read().find_token(token) is None


def test_a_token_created_again_differs(file: AccountsFile) -> None:
    first = file.add_token("ci", Role.VIEWER)
    file.remove_token("ci")
    assert file.add_token("ci", Role.VIEWER) != first


def test_the_local_token_is_new_each_time_and_private(tmp_path: Path) -> None:
    first, second = new_local_token(), new_local_token()
    for token in (first, second):
        write_local_token(tmp_path, token)
    path = tmp_path / LOCAL_TOKEN_FILE
    assert first != second == path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_digest_of_a_token_is_compared() -> None:
    accounts = Accounts(tokens={"ci": ApiToken("ci", Role.ADMIN, token_digest("wrt_x"))})
    assert accounts.find_token("wrt_x") is not None
    assert json.dumps(accounts.tokens["ci"].sha256).count("wrt_x") == 0
