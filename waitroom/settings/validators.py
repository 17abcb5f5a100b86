"""Validators of single values, each of which also says how to fix the value.

The functions are pydantic validators: they return the normalized value, or raise the error that
`settings.validation` turns into a problem. The errors never quote a secret or a password.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from pydantic_core import PydanticCustomError, PydanticKnownError

SECRET_LENGTH = 16
SHOP_SECRET_LENGTH = 32  # the least for HS256: RFC 7518, section 3.2
SOCKET_DIRECTORY_BYTES = 75  # of about 104 for the path of a Unix socket
MIN_FAILURE_TEXT, MAX_FAILURE_TEXT = 4, 200  # characters
WILDCARD_HOSTS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on

# Names of actors other than users, in the audit log.
RESERVED_USER_NAMES = frozenset({"local", "unknown", "autopilot", "shop", "gateway"})
ARGON2_MOST_KIB = 1 << 20
ARGON2_MOST_PASSES = 64

_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=(?P<kib>[1-9]\d{0,8}),t=(?P<passes>[1-9]\d{0,8}),p=(?P<lanes>[1-9]\d{0,2})"
    r"\$(?P<salt>[A-Za-z0-9+/]{11,86})\$(?P<hash>[A-Za-z0-9+/]{22,171})"
)
_BASE32 = re.compile(r"[A-Z2-7]{26,128}")
_SHOP_SECRET = re.compile(rf"[A-Za-z0-9._~+/=-]{{{SHOP_SECRET_LENGTH},}}")
_USER_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
# The events of webhooks; docs/webhooks.md defines when each occurs.
WEBHOOK_EVENTS = (
    *("queue_formed", "queue_empty", "paused", "resumed", "sold_out", "shop_failing", "shop_well"),
    *("store_lost", "store_back", "prequeue_opened", "event_started", "event_ended"),
)

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_PATH_FORBIDDEN = re.compile(r"[?#\s\x00-\x1f\x7f]")
_PORT = re.compile(r"[0-9]{1,5}")
_PORTS = {"http": 80, "https": 443}
_REQUEST_PATH = re.compile(r"/[!-\"$-~]*")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address.

    Attributes:
        host: A name or a literal address, lower case, without brackets.
        port: 0 to 65535.
    """

    host: str
    port: int


def invalid_value(what: str, fix: str) -> PydanticCustomError:
    """Build the error with which a validator refuses a value.

    Args:
        what: The problem, to be read after the key's name: ``must begin with "/".``
        fix: The fix: what to write instead.
    """
    return PydanticCustomError("invalid_value", "invalid value", {"what": what, "fix": fix})


def room_name(value: str) -> str:
    """Refuse a name that is not valid in a cookie's name."""
    if not NAME.fullmatch(value):
        raise invalid_value(
            f'invalid name "{value}": it becomes part of cookie names.',
            "Use 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit.",
        )
    return value


def host_pattern(value: str) -> str:
    """Return a host, or ``*.`` and a host, in lower case; refuse a scheme, a port or a path."""
    host = value.lower().rstrip(".")
    labels = host.removeprefix("*.").split(".")
    if all(_HOST_LABEL.fullmatch(label) for label in labels):
        return host
    if not host.isascii():
        raise invalid_value(f'invalid host "{value}": hosts are compared in ASCII form.', "Write it as xn--...")
    raise invalid_value(
        f'invalid host "{value}": it must have no scheme, port or path.',
        'Write "shop.example.com", or "*.example.com" for every subdomain.',
    )


def path_prefix(value: str) -> str:
    """Refuse a path prefix that no request path can begin with."""
    if not value.startswith("/"):
        raise invalid_value(f'invalid path "{value}": it must begin with "/".', f'Write "/{value}".')
    if bad := _PATH_FORBIDDEN.search(value):
        raise invalid_value(
            f'invalid path prefix "{value}": it contains {bad.group()!r}.',
            "Write only the path, without a query or spaces.",
        )
    return value


def http_method(value: str) -> str:
    """Return a request method in upper case."""
    method = value.upper()
    if not _METHOD.fullmatch(method):
        raise invalid_value(f'invalid request method "{value}".', 'For example: "POST".')
    return method


def header_line(value: str) -> str:
    """Return a header's name in lower case, with its value after a colon if there is one."""
    name, colon, rest = value.partition(":")
    if not _METHOD.fullmatch(name.strip().upper()):
        raise invalid_value(f'invalid header "{value}".', 'For example: "X-Order-Status: failed".')
    return f"{name.strip().lower()}:{rest.strip()}" if colon else name.strip().lower()


