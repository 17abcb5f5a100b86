"""Commands of the shop, as the header and the API have them."""

from __future__ import annotations

import pytest

from waitroom.shop_commands import MAX_NUMBER, ShopCommand, parse_command


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (b"release", ("release", 0)),
        (b"release=now", ("release", 0)),
        (b"sold-out", ("sold-out", 0)),
        (b"hold=900", ("hold", 900)),
        (b"extend=0300", ("extend", 300)),
        (b"remaining=0", ("remaining", 0)),
        (b"hold=%d" % MAX_NUMBER, ("hold", MAX_NUMBER)),
    ],
)
def test_commands(text: bytes, command: tuple[str, int]) -> None:
    assert parse_command(text) == ShopCommand(*command)


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"=",
            b"fly",
            b"Release",
            b"release ",
            b"sold_out",
            b"hold",
            b"hold=",
            b"hold=-1",
            b"hold=+1",
            b"hold= 1",
        ),
        *(b"hold=1.0", b"hold=\xb2", b"remaining=many", b"extend", b"extend=%d" % (MAX_NUMBER + 1)),
    ],
)
def test_other_texts_are_none(text: bytes) -> None:
    assert parse_command(text) is None
