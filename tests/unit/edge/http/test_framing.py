"""The end of a body: strict, in any pieces, and in linear time."""

from __future__ import annotations

from contextlib import suppress
from time import process_time

import pytest

from waitroom.edge.http.framing import (
    MAX_CHUNK_LINE_BYTES,
    MAX_TRAILER_BYTES,
    Body,
    ChunkedBody,
    CloseBody,
    LengthBody,
    encode_chunk,
    encode_last_chunk,
)
from waitroom.edge.http.message import MalformedError


def read(body: Body, *cuts: bytes) -> tuple[bytes, bytes]:
    """The body's bytes, and the bytes after it."""
    got = b""
    for cut in cuts:
        assert not body.done, "bytes after the end don't belong to the body"
        pieces, rest = body.feed(cut)
        assert all(pieces) or pieces == [b""]
        got += b"".join(pieces)
        assert not rest or body.done
    return got, rest


def every_cut(data: bytes) -> list[tuple[bytes, ...]]:
    """The data whole, in two pieces cut at every place, and byte by byte."""
    twos = [(data[:at], data[at:]) for at in range(1, len(data))]
    return [(data,), *twos, tuple(data[at : at + 1] for at in range(len(data)))]


def chunked(data: bytes) -> bytes:
    body = ChunkedBody(400)
    got, rest = read(body, data)
    assert body.done
    assert not rest
    return got


def refused(data: bytes) -> str:
    """The reason for which a chunked body is refused, in any pieces."""
    reasons = set()
    for cuts in every_cut(data):
        body = ChunkedBody(400)
        with pytest.raises(MalformedError) as raised:
            read(body, *cuts)
        assert not body.done
        assert raised.value.status == 400
        reasons.add(raised.value.reason)
    assert len(reasons) == 1
    return reasons.pop()


# Bodies with a length, and those that end with the connection.


def test_empty_body_is_complete_immediately():
    assert LengthBody(0).done


@pytest.mark.parametrize("cuts", every_cut(b"hello"))
def test_body_ends_after_its_length(cuts):
    body = LengthBody(5)
    assert read(body, *cuts) == (b"hello", b"")
    assert body.done
    assert body.trailers == []


def test_bytes_after_the_length_are_returned():
    body = LengthBody(5)
    assert read(body, b"hel", b"loGET /") == (b"hello", b"GET /")


def test_body_without_a_length_ends_with_the_connection():
    body = CloseBody()
    assert read(body, b"a", b"\r\n0\r\n\r\n") == (b"a\r\n0\r\n\r\n", b"")
    assert not body.done


# Chunked bodies.