def header_name(value: str) -> str:
    """Refuse an invalid header name; the case is kept."""
    if not _METHOD.fullmatch(value.upper()):
        raise invalid_value(f'invalid header name "{value}".', 'For example: "X-Requested-With".')
    return value


def bypass_header(value: str) -> str:
    """Return a header's name in lower case, with its value after a colon. A value may be a secret: it is not quoted."""
    example = 'Write "Name: value", or "Name" for any value.'
    name, colon, rest = value.partition(":")
    name, rest = name.strip().lower(), rest.strip()
    if not _METHOD.fullmatch(name.upper()):
        raise invalid_value("must begin with a header name.", example)
    if name == "cookie":
        raise invalid_value("can't be the Cookie header.", 'Use cookies = ["name=value"] instead.')
    if colon and not rest:
        raise invalid_value("has no value after the colon.", example)
    if not rest.isascii() or not rest.isprintable():
        raise invalid_value("has a value with characters that aren't allowed in headers.", "Use only printable ASCII.")
    return f"{name}:{rest}" if colon else name


def bypass_pair(value: str) -> str:
    """Refuse anything but a name, or a name, "=" and a value. A value may be a secret: it is not quoted."""
    name, equals, rest = value.partition("=")
    if not name or name != name.strip() or not value.isprintable() or set(name) & set(";&"):
        raise invalid_value("must begin with a name.", 'Write "name=value", or "name" for any value.')
    if equals and not rest:
        raise invalid_value("has no value after the =.", 'Write "name=value", or "name" for any value.')
    return value


def cors_origin(value: str) -> str:
    """Return an origin as browsers send it, in lower case and without a default port; refuse a path or a pattern."""
    example = 'For example: "https://app.example.com".'
    url = _split_url(value.lower())
    if url is None or url.scheme not in _PORTS or split_address(_with_port(url)) is None or "@" in url.netloc:
        raise invalid_value(f'invalid origin "{value}".', example)
    if url.path not in {"", "/"} or "?" in value or "#" in value:
        raise invalid_value(f'"{value}" must not contain a path or a query.', example)
    return f"{url.scheme}://{url.netloc.removesuffix(f':{_PORTS[url.scheme]}')}"


def failure_text(value: str) -> str:
    """Refuse text that can't occur in a small JSON response, or that would occur in any."""
    if not MIN_FAILURE_TEXT <= len(value) <= MAX_FAILURE_TEXT:
        raise invalid_value(
            f"has {len(value)} characters.",
            f"Use {MIN_FAILURE_TEXT} to {MAX_FAILURE_TEXT}, such as '\"success\":false'.",
        )
    if not value.isprintable():
        raise invalid_value(
            "contains a control character.", "Write one line of the response, exactly as the shop sends it."
        )
    return value


def split_address(value: str) -> Address | None:
    """Split ``host:port`` or ``[v6]:port``.

    Returns:
        The address, or None if ``value`` is invalid.
    """
    host, _, port = value.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        try:
            literal = ip_address(host[1:-1])
        except ValueError:
            return None
        return Address(str(literal), int(port)) if literal.version == 6 else None
    host = host.lower().rstrip(".")
    labels = host.split(".")
    is_host = _is_ipv4(host) if labels[-1].isdigit() else all(_HOST_LABEL.fullmatch(label) for label in labels)
    return Address(host, int(port)) if is_host else None


def listen_address(value: str) -> str:
    """Refuse anything but ``host:port`` or ``[v6]:port``."""
    if split_address(value) is None:
        port = value.lstrip(":")
        example = f"0.0.0.0:{port}" if _PORT.fullmatch(port) and int(port) <= 65535 else "0.0.0.0:8080"
        raise invalid_value(
            f'invalid address "{value}": it needs a host and a port.',
            f'Write "{example}" for all IPv4 addresses of this machine, or "[::]:8080" to include IPv6.',
        )
    return value


