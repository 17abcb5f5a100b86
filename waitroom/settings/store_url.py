"""The URL of the store: which parts and options it may have, and how to write what was meant.

The URL may contain a password, so no error quotes a part of it, except the names of options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from waitroom.settings.validators import invalid_value

_EXAMPLE: Final = 'For example: "redis://10.0.0.5:6379/0".'
_SCHEMES: Final = ("redis", "rediss", "unix")
_OPTION_NAME: Final = re.compile(r"[a-z_]{1,40}")
_DATABASE: Final = re.compile(r"[0-9]{1,9}")
_FILE_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# Waits, retries, pools and the form of replies belong to the gateway: every other option could break it.
_TLS_OPTIONS: Final = (*_FILE_OPTIONS, "ssl_cert_reqs", "ssl_check_hostname")
_CHOICES: Final = {"ssl_cert_reqs": ("required", "none"), "ssl_check_hostname": ("true", "false")}


def redis_address(value: str) -> str:
    """Refuse a URL that the gateway can't connect to, or with options that it doesn't know."""
    if not value.isascii() or re.search(r"[\s\x00-\x1f\x7f\\]", value):
        raise invalid_value("contains a space or another character that isn't allowed in URLs.", _EXAMPLE)
    scheme, found, rest = value.partition("://")
    if not found or scheme not in _SCHEMES:
        raise invalid_value("must begin with redis://, rediss:// (TLS) or unix://.", _EXAMPLE)
    login, _, address = rest.rpartition("@")
    if set(login) & set("/?#"):
        raise invalid_value(
            "has a /, ? or # before the @.", "Percent-encode these in the password: %2F for /, %3F for ?, %23 for #."
        )
    if "#" in address:
        raise invalid_value("must not contain a fragment.", "Remove the # and everything after it.")
    location, _, query = address.partition("?")
    if scheme == "unix":
        if not location.startswith("/") or not location.strip("/"):
            raise invalid_value("has no socket path.", 'For example: "unix:///run/valkey.sock".')
    else:
        host_and_port, slash, database = location.partition("/")
        _check_host(host_and_port)
        if slash and database and not _DATABASE.fullmatch(database):
            raise invalid_value("has a database that isn't a number.", 'Write "/0", or nothing, after the port.')
    _check_options(scheme, query)
    return value


def options_of(url: str) -> dict[str, str]:
    """Return the options of a URL that `redis_address` accepts, by name."""
    return dict(parse_qsl(urlsplit(url).query))


def files_of(url: str) -> Iterator[tuple[str, str]]:
    """Yield the files that a URL names: the option and the path."""
    for name, value in options_of(url).items():
        if name in _FILE_OPTIONS:
            yield name, value


def without_password(url: str) -> str:
    """Return the URL without its login and options, for messages."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2].partition('?')[0]}"


def has_password(url: str) -> bool:
    """Whether a URL contains a password, valid or not."""
    login, at, _ = url.partition("://")[2].rpartition("@")
    return bool(at and login.partition(":")[2])


def _check_host(value: str) -> None:
    if "," in value:
        raise invalid_value(
            "names several hosts.", "Write one: an address that always leads to the primary, such as a proxy's."
        )
    try:
        url = urlsplit(f"redis://{value}")
        host = url.hostname
    except ValueError:
        raise invalid_value("has an invalid host.", f"Put an IPv6 address in [ ]. {_EXAMPLE}") from None
    if not host:
        raise invalid_value("has no host.", _EXAMPLE)
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise invalid_value("has an invalid port.", f"Use a number from 1 to 65535. {_EXAMPLE}")


def _check_options(scheme: str, query: str) -> None:
    allowed = ("db", *(_TLS_OPTIONS if scheme == "rediss" else ()))
    listed = f"Allowed after the ? for {scheme}:// are {', '.join(allowed)}."
    names: set[str] = set()
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name in _TLS_OPTIONS and scheme != "rediss":
            raise invalid_value(f"has the option {name} without TLS.", "Use rediss://, or remove the option.")
        if name not in allowed:
            shown = f" {name}" if _OPTION_NAME.fullmatch(name) else ""
            raise invalid_value(f"has the option{shown}, which the gateway doesn't accept.", listed)
        if name in names:
            raise invalid_value(f"has the option {name} twice.", "Remove one of them.")
        names.add(name)
        _check_option(name, unquote(value))


def _check_option(name: str, value: str) -> None:
    if name == "db":
        if not _DATABASE.fullmatch(value):
            raise invalid_value("has a database that isn't a number.", 'Write "db=0", or remove the option.')
    elif choices := _CHOICES.get(name):
        if value not in choices:
            raise invalid_value(f"has an invalid value of {name}.", f"Choose one of {', '.join(choices)}.")
    elif not value.startswith("/"):
        raise invalid_value(f"has no absolute path in {name}.", f'For example: "{name}=/etc/waitroom/ca.pem".')
