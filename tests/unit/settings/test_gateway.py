"""The settings: errors are reported with their place, and valid values are read as intended."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.settings_texts import ROOM, TWO_ROOMS, UPSTREAM, load, refused
from waitroom.errors import SettingsError
from waitroom.settings import (
    BypassRule,
    EventSettings,
    RoomSettings,
    Settings,
    UserSettings,
    Webhook,
    from_json,
    load_settings,
    to_json,
)
from waitroom.settings.schema import keys_of

FILES = Path(__file__).parents[1] / "testdata" / "settings"
GOOD = sorted(FILES.glob("good/*.toml"))
BAD = sorted(FILES.glob("bad/*.toml"))
HASH = "$argon2id$v=19$m=65536,t=3,p=4$p07iChp4nsDuWfEWKAxsQQ$GWcPT97M5juN9zNMv9qK2/4i9RHCMC/LnL5JOst+6/c"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_an_error_names_its_place_and_a_fix(path: Path) -> None:
    # "# expect: line 5, key | words | more words"; <file> stands for the file's own path
    expected = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# expect: ")
    place, *words = expected.replace("<file>", str(path)).split(" | ")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {}, {})
    assert len(caught.value.problems) == 1, str(caught.value)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{place}: ")
    assert words
    for word in words:
        assert word in str(problem)
    assert problem.fix


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_valid_settings_are_accepted_and_survive_serialization(path: Path) -> None:
    settings = load_settings(path, {}, {})
    assert from_json(to_json(settings)) == settings


def test_every_key_is_read() -> None:
    assert load_settings(FILES / "good/everything.toml", {}, {}) == Settings(
        listen="127.0.0.1:9000",
        admin_listen="127.0.0.1:9001",
        admin_hosts=("waitroom.example.com",),
        workers=3,
        data_dir="/var/lib/waitroom",
        store_socket_dir="/run/waitroom",
        tls_certificate=str(FILES / "good/files/shop.pem"),
        tls_key=str(FILES / "good/files/shop.key"),
        proxy_protocol=True,
        trusted_proxies=("127.0.0.1", "10.0.0.0/8"),
        keep_headers=("X-HTTP-Method-Override",),
        strict_paths=False,
        redis_url="rediss://user:hunter2@redis.internal:6380/1",
        secrets=("newest-0123456789abcdef", "older-0123456789abcdef"),
        audit_key="the key of the audit log",
        accepted_audit_keys=("an earlier key of the audit log",),
        hsts_seconds=31_536_000,
        secrets_file=None,
        grace_seconds=12.5,
        stuck_after_seconds=30.0,
        log_level="debug",
        client_connections=5000,
        client_connections_per_address=50,
        client_head_bytes=16384,
        client_head_seconds=5.0,
        client_body_seconds=6.0,
        client_min_bytes_per_second=100.0,
        client_body_buffer_bytes=4096,
        client_body_buffer_seconds=3.0,
        client_body_buffer_total_bytes=65536,
        client_idle_seconds=7.0,
        client_write_seconds=8.0,
        polls_per_second=2000,
        webhook_proxy_from_environment=True,
        users=(
            UserSettings("anna", "operator", HASH, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"),
            UserSettings("bob@example.com", "viewer", HASH),
        ),
        rooms=(
            RoomSettings(
                name="sale",
                upstream="https://shop.internal:443",
                hosts=("shop.example.com", "*.shop.example.com"),
                paths=("/sale/", "/checkout/"),
                rate_per_minute=90.5,
                max_active=40,
                autopilot=False,
                autopilot_floor=20,
                autopilot_ceiling=900.5,
                autopilot_latency_seconds=0.4,
                shop_secret="a-secret-of-the-shop-0123456789-abcdefgh",
                failure_header="x-order-status:failed",
                failure_text='"success": false',
                session_seconds=60,
                session_max_seconds=60,
                session_requests_in_flight=8,
                session_requests_per_second=20.0,
                release_grace_seconds=15,
                bind_pass="agent",
                claim_seconds=90,
                claim_after_told_seconds=90,
                join_rate=5.0,
                away_after_seconds=91,
                keep_place_seconds=91,
                recovery_seconds=45,
                method="passthrough",
                on_store_error="admit",
                without_pass="all",
                without_pass_per_second=3.0,
                preflights_per_second=4.0,
                cors_origins=("https://app.example.com",),
                cors_methods=("PUT",),
                cors_headers=("X-Token",),
                waiting_status=200,
                template=str(FILES / "good/files/waiting.html"),
                upstream_ca_file=str(FILES / "good/files/ca.pem"),
                upstream_server_name="shop.example.com",
                health_path="/healthz?deep=1",
                health_seconds=1.0,
                upstream_connect_seconds=1.5,
                upstream_first_byte_seconds=2.5,
                upstream_idle_seconds=3.5,
                upstream_max_connections=4,
                upstream_wait_seconds=0.0,
                bypass=(
                    BypassRule(
                        paths=("/webhooks/", "/hooks/"),
                        methods=("POST",),
                        max_per_second=5.0,
                        max_per_second_per_address=2.0,
                    ),
                    BypassRule(paths=("/healthz",)),
                    BypassRule(
                        exact_paths=("/payment/notify",),
                        path_regex="/payment/[a-z]+",
                        addresses=("192.0.2.7", "198.51.100.0/24"),
                        headers=("x-monitoring:Long secret", "x-present"),
                        cookies=("staff=long=secret", "crew"),
                        query=("token=long secret",),
                        dry_run=True,
                    ),
                    BypassRule(preset="stripe"),
                ),
            ),
            RoomSettings(
                name="launch",
                upstream="http://127.0.0.1:3000",
                hosts=("launch.example.com",),
                events=(
                    EventSettings(
                        name="redmi-1s",
                        title="Redmi 1s",
                        prequeue_start=datetime(2026, 12, 12, 3, 30, tzinfo=UTC),
                        start=datetime(2026, 12, 12, 4, tzinfo=UTC),
                        end=datetime(2026, 12, 12, 6, 0, 0, 500_000, tzinfo=UTC),
                        method="random",
                        before="open",
                        after="sold_out",
                        units=5000,
                        rate_per_minute=1200.0,
                        autopilot=True,
                        max_active=500,
                        session_seconds=300,
                        session_max_seconds=900,
                        claim_seconds=120,
                        claim_after_told_seconds=100,
                        away_after_seconds=95,
                        keep_place_seconds=1800,
                        recovery_seconds=20,
                    ),
                    EventSettings(name="redmi-2", start=datetime(2027, 1, 2, 4, tzinfo=UTC)),
                ),
            ),
        ),
        webhooks=(
            Webhook(
                "https://hooks.example.com/waitroom?to=duty",
                events=("shop_failing", "store_lost"),
                rooms=("sale",),
                secret="webhook-0123456789abcdef",
            ),
            Webhook("http://127.0.0.1:9002"),
        ),
    )


def test_the_file_with_everything_has_every_key() -> None:
    text = (FILES / "good/everything.toml").read_text(encoding="utf-8")
    for table in (Settings, RoomSettings, BypassRule, EventSettings, UserSettings, Webhook):
        for name in keys_of(table).keys() - {"rooms", "bypass", "events", "users", "webhooks", "secrets_file"}:
            assert re.search(rf"^{name} = ", text, re.MULTILINE), name


def test_integers_become_floats_where_floats_are_declared() -> None:
    room = load_settings(FILES / "good/whole_number_for_number.toml", {}, {}).rooms[0]
    assert isinstance(room.rate_per_minute, float)
    assert isinstance(room.upstream_connect_seconds, float)


@pytest.mark.parametrize("table", [Settings, RoomSettings, BypassRule, EventSettings, UserSettings, Webhook])
def test_settings_are_frozen_and_slotted(table: type) -> None:
    assert "__slots__" in vars(table)
    assert vars(table)["__dataclass_params__"].frozen


def test_keys_of_the_top_level_and_of_rooms_differ() -> None:
    """WAITROOM_<KEY> stands for both."""
    assert not keys_of(Settings).keys() & keys_of(RoomSettings).keys()


# --- sources


def test_an_upstream_flag_creates_a_room(tmp_path: Path) -> None:
    settings = load(tmp_path, None, upstream="http://127.0.0.1:3000/")
    assert settings == Settings(rooms=(RoomSettings("shop", UPSTREAM),))
    assert settings.workers >= 1


def test_an_upstream_in_the_environment_creates_a_room(tmp_path: Path) -> None:
    env = {"WAITROOM_UPSTREAM": UPSTREAM, "WAITROOM_NAME": "sale", "WAITROOM_ROOMS_SHOP_MAX_ACTIVE": "7"}
    assert load(tmp_path, None, env).rooms == (RoomSettings("sale", UPSTREAM, max_active=7),)


def test_an_upstream_flag_creates_a_room_for_a_file_without_rooms(tmp_path: Path) -> None:
    assert load(tmp_path, "workers = 2", upstream=UPSTREAM) == Settings(
        workers=2, rooms=(RoomSettings("shop", UPSTREAM),)
    )
    assert load(tmp_path, "rooms = []", upstream=UPSTREAM).rooms == (RoomSettings("shop", UPSTREAM),)


def test_flags_take_precedence_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = f"workers = 1\ngrace_seconds = 1\nclient_head_seconds = 1\n{ROOM}max_active = 1\nrate_per_minute = 1\n"
    env = {
        "WAITROOM_GRACE_SECONDS": "2",
        "WAITROOM_CLIENT_HEAD_SECONDS": "2.5",
        "WAITROOM_RATE_PER_MINUTE": "2",
        "WAITROOM_MAX_ACTIVE": "2",
    }
    settings = load(tmp_path, text, env, client_head_seconds=3, max_active="3", listen=None)
    assert settings == Settings(
        workers=1,
        grace_seconds=2.0,
        client_head_seconds=3.0,
        rooms=(RoomSettings("shop", UPSTREAM, rate_per_minute=2.0, max_active=3),),
    )


def test_a_variable_with_the_rooms_name_takes_precedence(tmp_path: Path) -> None:
    env = {"WAITROOM_ROOMS_SHOP_MAX_ACTIVE": "5", "WAITROOM_MAX_ACTIVE": "6"}
    assert load(tmp_path, ROOM, env).rooms[0].max_active == 5


def test_variables_name_rooms_in_capitals(tmp_path: Path) -> None:
    env = {"WAITROOM_ROOMS_PRE_SALE_METHOD": "passthrough", "WAITROOM_ROOMS_SHOP_WAITING_STATUS": "200"}
    shop, presale = load(tmp_path, TWO_ROOMS, env).rooms
    assert (shop.method, shop.waiting_status) == ("fifo", 200)
    assert (presale.method, presale.waiting_status) == ("passthrough", 503)


def test_lists_and_tables_in_the_environment(tmp_path: Path) -> None:
    env = {
        "WAITROOM_TRUSTED_PROXIES": "10.0.0.1, 192.168.0.0/16,",
        "WAITROOM_SECRETS": "newest-0123456789abcdef,older-0123456789abcdef",
        "WAITROOM_PATHS": "/a",
        "WAITROOM_BYPASS": '[{paths = ["/hooks/"], methods = ["POST"]}]',
    }
    settings = load(tmp_path, ROOM + '[[rooms.bypass]]\npaths = ["no"]\n', env)
    assert settings.trusted_proxies == ("10.0.0.1", "192.168.0.0/16")
    assert settings.secrets == ("newest-0123456789abcdef", "older-0123456789abcdef")
    assert settings.rooms[0].paths == ("/a",)
    assert settings.rooms[0].bypass == (BypassRule(("/hooks/",), ("POST",)),)


def test_empty_variables_are_ignored(tmp_path: Path) -> None:
    env = {"WAITROOM_REDIS_URL": "", "WAITROOM_WORKERS": " ", "WAITROOM_NO_SUCH_THING": ""}
    assert load(tmp_path, f"workers = 2\n{ROOM}", env).workers == 2


def test_foreign_variables_and_those_of_kubernetes_are_ignored(tmp_path: Path) -> None:
    env = {
        "PATH": "/bin",
        "WAITROOMS": "x",
        "WAITROOM_SERVICE_HOST": "10.0.0.1",
        "WAITROOM_SERVICE_PORT_HTTP": "80",
        "WAITROOM_PORT": "tcp://10.0.0.1:80",
        "WAITROOM_PORT_80_TCP": "tcp://10.0.0.1:80",
        "WAITROOM_ADMIN_PORT_8081_TCP_ADDR": "10.0.0.1",
    }
    assert load(tmp_path, ROOM, env) == load(tmp_path, ROOM)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WAITROOM_LISTN", "x", "WAITROOM_LISTN: unknown setting. Did you mean WAITROOM_LISTEN?"),
        ("WAITROOM_PORT", "9000", "WAITROOM_PORT: unknown setting."),
        ("WAITROOM_LISTN", "tcp://10.0.0.1:80", "WAITROOM_LISTN: unknown setting."),
        ("WAITROOM_ROOMS_SHOP_RATE", "6", "WAITROOM_ROOMS_SHOP_RATE: unknown setting. Did you mean WAITROOM_"),
        ("WAITROOM_ROOMS_9", "6", "WAITROOM_ROOMS_9: unknown setting. Write WAITROOM_ROOMS_<NAME>_<KEY> with"),
        ("WAITROOM_QQQQ", "6", "WAITROOM_QQQQ: unknown setting. Remove it from the environment"),
        ("WAITROOM_WORKERS", "two", 'WAITROOM_WORKERS: must be a whole number, not "two".'),
        (
            "WAITROOM_SESSION_SECONDS",
            "15m",
            'WAITROOM_SESSION_SECONDS: must be a whole number, not "15m". Give seconds as a whole number: 900.',
        ),
        ("WAITROOM_RATE_PER_MINUTE", "nan", "WAITROOM_RATE_PER_MINUTE: must be a number, not nan."),
        ("WAITROOM_PATHS", "/a,b", 'WAITROOM_PATHS: invalid path "b"'),
        ("WAITROOM_PROXY_PROTOCOL", "yes", 'WAITROOM_PROXY_PROTOCOL: must be true or false, not "yes".'),
        ("WAITROOM_BYPASS", "/hooks/", 'WAITROOM_BYPASS: must be a list of tables, not "/hooks/".'),
        ("WAITROOM_BYPASS", '[{paths = ["x"]}]', 'WAITROOM_BYPASS: invalid path "x"'),
        ("WAITROOM_METHOD", "filo", 'WAITROOM_METHOD: invalid value "filo". Did you mean fifo?'),
        ("WAITROOM_KEEP_PLACE_SECONDS", "100", "WAITROOM_KEEP_PLACE_SECONDS: keep_place_seconds (100) is less than"),
    ],
)
def test_errors_in_the_environment_name_the_variable(tmp_path: Path, variable: str, value: str, expected: str) -> None:
    (problem,) = refused(tmp_path, ROOM, {variable: value})
    assert problem.startswith(expected)


@pytest.mark.parametrize(("text", "meant"), [("true", True), (" false ", False)])
def test_a_boolean_in_the_environment(tmp_path: Path, text: str, meant: bool) -> None:
    env = {"WAITROOM_PROXY_PROTOCOL": text, "WAITROOM_TRUSTED_PROXIES": "10.0.0.1"}
    assert load(tmp_path, ROOM, env).proxy_protocol is meant


def test_an_ambiguous_variable_is_refused(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, TWO_ROOMS, {"WAITROOM_MAX_ACTIVE": "5"})
    assert problem == (
        "WAITROOM_MAX_ACTIVE: is ambiguous: several rooms match. Write WAITROOM_ROOMS_<NAME>_MAX_ACTIVE with the "
        "room's name in capitals."
    )
    alike = TWO_ROOMS.replace('"shop"', '"pre_sale"')
    (problem,) = refused(tmp_path, alike, {"WAITROOM_ROOMS_PRE_SALE_MAX_ACTIVE": "5"})
    assert problem.startswith("WAITROOM_ROOMS_PRE_SALE_MAX_ACTIVE: is ambiguous: several rooms match. Rename a room")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"workers": 0}, "--workers: is 0, but must be at least 1"),
        ({"admin_listen": "x"}, '--admin-listen: invalid address "x"'),
        ({"max_active": "many"}, '--max-active: must be a whole number, not "many"'),
        ({"liste": "x"}, "--liste: unknown setting. Did you mean --listen?"),
        ({"qqqq": "x"}, "--qqqq: unknown setting. Remove it."),
        ({"template": "nowhere.html"}, "--template: names "),
    ],
)
def test_errors_in_flags_name_the_flag(tmp_path: Path, flags: dict[str, object], expected: str) -> None:
    (problem,) = refused(tmp_path, ROOM, {}, **flags)
    assert problem.startswith(expected)


def test_a_flag_for_a_room_needs_a_single_room(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, TWO_ROOMS, upstream=UPSTREAM)
    assert problem.startswith("--upstream: requires a single room, but there are 2.")


def test_missing_rooms_are_a_single_problem(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, None, {"WAITROOM_MAX_ACTIVE": "5"}, rate_per_minute=5)
    assert problem.startswith("rooms: no room is defined.")


def test_relative_paths_start_at_the_settings_file_or_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "page.html").write_text("x")
        (folder / "secrets").write_text(f"{folder.name}-0123456789abcdef\n")
    monkeypatch.chdir(here)
    (there / "waitroom.toml").write_text(f'secrets_file = "secrets"\n{ROOM}template = "page.html"\n')
    settings = load_settings(Path("../there/waitroom.toml"), {}, {})
    assert settings.secrets == ("there-0123456789abcdef",)
    template = Path(settings.rooms[0].template or "")
    assert template.is_absolute()
    assert template.samefile(there / "page.html")
    env = {"WAITROOM_SECRETS_FILE": "secrets"}
    settings = load_settings(there / "waitroom.toml", env, {"template": "page.html"})
    assert settings.secrets == ("here-0123456789abcdef",)
    assert settings.rooms[0].template == str(here / "page.html")


@pytest.mark.parametrize("name", ["nowhere.toml", "."])
def test_an_unreadable_file_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="can't be read") as caught:
        load_settings(tmp_path / name, {}, {})
    assert caught.value.problems[0].where == str(tmp_path / name)


def test_a_binary_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "waitroom.toml").write_bytes(b"listen = '\xff'\n")
    with pytest.raises(SettingsError, match="isn't UTF-8 text"):
        load_settings(tmp_path / "waitroom.toml", {}, {})


# --- several errors


def test_all_errors_are_reported_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
workers = "4"
secrets = ["short"]

[[rooms]]
name = "shop"
upstream = "http://127.0.0.1:8080"
rate_per_minut = 5
claim_seconds = 60

[[rooms]]
name = "shop"
session_seconds = "15m"
session_max_seconds = 70
away_after_seconds = 4000
paths = ["/b"]
template = "nowhere.html"
[[rooms.bypass]]
paths = ["a", "/b"]
"""
    problems = refused(tmp_path, text, {"WAITROOM_LOG_LEVEL": "loud", "WAITROOM_X": "1"}, nonsense=1)
    assert [problem.partition(": ")[0] for problem in problems] == [
        "line 1, workers",
        "line 2, secrets[0]",
        'line 6, rooms[0] "shop".upstream',
        'line 7, rooms[0] "shop".rate_per_minut',
        'line 8, rooms[0] "shop".claim_seconds',
        'line 10, rooms[1] "shop".upstream',
        'line 11, rooms[1] "shop".name',
        'line 12, rooms[1] "shop".session_seconds',
        'line 14, rooms[1] "shop".away_after_seconds',
        'line 16, rooms[1] "shop".template',
        'line 18, rooms[1] "shop".bypass[0].paths[0]',
        "WAITROOM_X",
        "--nonsense",
        "WAITROOM_LOG_LEVEL",
    ]


