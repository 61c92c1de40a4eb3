"""HTTP framing and event lines, however the reads cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.loadtest.http_stream import (
    MAX_CHUNK_LINE_BYTES,
    MAX_HEAD_BYTES,
    BadResponse,
    ChunkedDecoder,
    LineSplitter,
    ResponseReader,
)

EVENTS = b'data: {"a":1}\n\n: keep-alive\n\ndata: {"b":2}\r\n\r\ndata: [DONE]\n\n'
PAYLOADS = [b'{"a":1}', b'{"b":2}', b"[DONE]"]


def chunked(body: bytes, *sizes: int) -> bytes:
    """A body as chunks of these sizes, the rest in one."""
    parts = []
    for size in (*sizes, len(body)):
        if part := body[:size]:
            parts.append(b"%x;ext=1\r\n%s\r\n" % (len(part), part))
        body = body[size:]
    return b"".join([*parts, b"0\r\n\r\n"])


def read_in_pieces(data: bytes, cuts: list[int]) -> tuple[ResponseReader, list[bytes]]:
    """What a reader makes of data that arrives cut at these places."""
    reader, lines, payloads = ResponseReader(), LineSplitter(), []
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in pairwise(places):
        payloads += lines.feed(reader.feed(data[start:end]))
    return reader, payloads


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(EVENTS, 1, 7, 20)
SIZED = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(EVENTS), EVENTS)


@pytest.mark.parametrize("answer", [CHUNKED, SIZED], ids=["chunked", "sized"])
def test_every_cut_gives_the_same_events(answer: bytes) -> None:
    """A read may end anywhere: in a header, a chunk's size, a line."""
    for cut in range(len(answer)):
        reader, payloads = read_in_pieces(answer, [cut])

        assert payloads == PAYLOADS
        assert (reader.status, reader.is_event_stream, reader.is_done) == (200, True, True)


@given(st.lists(st.integers(0, 10_000), max_size=30), st.lists(st.integers(1, 30), max_size=8))
def test_any_chunks_and_any_reads(cuts: list[int], sizes: list[int]) -> None:
    """Chunks need not fit events, nor reads chunks."""
    answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(EVENTS, *sizes)

    reader, payloads = read_in_pieces(answer, cuts)

    assert (payloads, reader.is_done) == (PAYLOADS, True)


def test_a_body_may_end_with_the_connection() -> None:
    """Without a length only the connection's end tells, so the reader never says so."""
    reader, payloads = read_in_pieces(HEAD + b"\r\n" + EVENTS, [])

    assert (payloads, reader.is_done) == (PAYLOADS, False)


def test_an_interim_answer_is_passed_over() -> None:
    """The status is that of the answer proper."""
    reader, payloads = read_in_pieces(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SIZED, [])

    assert (reader.status, payloads) == (200, PAYLOADS)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: \xb2\r\n\r\n",
        HEAD + b"Content-Length: %s\r\n\r\n" % (b"9" * 5000),
        b"H" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    """A port may belong to anything."""
    with pytest.raises(BadResponse):
        ResponseReader().feed(answer)


@pytest.mark.parametrize(
    "line",
    [b"xyz", b"", b";ext", b"-5", b"+5", b" 5", b"0x5", b"5_0", b"5 5", b"f" * 16, b"-0"],
)
def test_a_chunk_size_is_hexadecimal_digits(line: bytes) -> None:
    """No sign, no prefix: a chunk of fewer than no bytes would never have been read."""
    with pytest.raises(BadResponse, match="is not a number"):
        ChunkedDecoder().feed(line + b"\r\nabcde\r\n0\r\n\r\n")


def test_space_may_follow_a_chunk_size() -> None:
    """Some servers pad it, in either case of its digits."""
    assert ChunkedDecoder().feed(b"A  \r\n0123456789\r\n00 ;x=\xff\r\n\r\n") == b"0123456789"


def test_a_chunk_size_without_end_is_refused() -> None:
    """It would be kept for ever."""
    decoder = ChunkedDecoder()
    with pytest.raises(BadResponse, match="no chunk size in"):
        decoder.feed(b"5;" + b"x" * MAX_CHUNK_LINE_BYTES)


def test_any_number_of_interim_answers_is_passed_over() -> None:
    """In one read."""
    reader, payloads = read_in_pieces(b"HTTP/1.1 100 Continue\r\n\r\n" * 1500 + SIZED, [])

    assert (reader.status, payloads) == (200, PAYLOADS)


def test_nothing_follows_the_last_chunk() -> None:
    """Trailers, or another answer, are no part of the body."""
    decoder = ChunkedDecoder()

    assert decoder.feed(b"3\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n") == b"abc"
    assert decoder.is_done
