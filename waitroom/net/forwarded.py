"""Parses the forwarding headers that proxies add: ``X-Forwarded-*``, or ``Forwarded`` (RFC 7239)."""

# mypyc: compile

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from waitroom.net.proxy_only_headers import plain_names

# Visitors may send any number of hops through a trusted proxy. Only the nearest ones, up to this many, are used.
MAX_HOPS: Final = 16
MAX_CHAIN_BYTES: Final = 2048
MAX_FORWARDED_BYTES: Final = 1024
_MAX_ADDRESS_LENGTH: Final = 128
_CACHE_SIZE: Final = 8192
_MAX_KNOWN: Final = 8192
_MAX_KNOWN_LENGTH: Final = 64

_ZONE = re.compile(r"%[^\]]*")
_PORT = re.compile(r":[0-9]{1,5}\Z")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)"'
# RFC 7239, section 4, and blanks around the semicolons, which many proxies write.
# Two blank patterns must never be adjacent: ambiguous matching takes time quadratic in the number of blanks.
_PAIR = re.compile(rb"[ \t]*(?:(%b)=(?:(%b)|%b)[ \t]*)?([;,]|\Z)" % (_TOKEN, _TOKEN, _QUOTED))
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def plain_address(text: str) -> str | None:
    """An address in its shortest form: IPv4 if it is mapped into IPv6, without zone, brackets and port.

    Returns:
        None if the text isn't an address, such as ``unknown`` or ``_hidden``.
    """
    return _plain_address(text) if len(text) <= _MAX_ADDRESS_LENGTH else None


@lru_cache(_CACHE_SIZE)
def _plain_address(text: str) -> str | None:
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _PORT.fullmatch(port)) or ":" not in inner:
            return None
        text = inner
    elif text.count(":") == 1:
        text = _PORT.sub("", text)
    if ":" not in text:
        return None if ipv4_bytes(text) is None else text
    try:
        address = ipaddress.IPv6Address(_ZONE.sub("", text))
    except ValueError:
        return None
    return str(address.ipv4_mapped or address)


def ipv4_bytes(text: str) -> bytes | None:
    """An IPv4 address as four bytes; None for any other text. Far cheaper than `ipaddress`, and as strict."""
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return None


class Hop(NamedTuple):
    """One proxy's statement about the hop before it; None for values it didn't state."""

    address: str | None
    proto: bytes | None
    host: bytes | None


def nearest_hops(value: bytes, longest: int) -> bytes:
    """The end of a comma-separated list of hops: as many whole members as the bounds allow."""
    if len(value) <= longest and value.count(b",") < MAX_HOPS:
        return value
    start = len(value)
    for _ in range(MAX_HOPS):
        comma = value.rfind(b",", 0, start)
        if comma < 0 or len(value) - comma - 1 > longest:
            break
        start = comma
    return value[start + 1 :].strip(b" \t")


def visitor_address(forwarded_for: bytes, peer: str, trusted: Callable[[str], bool]) -> str:
    """The visitor's address from an X-Forwarded-For header: the rightmost hop that isn't a trusted proxy.

    Args:
        forwarded_for: The header's value, the farthest hop first.
        peer: The trusted proxy that sent it.
        trusted: Tells whether an address belongs to a trusted proxy.

    Returns:
        The address of the last trusted proxy if the hop before it has none, or if there are more than `MAX_HOPS`.
    """
    found, end = peer, len(forwarded_for)
    for _ in range(MAX_HOPS):
        comma = forwarded_for.rfind(b",", 0, end)
        text = forwarded_for[comma + 1 : end].strip(b" \t")
        if text:
            address = plain_address(text.decode("latin-1"))
            if address is None:
                break
            found = address
            if not trusted(address):
                break
        if comma < 0:
            break
        end = comma
    return found


def parse_forwarded(value: bytes) -> list[Hop] | None:
    """Parses a Forwarded header, the farthest hop first; None if its syntax is invalid.

    Only the end of an overlong header is read. If the cut is within a quoted string, the rest is invalid.
    """
    value = nearest_hops(value, MAX_FORWARDED_BYTES)
    hops: list[Hop] = []
    at = 0
    pairs: dict[bytes, bytes] = {}
    while True:
        found = _PAIR.match(value, at)
        if found is None:
            return None
        name, token, quoted, end = found.groups()
        if name is not None:
            name = name.lower()
            if name in pairs:
                return None
            pairs[name] = token if token is not None else _ESCAPED.sub(rb"\1", quoted)
        if end != b";" and pairs:
            node = pairs.get(b"for")
            address = None if node is None else plain_address(node.decode("latin-1"))
            hops.append(Hop(address, pairs.get(b"proto"), pairs.get(b"host")))
            pairs = {}
        if not end:
            return hops
        at = found.end()


def first_untrusted_hop(addresses: Sequence[str | None], peer: str, trusted: Callable[[str], bool]) -> tuple[str, int]:
    """Walks from the right to the first hop that isn't a trusted proxy.

    Args:
        addresses: The hops, the farthest first; None for one without an address.
        peer: The trusted proxy that sent them.
        trusted: Tells whether an address belongs to a trusted proxy.

    Returns:
        The hop's address, and its index in ``addresses``. If a hop has no address, the address of the last proxy before
        it is returned with the index of the hop; ``len(addresses)`` stands for the peer.
    """
    found, index = peer, len(addresses)
    for index in range(len(addresses) - 1, -1, -1):
        address = addresses[index]
        if address is None:
            break
        found = address
        if not trusted(address):
            break
    return found, index


class TrustedProxies:
    """The addresses whose forwarding headers are trusted.

    Args:
        networks: Addresses or networks.
        keep_headers: Headers that other peers may send too, although they could redirect a request.

    Attributes:
        kept_headers: These headers, as `plain_name` returns them.
    """

    def __init__(self, networks: Iterable[str], keep_headers: Iterable[str] = ()) -> None:
        parsed = [ipaddress.ip_network(network, strict=False) for network in networks]
        self._ipv4 = [
            (int(network.netmask), int(network.network_address))
            for network in parsed
            if isinstance(network, ipaddress.IPv4Network)
        ]
        self._ipv6 = [network for network in parsed if isinstance(network, ipaddress.IPv6Network)]
        self._known: dict[str, bool] = {}
        self.kept_headers = plain_names(keep_headers)

    def __contains__(self, address: str) -> bool:
        if not self._ipv4 and not self._ipv6:
            return False
        known = self._known.get(address)
        if known is None:
            known = self._find(address)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            if len(address) <= _MAX_KNOWN_LENGTH:
                self._known[address] = known
        return known

    def _find(self, address: str) -> bool:
        plain = plain_address(address)
        if plain is None:
            return False
        packed = ipv4_bytes(plain)
        if packed is not None:
            number = int.from_bytes(packed)
            return any(number & mask == first for mask, first in self._ipv4)
        parsed = ipaddress.IPv6Address(plain)
        return any(parsed in network for network in self._ipv6)

    def client(self, forwarded_for: bytes, peer: str) -> str:
        """The visitor's address, from the X-Forwarded-For header of a trusted peer."""
        return visitor_address(forwarded_for, peer, self.__contains__)


NO_PROXIES = TrustedProxies(())
