"""The URL of the store: what it may contain, and errors that say what to write instead without quoting a password."""

from __future__ import annotations

import pytest
from pydantic_core import PydanticCustomError

from waitroom.settings.store_url import files_of, has_password, redis_address, without_password


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://10.0.0.5:6379/0",
        "redis://user:p%40ss%2Fword@[fd00::5]:6379/15",
        "redis://h?db=2",
        "unix:///run/valkey.sock?db=1",
        "unix://user:pass@/run/valkey.sock",
        "rediss://h?ssl_ca_certs=/etc/ca.pem&ssl_certfile=/etc/c.pem&ssl_keyfile=/etc/k.pem",
        "rediss://h:6380/1?ssl_cert_reqs=none&ssl_check_hostname=false",
    ],
)
def test_urls_that_the_gateway_can_use_are_kept(url: str) -> None:
    assert redis_address(url) == url


@pytest.mark.parametrize(
    ("url", "what", "fix"),
    [
        ("10.0.0.5:6379", "must begin with redis://", "redis://10.0.0.5:6379/0"),
        ("http://h", "must begin with redis://", "redis://10.0.0.5:6379/0"),
        ("redis://", "no host", "redis://10.0.0.5:6379/0"),
        ("redis://[h", "invalid host", "[ ]"),
        ("redis://h:0", "invalid port", "1 to 65535"),
        ("redis://h:99999", "invalid port", "1 to 65535"),
        ("redis://h:six", "invalid port", "1 to 65535"),
        ("redis://a:6379,b:6379", "several hosts", "one"),
        ("redis://h/abc", "database that isn't a number", "/0"),
        ("redis://h/-1", "database that isn't a number", "/0"),
        ("redis://h/0/1", "database that isn't a number", "/0"),
        ("redis://h?db=", "database that isn't a number", "db=0"),
        ("redis://h#0", "fragment", "#"),
        ("redis://:pa#ss@h", "before the @", "%23"),
        ("redis://:pa/ss@h", "before the @", "%2F"),
        ("redis://h?socket_timeout=5", "option socket_timeout", "Allowed after the ? for redis:// are db."),
        ("redis://h?max_connections=50", "option max_connections", "are db."),
        ("redis://h?nonsense=1", "option nonsense", "are db."),
        ("redis://h?decode_responses=true", "option decode_responses", "are db."),
        ("rediss://h?protocol=3", "option protocol", "ssl_ca_certs"),
        ("redis://h?db=1&db=2", "db twice", "one of them"),
        ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs without TLS", "rediss://"),
        ("rediss://h?ssl_ca_certs=ca.pem", "absolute path in ssl_ca_certs", "ssl_ca_certs=/etc"),
        ("rediss://h?ssl_cert_reqs=maybe", "value of ssl_cert_reqs", "required, none"),
        ("unix://", "no socket path", "unix:///run"),
        ("unix:///", "no socket path", "unix:///run"),
        ("unix:///a?timeout=5", "option timeout", "for unix:// are db."),
    ],
)
def test_other_urls_are_refused_with_what_to_write(url: str, what: str, fix: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        redis_address(url)
    context = caught.value.context or {}
    assert what in context["what"]
    assert fix in context["fix"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@h:99999",
        "redis://:hunter2#@h",
        "redis://user:hunter2@a,b",
        "redis://:hunter2@h/hunter2",
        "redis://h?hunter2=1",
        "redis://h?db=hunter2",
        "http://:hunter2@h",
        "redis://h?password=hunter2",
    ],
)
def test_errors_quote_no_password(url: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        redis_address(url)
    # The name of an option may be quoted; hunter2 isn't one that anybody can have meant.
    context = caught.value.context or {}
    assert "hunter2" not in f"{context['what']} {context['fix']}"


def test_what_a_message_may_say_of_a_url() -> None:
    assert without_password("rediss://user:hunter2@h:6380/1?ssl_keyfile=/k") == "rediss://h:6380/1"
    assert without_password("unix:///run/valkey.sock") == "unix:///run/valkey.sock"
    assert has_password("redis://:hunter2@h")
    assert not has_password("redis://user@h")
    assert not has_password("redis://h")


def test_files_that_a_url_names() -> None:
    url = "rediss://h?ssl_ca_certs=%2Fetc%2Fca.pem&ssl_cert_reqs=required&ssl_keyfile=/k"
    assert list(files_of(url)) == [("ssl_ca_certs", "/etc/ca.pem"), ("ssl_keyfile", "/k")]
