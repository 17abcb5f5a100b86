"""The commands of a shop, in the response header ``Waitroom-Command`` or by the API. Pure."""

# mypyc: compile

from __future__ import annotations

from typing import Final, NamedTuple

MAX_DIGITS: Final = 9
MAX_NUMBER: Final = 10**MAX_DIGITS - 1
SESSION_COMMANDS: Final = ("release", "hold", "extend")


class ShopCommand(NamedTuple):
    """One command.

    Attributes:
        name: ``release``, ``hold``, ``extend``, ``remaining`` or ``sold-out``.
        number: Seconds, or the units left; 0 for a command without a number.
    """

    name: str
    number: int


def parse_command(text: bytes) -> ShopCommand | None:
    """The command in a text such as ``hold=900``; None if it is unknown or its number is malformed."""
    name, _, value = text.partition(b"=")
    if name in (b"release", b"sold-out"):
        return ShopCommand(name.decode(), 0)
    if name in (b"hold", b"extend", b"remaining") and value.isdigit() and len(value) <= MAX_DIGITS:
        return ShopCommand(name.decode(), int(value))
    return None
