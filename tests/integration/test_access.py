"""Who gets in on the admin listener and who doesn't, with a real store behind it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from support.admin_app import LOCAL_TOKEN, QUICK, SECRETS, TOTP, USERS, WORDS, Admin, Diary, Gone, settings_in
from waitroom.control.auth.accounts import AccountsFile, Role, User
from waitroom.control.auth.login_store import LoginStore
from waitroom.control.auth.session_cookie import COOKIE, AdminCookies, AdminSession

pytestmark = pytest.mark.slow

STRANGER = {"X-Forwarded-For": "203.0.113.9"}


# --- nobody, and somebody on this machine


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/login"])
async def test_some_pages_are_public(admin: Admin, path: str) -> None:
    assert (await admin.get(path, STRANGER)).status in {200, 503}
    assert (await admin.get(path, STRANGER)).type in {"text/plain", "text/html"}


@pytest.mark.parametrize("path", ["/api/v1/rooms", "/api/v1/me", "/api/v1/nothing-here"])
async def test_the_api_requires_authentication(admin: Admin, path: str) -> None:
    answer = await admin.get(path)
    assert (answer.status, answer.type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="waitroom"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert '"status": 401' in answer.text
    assert admin.diary.entries == [], "who hasn't tried has not been refused"


async def test_pages_redirect_to_the_login_and_back(admin: Admin) -> None:
    answer = await admin.get("/thing?x=1&y=%26")
    assert answer.status == 303
    assert answer.headers["Location"] == "/login?next=/thing%3Fx%3D1%26y%3D%2526"
    page = await admin.get(answer.headers["Location"])
    found = re.search(r'name="next" value="([^"]*)"', page.text)
    assert found is not None
    answer = await admin.log_in("vera", next=found[1].replace("&amp;", "&"))
    assert answer.headers["Location"] == "/thing?x=1&y=%26"
    assert (await admin.get(answer.headers["Location"], answer.cookie)).status == 200


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/login"])
async def test_the_login_redirects_to_no_other_site(admin: Admin, target: str) -> None:
    page = await admin.ask("GET", "/login", params={"next": target})
    assert 'name="next" value="/"' in page.text
    assert (await admin.log_in("vera", next=target)).headers["Location"] == "/"


async def test_the_page_escapes_what_was_typed(admin: Admin) -> None:
    page = await admin.log_in('"><script>x</script>', next='/"><script>x</script>')
    assert "<script" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["Cache-Control"] == "no-store"


async def test_without_users_local_clients_may_do_everything(lone: Admin) -> None:
    answer = await lone.get("/api/v1/thing")
    assert answer.status == 200
    assert '"name": "local", "role": "admin", "address": "127.0.0.1", "via": "api"' in answer.text
    assert (await lone.get("/api/v1/me", {"Sec-Fetch-Site": "none"})).text == (
        '{"name": "local", "role": "admin", "via": "dashboard"}'
    )
    assert (await lone.ask("POST", "/api/v1/thing", json={})).status == 200
    assert (await lone.get("/login")).headers["Location"] == "/"
    assert (await lone.log_in("ada")).headers["Location"] == "/"


@pytest.mark.parametrize("path", ["/", "/api/v1/rooms", "/login"])
async def test_without_users_remote_clients_are_refused_with_the_reason(lone: Admin, path: str) -> None:
    """A proxy on this machine speaks for others, whether or not it is believed."""
    answer = await lone.get(path, STRANGER)
    assert answer.status == 403
    assert "waitroom user add" in answer.text
    assert answer.type == ("application/problem+json" if path.startswith("/api/") else "text/html")
    assert lone.diary.last() == ("unknown", "request", "refused", "No remote access")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_foreign_page_does_nothing_through_a_local_browser(lone: Admin, headers: dict[str, str]) -> None:
    assert (await lone.ask("POST", "/api/v1/thing", headers, json={})).status == 403
    assert lone.diary.last() == ("local", "request", "refused", "Cross-site request")
    assert (await lone.ask("GET", "/api/v1/thing", headers)).status == 200


async def test_the_first_user_makes_login_required(lone: Admin, tmp_path: Path) -> None:
    assert (await lone.get("/api/v1/me")).status == 200
    AccountsFile(tmp_path).add_user(User("ada", Role.ADMIN, QUICK.hash(WORDS)))
    assert (await lone.get("/api/v1/me")).status == 401
    assert (await lone.get("/api/v1/me", await lone.cookie("ada"))).status == 200


async def test_a_damaged_file_admits_nobody_and_reveals_nothing(lone: Admin, tmp_path: Path) -> None:
    (tmp_path / "people.json").write_text("{")
    for path in ("/api/v1/me", "/", "/login"):
        answer = await lone.get(path)
        assert answer.status == 503
        assert str(tmp_path) not in answer.text
    assert (await lone.get("/healthz")).status == 200
    assert (await lone.get("/api/v1/me", {"Authorization": f"Bearer {LOCAL_TOKEN}"})).status == 200


# --- tokens


async def test_a_token_has_the_permissions_of_its_role(admin: Admin, tmp_path: Path) -> None:
    token = AccountsFile(tmp_path).add_token("ci", Role.OPERATOR)
    bearer = {"Authorization": f"Bearer {token}", **STRANGER}
    assert (await admin.get("/api/v1/me", bearer)).text == '{"name": "token:ci", "role": "operator", "via": "api"}'
    # No page can make a browser send it, so that it needs no origin.
    assert (await admin.ask("POST", "/api/v1/thing", bearer, json={})).status == 200
    looking = {"Authorization": f"Bearer {AccountsFile(tmp_path).add_token('look', Role.VIEWER)}", **STRANGER}
    assert (await admin.get("/api/v1/thing", looking)).status == 200
    assert (await admin.ask("POST", "/api/v1/thing", looking, json={})).status == 403
    assert admin.diary.last() == ("token:look", "request", "refused", "Insufficient role")
    assert admin.diary.entries[-1].address == "203.0.113.9"
    AccountsFile(tmp_path).remove_token("ci")
    assert (await admin.get("/api/v1/me", bearer)).status == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic YTpi",
        "bearer\t",
        "Bearer \xff",
        f"Token {LOCAL_TOKEN}",
        LOCAL_TOKEN,
    ],
)
async def test_an_invalid_token_is_refused_whatever_else_is_sent(admin: Admin, header: str) -> None:
    cookie = await admin.cookie("ada")
    answer = await admin.get("/api/v1/me", {"Authorization": header, **cookie})
    assert answer.status == 401
    assert admin.diary.last() == ("unknown", "request", "refused", "Invalid token")


async def test_the_local_token_is_valid_only_on_this_machine(admin: Admin, lone: Admin) -> None:
    bearer = {"Authorization": f"bearer {LOCAL_TOKEN}"}
    for one in (admin, lone):
        answer = await one.get("/api/v1/me", bearer)
        assert answer.text == '{"name": "local", "role": "admin", "via": "cli"}'
        assert (await one.get("/api/v1/me", {**bearer, **STRANGER})).status == 401


# --- being in


@pytest.mark.parametrize("name", ["vera", "otto", "ada"])
async def test_each_role_has_exactly_its_permissions(admin: Admin, name: str) -> None:
    cookie = await admin.cookie(name)
    for path in ("/api/v1/thing", "/thing"):
        assert (await admin.get(path, cookie)).status == 200
    changed, sent = (
        await admin.post("/api/v1/thing", cookie, json={}),
        await admin.post("/thing", cookie, data={"a": 1}),
    )
    if name != "vera":
        assert (changed.status, sent.status) == (200, 200)
        return
    assert (changed.status, changed.type) == (403, "application/problem+json")
    assert (sent.status, sent.type) == (403, "text/html")
    assert "This requires the role operator; yours is viewer." in changed.text
    assert admin.diary.last() == ("vera", "request", "refused", "Insufficient role")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    ],
)
async def test_a_cookie_changes_nothing_from_another_origin(admin: Admin, headers: dict[str, str]) -> None:
    cookie = await admin.cookie("ada")
    for path in ("/api/v1/thing", "/logout"):
        answer = await admin.ask("POST", path, {**headers, **cookie})
        assert answer.status == 403
        assert admin.diary.last() == ("ada", "request", "refused", "Cross-site request")
    assert (await admin.get("/api/v1/me", {**headers, **cookie})).status == 200, "looking is free, and not logged out"


async def test_a_same_origin_browser_may_change(admin: Admin) -> None:
    cookie = await admin.cookie("ada")
    headers = {"Sec-Fetch-Site": "same-origin", **cookie}
    assert (await admin.ask("POST", "/api/v1/thing", headers, json={})).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_the_api_accepts_only_json(admin: Admin, kind: str) -> None:
    cookie = await admin.cookie("ada")
    answer = await admin.post("/api/v1/thing", {**cookie, "Content-Type": kind}, data=b"{}")
    assert (answer.status, answer.type) == (415, "application/problem+json")
    assert (await admin.post("/api/v1/thing", cookie)).status == 200, "nothing needs no kind"


async def test_pages_accept_no_json(admin: Admin) -> None:
    assert (await admin.post("/logout", await admin.cookie("ada"), json={})).status == 415


def forged(admin: Admin, **changed: Any) -> dict[str, str]:
    user = User("ada", Role.ADMIN, USERS[2].password_hash)
    session = AdminSession("ada", "an-id", user.session_version, int(admin.now) + 10)
    secrets = changed.pop("secrets", SECRETS)
    return {"Cookie": f"{COOKIE}={AdminCookies(secrets).sign(dataclasses.replace(session, **changed))}"}


async def test_a_cookie_is_valid_until_it_expires_whichever_secret_signed_it(admin: Admin) -> None:
    good = [forged(admin), forged(admin, secrets=SECRETS[1:])]
    assert [(await admin.get("/api/v1/me", one)).status for one in good] == [200, 200]
    admin.now += 10
    assert [(await admin.get("/api/v1/me", one)).status for one in good] == [401, 401]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "nobody"},
        {"name": "otto"},
        {"session_version": ""},
        {"session_version": "0" * 32},
        {"secrets": ("somebody else's 0000",)},
    ],
)
async def test_a_cookie_signed_for_anything_else_is_invalid(admin: Admin, changed: dict[str, Any]) -> None:
    assert (await admin.get("/api/v1/me", forged(admin, **changed))).status == 401
    assert (await admin.get("/", forged(admin, **changed))).headers["Location"] == "/login?next=/"


async def test_logging_out_ends_only_that_session(admin: Admin) -> None:
    one, other = await admin.cookie("otto"), await admin.cookie("otto")
    answer = await admin.post("/logout", one)
    assert (answer.status, answer.headers["Location"]) == (303, "/login")
    assert f'{COOKIE}="";' in str(answer.set_cookie)
    assert "Max-Age=0" in str(answer.set_cookie)
    assert admin.diary.last() == ("otto", "logout", "done", "")
    assert (await admin.get("/api/v1/me", one)).status == 401
    assert (await admin.get("/api/v1/me", other)).status == 200
    assert (await admin.get("/logout", other)).status == 405, "looking ends nothing"
    assert (await admin.get("/api/v1/me", other)).status == 200
    # A viewer may go as well.
    assert (await admin.post("/logout", await admin.cookie("vera"))).status == 303


async def test_sessions_are_shared_by_controllers_and_survive_restarts(
    admin: Admin, access_store: LoginStore, tmp_path: Path
) -> None:
    cookie, gone = await admin.cookie("otto"), await admin.cookie("otto")
    await admin.post("/logout", gone)
    async with Admin(settings_in(tmp_path, USERS), access_store, Diary()) as other:
        assert (await other.get("/api/v1/me", cookie)).status == 200
        assert (await other.get("/api/v1/me", gone)).status == 401
        await other.post("/logout", cookie)
    assert (await admin.get("/api/v1/me", cookie)).status == 401


@pytest.mark.parametrize("what", ["role", "password", "code", "removed"])
async def test_changing_a_user_ends_only_their_sessions(admin: Admin, tmp_path: Path, what: str) -> None:
    file = AccountsFile(tmp_path)
    for name in ("emma", "fred"):
        file.add_user(User(name, Role.OPERATOR, QUICK.hash(WORDS)))
    emma, fred = await admin.cookie("emma"), await admin.cookie("fred")
    match what:
        case "role":
            file.change_user("emma", lambda user: dataclasses.replace(user, role=Role.ADMIN))
        case "password":
            file.change_user("emma", lambda user: dataclasses.replace(user, password_hash=QUICK.hash(WORDS)))
        case "code":
            file.change_user("emma", lambda user: dataclasses.replace(user, totp_secret=TOTP))
        case "removed":
            file.remove_user("emma")
            file.add_user(User("emma", Role.OPERATOR, QUICK.hash(WORDS)))
    assert (await admin.get("/api/v1/me", emma)).status == 401
    assert (await admin.get("/api/v1/me", fred)).status == 200


# --- when the store is away


async def test_without_the_store_logged_in_users_may_look_and_nobody_logs_in(admin: Admin, tmp_path: Path) -> None:
    cookie = await admin.cookie("ada")
    async with Admin(settings_in(tmp_path, USERS), Gone(), Diary()) as cut_off:
        assert (await cut_off.get("/api/v1/thing", cookie)).status == 200
        assert (await cut_off.post("/api/v1/thing", cookie, json={})).status == 503
        assert (await cut_off.post("/logout", cookie)).status == 503
        answer = await cut_off.log_in("ada")
        assert (answer.status, answer.set_cookie) == (503, None)
        assert "Store unavailable" in answer.text
        assert (await cut_off.get("/api/v1/me", {"Authorization": f"Bearer {LOCAL_TOKEN}"})).status == 200


async def test_an_unavailable_audit_log_refuses_nobody(admin: Admin) -> None:
    admin.diary.lost = True
    assert (await admin.log_in("otto")).status == 303


# --- by which name


async def test_only_known_host_names_are_served(access_store: LoginStore, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, USERS, admin_hosts=("waitroom.example.com",))
    async with Admin(settings, access_store, Diary()) as admin:
        for host, status in {
            "waitroom.example.com": 401,
            "Waitroom.example.com:8443": 401,
            "evil.example": 421,
            "[::1]:8081": 401,
            "127.0.0.1": 401,
            "127.0.0.1:80@evil": 421,
            "127.0.0.1:99999": 421,
            "[::1]x": 421,
            "[127.0.0.1]": 421,
        }.items():
            answer = await admin.get("/api/v1/me", {"Host": host})
            assert answer.status == status, host
        headers = {"Host": "waitroom.example.com", "Origin": "https://waitroom.example.com"}
        assert (await admin.log_in("ada", headers=headers)).status == 303
        assert (await admin.log_in("ada", headers={**headers, "Origin": "https://evil.example"})).status == 403
