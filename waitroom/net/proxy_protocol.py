"""Parses the PROXY protocol header, in which a load balancer that passes TCP through names the client.

Versions 1 and 2, strictly: anything the specification doesn't allow is refused.
"""

from __future__ import annotations

import ipaddress
import re
import struct

from waitroom.errors import WaitroomError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# A connection of the proxy's own, such as a health check: it represents no client.
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"

MAX_LINE_BYTES = 107  # version 1, including the line end
MAX_BLOCK_BYTES = 4096  # version 2, after its first 16 bytes; longer ones are allowed but not seen in practice

_FIRST = b"PROXY "
_FIXED = 16
_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_VERSION, _LOCAL, _PROXY = 0x20, 0x20, 0x21
# The block begins with two addresses, and two ports if the family has any. Datagrams can't arrive over TCP.
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyHeaderError(WaitroomError):
    """The bytes received aren't a valid PROXY protocol header."""


class ProxyHeader:
    """Reads one header incrementally.

    Attributes:
        done: Whether the header is complete; the fields below are valid from then on.
        local: Whether the connection is the proxy's own.
        address: The visitor's address in its shortest form, or None if the proxy doesn't know it.
    """

    __slots__ = ("_buffer", "address", "done", "local")

    def __init__(self) -> None:
        self._buffer = b""
        self.done = False
        self.local = False
        self.address: str | None = None

    def feed(self, data: bytes) -> int:
        """Takes bytes until the header is complete.

        Returns:
            How many of ``data`` belong to the header; the rest is the visitor's.

        Raises:
            ProxyHeaderError: The bytes can't become a valid header.
        """
        if self.done:
            return 0
        before = len(self._buffer)
        self._buffer += data
        end = self._end()
        if end is None:
            return len(data)
        header = self._buffer[:end]
        if header.startswith(SIGNATURE):
            self._read_block(header)
        else:
            self._read_line(header)
        self.done = True
        self._buffer = b""
        return end - before

    def _end(self) -> int | None:
        """The end of the header, or None while it is unknown or the header is incomplete."""
        buffer = self._buffer
        if buffer[: len(SIGNATURE)] == SIGNATURE[: len(buffer)]:
            return self._end_of_block(buffer)
        if buffer[: len(_FIRST)] != _FIRST[: len(buffer)]:
            raise ProxyHeaderError("missing PROXY header")
        end = buffer.find(b"\n", 0, MAX_LINE_BYTES)
        if end >= 0:
            return end + 1
        if len(buffer) >= MAX_LINE_BYTES:
            raise ProxyHeaderError("PROXY line too long")
        return None

    @staticmethod
    def _end_of_block(buffer: bytes) -> int | None:
        if len(buffer) < _FIXED:
            return None
        length: int = struct.unpack_from("!H", buffer, 14)[0]
        if length > MAX_BLOCK_BYTES:
            raise ProxyHeaderError("PROXY header too long")
        return _FIXED + length if len(buffer) >= _FIXED + length else None

    def _read_line(self, line: bytes) -> None:
        if _UNKNOWN.fullmatch(line):
            return
        found = _LINE.fullmatch(line)
        if found is None:
            raise ProxyHeaderError("malformed PROXY line")
        kind, source, destination, *ports = (part.decode() for part in found.groups())
        parse = ipaddress.IPv4Address if kind == "TCP4" else ipaddress.IPv6Address
        try:
            self.address = str(parse(source))
            parse(destination)
        except ValueError:
            raise ProxyHeaderError("invalid address in PROXY line") from None
        for port in ports:
            if int(port) > 65535 or port != str(int(port)):
                raise ProxyHeaderError("invalid port in PROXY line")

    def _read_block(self, header: bytes) -> None:
        command, family = header[12], header[13]
        if command == _LOCAL:
            self.local = True
            return
        if command != _PROXY:
            what = "command" if command & 0xF0 == _VERSION else "version"
            raise ProxyHeaderError(f"unknown PROXY {what}")
        size = _ADDRESSES.get(family)
        if size is None:
            raise ProxyHeaderError("unsupported PROXY address family")
        if len(header) < _FIXED + size:
            raise ProxyHeaderError("PROXY header too short for its addresses")
        if family == _TCP4:
            self.address = str(ipaddress.IPv4Address(header[16:20]))
        elif family == _TCP6:
            self.address = str(ipaddress.IPv6Address(header[16:32]))
        if family != _UNSPECIFIED:
            _check_extensions(header[_FIXED + size :])


def _check_extensions(data: bytes) -> None:
    """Checks the extensions after the addresses: each is a type, a length in two bytes, and that many bytes."""
    at = 0
    while at < len(data):
        if at + 3 > len(data):
            raise ProxyHeaderError("truncated PROXY extension")
        at += 3 + int(struct.unpack_from("!H", data, at + 1)[0])
    if at != len(data):
        raise ProxyHeaderError("truncated PROXY extension")