@pytest.mark.parametrize("cuts", every_cut(b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"))
def test_chunks_in_any_pieces(cuts):
    body = ChunkedBody(400)
    assert read(body, *cuts) == (b"hello0123456789", b"")
    assert body.done


def test_bytes_after_the_last_chunk_are_returned():
    body = ChunkedBody(400)
    assert read(body, b"1\r\na\r\n0\r\n\r", b"\nGET / HTTP/1.1") == (b"a", b"GET / HTTP/1.1")


def test_pieces_are_returned_as_they_arrive():
    body = ChunkedBody(400)
    assert body.feed(b"a\r\n0123") == ([b"0123"], b"")
    assert body.feed(b"456") == ([b"456"], b"")
    assert body.feed(b"789\r\n") == ([b"789"], b"")


@pytest.mark.parametrize(
    "size",
    [b"5", b"05", b"000000000000005", b"5;a", b"5;a=b", b'5;a="b;\\"c\\r"', b"5;a;b=c", b"5;" + b"a" * 900],
)
def test_valid_chunk_sizes_and_extensions(size):
    assert chunked(size + b"\r\nhello\r\n0\r\n\r\n") == b"hello"
    assert chunked(b"5\r\nhello\r\n" + b"0" * 9 + size.lstrip(b"05") + b"\r\n\r\n") == b"hello"


def test_chunk_size_in_either_case():
    assert chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n") == b"0123456789" * 2


@pytest.mark.parametrize(
    "size",
    [
        *(b"", b" 5", b"5 ", b"5\t", b"+5", b"-5", b"0x5", b"5h", b"5.0", b"5_0", b"\xb2", b"5,5", b"g"),
        *(b"5;", b"5;;a", b"5; a", b"5 ;a", b"5;a =b", b"5;a=", b'5;a="b', b"5;=b", b"5;a\x00", b"5;a=\x7f"),
        *(b"5\n", b"\n5", b"5\r", b"5\ra", b"5\n5", b"1" * 16, b"f" * 40),
    ],
)
def test_invalid_chunk_sizes_and_extensions(size):
    assert "size" in refused(size + b"\r\nhello\r\n0\r\n\r\n")


# Padding in a shop's response is accepted if it has only one interpretation.


@pytest.mark.parametrize(
    "size",
    [
        *(b"5 ", b"5\t", b"5 \t  ", b"0" * 15 + b"5", b"0" * 200 + b"5", b"5;", b"5 ;", b"5; a", b"5 ; a = b", b"5;;a"),
        *(b"5;a=", b'5;a="b', b"5 " + b" " * 900, b"0005\t;\xe4"),
    ],
)
def test_padded_chunk_sizes_of_a_shop(size):
    for sent in (size + b"\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n" + size.replace(b"5", b"0", 1) + b"\r\n\r\n"):
        for cuts in [(sent,), [sent[at : at + 1] for at in range(len(sent))]]:
            body = ChunkedBody(502)
            assert read(body, *cuts) == (b"hello", b"")
            assert body.done
    with pytest.raises(MalformedError):
        ChunkedBody(400).feed(b"0" * 16 + size + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "size",
    [
        *(
            b"",
            b" ",
            b" 5",
            b"\t5",
            b"+5",
            b"-5",
            b"0x5",
            b"5h",
            b"5.0",
            b"5_0",
            b"\xb2",
            b"5,5",
            b"5 5",
            b"5 a",
            b";5",
        ),
        *(b"5\n", b"\n5", b"5\r", b"5\ra", b"5 \r", b"5;a\n", b"5;a\r", b"5;\x00", b"5;\x7f", b"5\x0b", b"5\x00"),
        *(b"1" * 16, b"0" * 9 + b"1" * 16, b"f" * 40, b"5 " + b" " * 1100, b"0" * 1100 + b"5"),
    ],
)
def test_ambiguous_chunk_sizes_of_a_shop_are_refused(size):
    with pytest.raises(MalformedError) as raised:
        ChunkedBody(502).feed(size + b"\r\nhello\r\n0\r\n\r\n")
    assert raised.value.status == 502


@pytest.mark.parametrize("sent", [b"5\n", b"5;a\nhello", b"5\r\nhello\r\n0\n", b"0\r\nX: 1\n\n"])
def test_bare_line_feed_in_a_chunk_line_is_refused_early(sent):
    """A client that ends lines like this waits for a response and sends no more."""
    for cuts in [(sent,), [sent[at : at + 1] for at in range(len(sent))]]:
        with pytest.raises(MalformedError, match="invalid"):
            read(ChunkedBody(400), *cuts)


@pytest.mark.parametrize("end", [b"\n", b"x\r\n", b"\rx", b"\r\r\n", b"0\r\n\r\n", b" \r\n"])
def test_chunk_must_end_with_a_line_end(end):
    assert "longer" in refused(b"5\r\nhello" + end)


def test_longest_chunk_line_in_any_pieces():
    line = b"5;" + b"a" * (MAX_CHUNK_LINE_BYTES - 2)
    for cuts in [(line + b"\r\n",), (line, b"\r\n"), (line + b"\r", b"\n")]:
        body = ChunkedBody(400)
        assert read(body, *cuts, b"hello\r\n0\r\n\r\n") == (b"hello", b"")


def test_overlong_chunk_line_is_refused_early():
    for line in (b"5;" + b"a" * MAX_CHUNK_LINE_BYTES, b"0" * 100_000):
        with pytest.raises(MalformedError, match="too long"):
            ChunkedBody(400).feed(line)
    with pytest.raises(MalformedError, match="too long"):
        ChunkedBody(400).feed(b"5;" + b"a" * (MAX_CHUNK_LINE_BYTES - 1) + b"\r\n")


def test_malformed_body_has_the_status_of_its_sender():
    with pytest.raises(MalformedError) as raised:
        ChunkedBody(502).feed(b"x\r\n")
    assert raised.value.status == 502


# Trailers.


@pytest.mark.parametrize("cuts", every_cut(b"0\r\nA: b\r\nC:\td e \t\r\nF:\r\nA: \xe4\r\n\r\n"))
def test_trailers_keep_their_order(cuts):
    body = ChunkedBody(400)
    assert read(body, *cuts) == (b"", b"")
    assert body.trailers == [(b"A", b"b"), (b"C", b"d e"), (b"F", b""), (b"A", b"\xe4")]


@pytest.mark.parametrize(
    "name",
    [
        *(b"Transfer-Encoding", b"content-length", b"Host", b"Connection", b"Cookie", b"Set-Cookie", b"Trailer"),
        *(b"Authorization", b"Content-Type", b"TE", b"Upgrade", b"Expect", b"Forwarded", b"Cache-Control"),
        *(b"Waitroom-Session", b"Waitroom-Command", b"X-Forwarded-For", b"Waitroom_Session", b"content_length"),
    ],
)
def test_forbidden_trailers_are_dropped(name):
    body = ChunkedBody(400)
    read(body, b"0\r\n" + name + b": 1\r\nX: y\r\n\r\n")
    assert body.trailers == [(b"X", b"y")]


@pytest.mark.parametrize(
    "line",
    [b"A", b": b", b"A : b", b" A: b", b"A: b\n", b"A: b\rc", b"A: \x00", b"A: \x7f", b"A\xe4: b", b"A: b\r\n c"],
)
def test_invalid_trailers(line):
    assert "trailer" in refused(b"0\r\n" + line + b"\r\n\r\n")


def test_maximum_size_of_trailers():
    line = b"A: " + b"b" * 1019 + b"\r\n"
    assert MAX_TRAILER_BYTES % len(line) == 0
    lines = line * (MAX_TRAILER_BYTES // len(line))
    for cuts in [(b"0\r\n" + lines + b"\r\n",), (b"0\r\n" + lines, b"\r", b"\n")]:
        body = ChunkedBody(400)
        assert read(body, *cuts) == (b"", b"")
        assert len(body.trailers) == MAX_TRAILER_BYTES // len(line)
    for more in (b"A:\r\n\r\n", b"A" * 100, b"A: " + b"b" * MAX_TRAILER_BYTES):
        with pytest.raises(MalformedError):
            ChunkedBody(400).feed(b"0\r\n" + lines + more)


# The cost of hostile input must grow linearly with its size.


def cost(data: bytes) -> float:
    """The CPU time in seconds, the best of three."""
    times = []
    for _ in range(3):
        started = process_time()
        with suppress(MalformedError):
            ChunkedBody(400).feed(data)
        times.append(process_time() - started)
    return min(times)


def test_one_byte_chunks_are_read_in_linear_time():
    """One read may have a quarter of a megabyte, and all other visitors wait while it is parsed."""
    few = b"1\r\na\r\n" * 10_000
    assert cost(few * 8) < 24 * cost(few)


@pytest.mark.parametrize(("spaces", "end"), [(b" ", b"\x01"), (b" ", b"x"), (b" x", b" ")])
def test_spaces_in_trailers_are_parsed_in_linear_time(spaces, end):
    """In a regular expression, two adjacent parts that match spaces take quadratic time."""
    few = b"0\r\n" + b"A: %b\r\n" % (spaces * 100 + end) * 8
    many = b"0\r\nA: " + spaces * 800 + end + b"\r\n"
    assert cost(many) < 5 * cost(few) + 0.001


# Encoding.


def test_encoded_chunks_are_read_back():
    for piece in (b"a", b"0" * 16, b"\r\n0\r\n\r\n"):
        assert chunked(encode_chunk(piece) + encode_chunk(piece) + encode_last_chunk([])) == piece * 2


def test_encoded_trailers_are_read_back():
    body = ChunkedBody(400)
    read(body, encode_chunk(b"a") + encode_last_chunk([(b"A", b"b"), (b"C", b"")]))
    assert body.trailers == [(b"A", b"b"), (b"C", b"")]
