"""Authorities, as in the Host header and in absolute targets: a host and perhaps a port (RFC 3986, section 3.2)."""

# mypyc: compile

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from waitroom.bounded import bounded_lru_cache

# User information is invalid: in ``127.0.0.1:80@evil`` some parsers see one host, others another.
_FORM = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::([0-9]{1,5}))?\Z")
_LARGEST_PORT = 65535


class Authority(NamedTuple):
    """A host in one spelling: lower case, without a name's last dot, an IPv6 address in its shortest form."""

    host: bytes
    port: int | None


@bounded_lru_cache(1024, longest=300)
def parse_authority(value: bytes) -> Authority | None:
    """Parses an authority; None if it is invalid."""
    found = _FORM.match(value)
    if found is None:
        return None
    name, digits = found.groups()
    port = int(digits) if digits is not None else None
    if port is not None and port > _LARGEST_PORT:
        return None
    if name.startswith(b"["):
        try:
            literal = ipaddress.IPv6Address(name[1:-1].decode("ascii"))
        except ValueError:
            return None
        return Authority(b"[%b]" % literal.compressed.encode("ascii"), port)
    host = name.lower().removesuffix(b".")
    return Authority(host, port) if host else None


def same_authority(one: bytes, other: bytes, default_port: int) -> bool:
    """Whether both are valid and mean the same host and port; a missing port is ``default_port``."""
    first, second = parse_authority(one), parse_authority(other)
    if first is None or second is None or first.host != second.host:
        return False
    ports = [default_port if found.port is None else found.port for found in (first, second)]
    return ports[0] == ports[1]


def is_loopback(host: str) -> bool:
    """Whether a host is always this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