def upstream_url(value: str) -> str:
    """Return an upstream as ``http://host:port``, ``https://host:port`` or ``unix:///path``; refuse anything else."""
    if value.startswith("unix:"):
        path = value.removeprefix("unix://")
        if path == value or not path.startswith("/") or _PATH_FORBIDDEN.search(path) or path.endswith("/"):
            raise invalid_value("must be the absolute path of a socket.", 'Write "unix:///run/shop.sock".')
        return value
    if split_address(value):
        raise invalid_value("must begin with http://, https:// or unix://.", f'Write "http://{value}".')
    url = _split_url(value)
    if url is None:
        raise invalid_value(
            "isn't a valid upstream address.", 'Write "http://127.0.0.1:3000" or "unix:///run/shop.sock".'
        )
    if "@" in url.netloc:
        raise invalid_value("must not contain a user or a password.", "Remove the part before the @.")
    if url.scheme not in _PORTS:
        raise invalid_value(
            "must begin with http://, https:// or unix://.",
            'Write "http://127.0.0.1:3000" or "unix:///run/shop.sock".',
        )
    address = split_address(_with_port(url))
    if address is None:
        raise invalid_value("has no valid host and port.", 'Write "http://127.0.0.1:3000".')
    host = f"[{address.host}]" if ":" in address.host else address.host
    plain = f"{url.scheme}://{host}:{address.port}"
    if url.path not in {"", "/"} or "?" in value or "#" in value:
        raise invalid_value(
            "must not contain a path or a query: requests keep their own path.",
            f'Write "{plain}".',
        )
    return plain


def upstream_address(value: str) -> Address | None:
    """Return the address of an upstream, or None for a Unix socket.

    Args:
        value: The output of `upstream_url`.
    """
    scheme, _, address = value.partition("://")
    return split_address(address) if scheme in _PORTS else None


def upstream_urls(value: object) -> str | tuple[str, ...]:
    """Return an upstream, or a list of them, in normal form; a list of one as a single upstream."""
    if isinstance(value, str):
        return upstream_url(value)
    if not isinstance(value, list | tuple):
        raise PydanticKnownError("string_type")
    urls = tuple(_listed_upstream(number, one) for number, one in enumerate(value, 1))
    if not urls:
        raise PydanticKnownError("too_short", {"field_type": "List", "min_length": 1, "actual_length": 0})
    if len({url.partition(":")[0] for url in urls}) > 1:
        raise invalid_value(
            "contains addresses with different schemes.", "Use only http://, only https:// or only unix://."
        )
    if len(set(urls)) < len(urls):
        raise invalid_value("contains an address twice.", "List each once: the load is spread evenly.")
    return urls[0] if len(urls) == 1 else urls


def _listed_upstream(number: int, value: object) -> str:
    if not isinstance(value, str):
        raise invalid_value(f"has an item, number {number}, that isn't text.", 'For example: ["http://10.0.0.1:3000"].')
    try:
        return upstream_url(value)
    except PydanticCustomError as error:
        context = error.context or {}
        raise invalid_value(f"has an item, number {number}, that {context['what']}", context["fix"]) from None


def server_name(value: str) -> str:
    """Return the name that a certificate is checked for, in lower case; refuse a port or a scheme."""
    if value.startswith("*"):
        raise invalid_value(f'invalid name "{value}": wildcards are not allowed.', 'Write "shop.example.com".')
    return host_pattern(value)


def url_path(value: str) -> str:
    """Refuse anything but a path, optionally with a query, in ASCII."""
    if not _REQUEST_PATH.fullmatch(value):
        raise invalid_value(f'invalid path "{value}".', 'For example: "/healthz".')
    return value


def trusted_network(value: str) -> str:
    """Refuse anything but an IP address or a network."""
    try:
        return str(ip_network(value)) if "/" in value else str(ip_address(value))
    except ValueError:
        pass
    try:
        meant = ip_network(value, strict=False)
    except ValueError:
        raise invalid_value(
            f'"{value}" is neither an IP address nor a network.', 'For example: "10.0.0.7" or "10.0.0.0/8".'
        ) from None
    raise invalid_value(
        f'"{value}" is an address within a network, not the network itself.',
        f'Write "{meant}", or "{value.partition("/")[0]}" for only that address.',
    )


def signing_secret(value: str) -> str:
    """Refuse a secret that could be guessed. It is not quoted."""
    if len(value) < SECRET_LENGTH:
        raise invalid_value(
            f"must have at least {SECRET_LENGTH} characters.",
            "Generate one with: waitroom secret",
        )
    return value


def shop_secret(value: str) -> str:
    """Refuse a secret that libraries for JSON Web Tokens refuse or read differently. It is not quoted."""
    if not _SHOP_SECRET.fullmatch(value):
        raise invalid_value(
            f"must have at least {SHOP_SECRET_LENGTH} characters, all of them letters, digits or -._~+/=",
            "Generate one with: waitroom secret",
        )
    return value