def test_a_rejected_value_causes_no_second_problem(tmp_path: Path) -> None:
    """Its default must not be compared with the other values."""
    assert len(refused(tmp_path, ROOM + "session_seconds = 10\nsession_max_seconds = 70\n")) == 1
    assert len(refused(tmp_path, 'listen = 8080\nadmin_listen = "127.0.0.1:8080"\n' + ROOM)) == 1
    assert len(refused(tmp_path, f'rooms = ["x", {{name = "room-0", upstream = "{UPSTREAM}"}}]')) == 1
    assert len(refused(tmp_path, f'{ROOM}[[rooms]]\nname = "b"\nupstream = "{UPSTREAM}"\npaths = "/b"\n')) == 1


# --- upstreams


def test_an_upstream_is_one_address_or_several(tmp_path: Path) -> None:
    several = f'upstream = ["{UPSTREAM}", "http://[FD00::5]"]'
    room = load(tmp_path, f'[[rooms]]\nname = "shop"\n{several}').rooms[0]
    assert room.upstream == room.upstreams == (UPSTREAM, "http://[fd00::5]:80")
    room = load(tmp_path, f'[[rooms]]\nname = "shop"\nupstream = ["{UPSTREAM}"]').rooms[0]
    assert (room.upstream, room.upstreams) == (UPSTREAM, (UPSTREAM,))
    with_commas = {"WAITROOM_UPSTREAM": f"{UPSTREAM}, https://shop"}
    (problem,) = refused(tmp_path, None, with_commas)
    assert problem.startswith("WAITROOM_UPSTREAM: contains addresses with different schemes.")
    settings = load(tmp_path, None, {"WAITROOM_UPSTREAM": f"{UPSTREAM}, http://shop,"})
    assert settings.rooms[0].upstream == (UPSTREAM, "http://shop:80")
    assert from_json(to_json(settings)) == settings


# --- autopilot


@pytest.mark.parametrize("switch", ["", "autopilot = true\n"])
def test_a_rate_of_auto_turns_the_autopilot_on(tmp_path: Path, switch: str) -> None:
    (room,) = load(tmp_path, f'{ROOM}rate_per_minute = "auto"\n{switch}').rooms
    assert (room.autopilot, room.rate_per_minute) == (True, 600)


def test_a_rate_of_auto_may_come_from_the_environment_and_keeps_its_place(tmp_path: Path) -> None:
    assert load(tmp_path, ROOM, {"WAITROOM_RATE_PER_MINUTE": "auto"}).rooms[0].autopilot
    text = f'{ROOM}method = "passthrough"\nrate_per_minute = "auto"\n'
    assert refused(tmp_path, text)[0].startswith('line 5, rooms[0] "shop".autopilot: ')


@pytest.mark.parametrize("line", ['path_regex = "/orders/[0-9]+"', 'preset = "stripe"'])
def test_a_rule_that_needs_re2_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    (problem,) = refused(tmp_path, f"{ROOM}[[rooms.bypass]]\n{line}\n")
    assert f"{line.split()[0]}: needs the package google-re2" in problem
    assert "pip install google-re2" in problem
