"""Secrets in the settings: no error and no repr shows one, and serialization includes them."""

from __future__ import annotations

import dataclasses
import traceback
from pathlib import Path

import pytest

from support.settings_texts import ROOM, load
from waitroom.errors import SettingsError
from waitroom.settings import from_json, load_settings, to_json

FILES = Path(__file__).parents[1] / "testdata" / "settings"
SECRET = "hunter2"
LONG_SECRET = "hunter2-hunter2-hunter2"


@pytest.mark.parametrize(
    ("text", "env"),
    [
        (f'secrets = ["{SECRET}"]', {}),
        (f'secrets = "{LONG_SECRET}"', {}),
        (f'secrets = {{a = "{LONG_SECRET}"}}', {}),
        (f'secrets = [["{LONG_SECRET}"]]', {}),
        (f'secret = "{LONG_SECRET}"', {}),
        (f'secrets = ["{LONG_SECRET}"]\nsecrets_file = "secrets"', {}),
        ('secrets_file = "secrets"', {}),
        (f'redis_url = "http://:{LONG_SECRET}@h"', {}),
        (f'redis_url = "redis://:{LONG_SECRET}@"', {}),
        (f'redis_url = ["{LONG_SECRET}"]', {}),
        (f'secrets = ["{LONG_SECRET}" "{LONG_SECRET}"]', {}),
        (f'secrets = ["{LONG_SECRET}"]\nworkers = 0', {}),
        ("", {"WAITROOM_SECRETS": f"{LONG_SECRET},{SECRET}"}),
        ("", {"WAITROOM_SECRET": LONG_SECRET}),
        ("", {"WAITROOM_REDIS_URL": f"valkey://:{LONG_SECRET}@h"}),
        ("", {"WAITROOM_UPSTREAM": f"http://me:{LONG_SECRET}@shop:80"}),
        ("", {"WAITROOM_UPSTREAM": f"https://me:{LONG_SECRET}@shop"}),
        (f'webhooks = [{{url = "http://hook", secret = "{SECRET}"}}]', {}),
        (f'webhooks = [{{url = "http://hook", secret = ["{LONG_SECRET}"]}}]', {}),
        (f'webhooks = [{{url = "http://me:{LONG_SECRET}@hook"}}]', {}),
        (f'webhooks = [{{url = "hook/{LONG_SECRET}"}}]', {}),
        (f'webhooks = [{{url = ["http://hook/{LONG_SECRET}"]}}]', {}),
        ("", {"WAITROOM_SHOP_SECRET": LONG_SECRET}),
        ("workers = 0", {"WAITROOM_ROOMS_SHOP_SHOP_SECRET": f"{LONG_SECRET} {LONG_SECRET}"}),
    ],
)
def test_no_error_shows_a_secret(tmp_path: Path, text: str, env: dict[str, str]) -> None:
    (tmp_path / "secrets").write_text(f"{LONG_SECRET}\n{SECRET}\n")
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, f"{text}\n{ROOM}", env)
    # the traceback includes chained errors
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.problems)
    assert SECRET not in shown


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    hook = f'{{url = "https://hook/{SECRET}", secret = "{LONG_SECRET}"}}'
    text = f'secrets = ["{LONG_SECRET}"]\nredis_url = "redis://:{SECRET}@10.0.0.5:6379/0"\nwebhooks = [{hook}]\n'
    shop_secret = f"{LONG_SECRET}-{LONG_SECRET}"
    settings = load(tmp_path, text + ROOM, {"WAITROOM_SHOP_SECRET": shop_secret})
    assert settings.rooms[0].shop_secret == shop_secret
    assert SECRET not in repr(settings)


def test_a_secrets_file_gives_the_secrets_in_its_order() -> None:
    settings = load_settings(FILES / "good/secrets_in_a_file.toml", {}, {})
    assert settings.secrets == ("newest-0123456789abcdef", "older-0123456789abcdef")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"rooms": [], "secrets": ["hunter2"]}'])
def test_invalid_json_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(SettingsError) as caught:
        from_json(data)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_serialization_includes_secrets_and_redis_url(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        load(tmp_path, ROOM), secrets=(LONG_SECRET,), secrets_file="/run/secrets", redis_url="redis://h"
    )
    assert from_json(to_json(settings)) == settings