def user_name(value: str) -> str:
    """Refuse a name that can't be typed the same everywhere, or that is reserved for an actor other than a user."""
    if not _USER_NAME.fullmatch(value):
        raise invalid_value(
            f'invalid user name "{value}".',
            'Use 1 to 64 of a-z, 0-9, ".", "_", "@" and "-", beginning with a letter or digit.',
        )
    if value in RESERVED_USER_NAMES:
        raise invalid_value(
            f'reserved name "{value}": the audit log uses it for another actor.', "Choose another name."
        )
    return value


def password_hash(value: str) -> str:
    """Refuse anything but an argon2id hash that a gateway has the memory to check. It is not quoted."""
    fix = "Generate one with: waitroom user hash"
    found = _ARGON2.fullmatch(value)
    if found is None or any(len(part) % 4 == 1 for part in found.group("salt", "hash")):
        raise invalid_value("isn't an argon2id hash.", fix)
    kib, passes, lanes = (int(number) for number in found.group("kib", "passes", "lanes"))
    if kib < 8 * lanes:  # RFC 9106, section 3.1
        raise invalid_value("isn't an argon2id hash.", fix)
    if kib > ARGON2_MOST_KIB or passes > ARGON2_MOST_PASSES:
        raise invalid_value("is too expensive to verify.", fix)
    return value


def totp_secret(value: str) -> str:
    """Return an authenticator's secret in capitals without blanks; refuse an invalid one. It is not quoted."""
    secret = re.sub(r"[\s-]", "", value).upper().rstrip("=")
    if not _BASE32.fullmatch(secret) or len(secret) % 8 in {1, 3, 6}:
        raise invalid_value(
            "isn't a base32 secret of at least 26 characters (A-Z, 2-7).",
            "Copy it from the authenticator's otpauth:// URL, after secret=",
        )
    return secret


def admin_host(value: str) -> str:
    """Return a host name of the admin listener, in lower case; refuse a pattern, a port or a scheme."""
    if value.startswith("*"):
        raise invalid_value(f'invalid host "{value}": wildcards are not allowed.', 'Write "waitroom.example.com".')
    return host_pattern(value)


def webhook_url(value: str) -> str:
    """Refuse a URL that events can't be sent to. The value may contain a secret, so it is not quoted."""
    example = 'For example: "https://hooks.example.com/waitroom".'
    url = _split_url(value)
    if url is None or url.scheme not in _PORTS:
        raise invalid_value("must begin with http:// or https://.", example)
    if "@" in url.netloc:
        raise invalid_value("must not contain a user or a password.", "Remove the part before the @.")
    if not url.hostname:
        raise invalid_value("has no host.", example)
    if split_address(_with_port(url)) is None:
        raise invalid_value("has no valid host and port.", example)
    if "#" in value:
        raise invalid_value("must not contain a fragment.", "Remove the # and everything after it.")
    return value


def webhook_event(value: str) -> str:
    """Refuse an unknown event."""
    if value not in WEBHOOK_EVENTS:
        meant = difflib.get_close_matches(value, WEBHOOK_EVENTS, 1)
        fix = f"Did you mean {meant[0]}?" if meant else f"Choose from {', '.join(WEBHOOK_EVENTS)}."
        raise invalid_value(f'unknown event "{value}".', fix)
    return value


def file_path(value: str) -> str:
    """Refuse text that can't be a path."""
    if not value.strip() or "\0" in value:
        raise invalid_value("must be a path.", "Enter a path, or remove the key.")
    return value


def socket_directory(value: str) -> str:
    """Refuse a path that is relative, or too long for the sockets in it."""
    if not file_path(value).startswith("/"):
        raise invalid_value("must be an absolute path.", "Begin it with a slash, such as /run/waitroom.")
    if len(os.fsencode(value)) > SOCKET_DIRECTORY_BYTES:
        what = f"is longer than {SOCKET_DIRECTORY_BYTES} bytes, too long for a Unix socket."
        raise invalid_value(what, "Choose a shorter path, such as /run/waitroom.")
    return value


def _is_ipv4(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def _with_port(url: SplitResult) -> str:
    """Return the host and port of an http:// or https:// URL."""
    return url.netloc if re.search(r":[0-9]*$", url.netloc) else f"{url.netloc}:{_PORTS[url.scheme]}"


def _split_url(value: str) -> SplitResult | None:
    """Split a URL; None if it is invalid, or can't be connected to."""
    if not value.isascii() or re.search(r"[\s\x00-\x1f\x7f\\]", value):
        return None
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return None
    return None if port == 0 else url
