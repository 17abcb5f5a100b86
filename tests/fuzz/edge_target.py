"""Fuzzes the edge with Atheris, guided by coverage: by hand, for hours, where the tests in ``property/`` take seconds.

    python -m pip install atheris
    python tests/fuzz/edge_target.py -max_total_time=3600 -max_len=4096 FOLDER_FOR_THE_CORPUS

An input's first byte says whether the rest is what a client sends (even) or what the shop answers (odd), and its second
one how that is cut. A crash is an exception, something left behind, an answer to another request, or a request at the
shop that isn't the client's; ``python tests/fuzz/edge_target.py CRASH_FILE`` shows it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def one_input(data: bytes) -> None:
    """Feeds one input to an edge of its own, and judges what comes of it."""
    if len(data) < 3:
        return
    if data[0] % 2:
        answers(data[2:], data[0], data[1])
    else:
        requests(data[2:], data[0], data[1])


def requests(stream: bytes, flags: int, cuts: int) -> None:
    """A client sends the stream; the shop answers whatever it gets."""
    from support.edge_oracle import KINDS, Answering, check_answers, check_forwarded, cut, no_mistakes
    from support.edge_world import World
    from support.http_reader import read_sent

    with World(paths=("/sale",)) as world:
        shop = Answering(world, [KINDS[flags // 4 % len(KINDS)]], early=bool(flags & 2))
        wire = world.client()
        for piece in cut(stream, [step / (cuts + 1) for step in range(cuts)]):
            wire.send(piece)
            shop.work()
        sent = read_sent(stream)
        check_forwarded(sent, shop.seen)
        wire.send_eof()
        for _ in range(8):
            world.pass_time(80)
        check_answers(wire, sent)
        no_mistakes(world)


def answers(stream: bytes, flags: int, cuts: int) -> None:
    """A visitor asks, and asks again; the shop answers the first time with the stream."""
    from support.edge_oracle import cut, no_mistakes
    from support.edge_world import World, answer, get, sent

    method = (b"GET", b"HEAD", b"POST", b"OPTIONS")[flags // 2 % 4]
    with World() as world:
        wire = sent(world, method=method)
        for piece in cut(stream, [step / (cuts + 1) for step in range(cuts)]):
            for shop in world.shop.open:
                shop.send(piece)
        for shop in world.shop.open:
            shop.send_eof()
        world.pass_time(60)
        assert wire.aborted or answer(wire, method)
        again = world.client()
        again.send(get(b"/again", world.inside(91)))
        world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain")
        assert answer(again).body == b"again", "what was left of the first answer came as the second"
        no_mistakes(world)


def main() -> None:
    """Fuzzes until it is stopped, or finds something."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["waitroom.edge", "waitroom.gate", "waitroom.tokens"]):
        from support import edge_oracle  # noqa: F401 - all that is fuzzed comes with it
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
