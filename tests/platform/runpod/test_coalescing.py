"""Events of a stream, several at a time."""

import asyncio
from collections.abc import AsyncIterator
from unittest import mock

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from provider_runpod.coalescing import coalesce


def make_stream() -> StreamReader:
    """A stream that a test feeds."""
    protocol = mock.Mock(spec=BaseProtocol, _reading_paused=False)
    return StreamReader(protocol, 2**16, loop=asyncio.get_running_loop())


def pieces_of(
    stream: StreamReader, *, window_s: float = 10, max_bytes: int = 1000
) -> AsyncIterator[str]:
    """The pieces of one."""
    return coalesce(stream, window_s=window_s, max_bytes=max_bytes)


async def test_the_first_event_does_not_wait() -> None:
    """Time to the first token is not the window's."""
    stream = make_stream()
    stream.feed_data(b"data: 1\n\n")
    assert await anext(pieces_of(stream)) == "data: 1\n\n"


async def test_what_comes_within_the_window_is_one_piece() -> None:
    """And the window ends when the stream does."""
    stream = make_stream()
    pieces = pieces_of(stream)
    stream.feed_data(b"data: 1\n\n")
    await anext(pieces)
    waiting = asyncio.ensure_future(anext(pieces))
    for number in (2, 3):
        await asyncio.sleep(0)
        stream.feed_data(b"data: %d\n\n" % number)
    stream.feed_eof()
    assert await waiting == "data: 2\n\ndata: 3\n\n"
    assert [piece async for piece in pieces] == []


async def test_the_window_ends() -> None:
    """A stream that goes on is not held back."""
    stream = make_stream()
    pieces = pieces_of(stream, window_s=0.01)
    stream.feed_data(b"data: 1\n\n")
    await anext(pieces)
    stream.feed_data(b"data: 2\n\n")
    assert await anext(pieces) == "data: 2\n\n"
    stream.feed_data(b"data: 3\n\n")
    assert await anext(pieces) == "data: 3\n\n"


async def test_enough_bytes_do_not_wait_for_the_window() -> None:
    """A fast stream is cut by size."""
    stream = make_stream()
    pieces = pieces_of(stream, max_bytes=10)
    stream.feed_data(b"data: 1\n\n")
    await anext(pieces)
    stream.feed_data(b"data: 2\n\ndata: 3\n\n")
    assert await anext(pieces) == "data: 2\n\ndata: 3\n\n"


async def test_pieces_are_cut_between_events_wherever_bytes_are() -> None:
    """Also in the middle of a character."""
    text = 'data: {"a": "ä€😀"}\n\n' * 3 + "data: [DONE]\n\n"
    whole = text.encode()
    for cut in range(1, len(whole)):
        stream = make_stream()
        stream.feed_data(whole[:cut])
        pieces = pieces_of(stream, window_s=0)
        taking = asyncio.ensure_future(_all(pieces))
        await asyncio.sleep(0)
        stream.feed_data(whole[cut:])
        stream.feed_eof()
        taken = await taking
        assert "".join(taken) == text
        assert all(piece.endswith("\n\n") for piece in taken)


async def test_a_stream_that_ends_amid_an_event_keeps_what_it_said() -> None:
    """Whoever reads it sees where it broke."""
    stream = make_stream()
    stream.feed_data(b"data: 1\n\ndata: 2")
    stream.feed_eof()
    assert await _all(pieces_of(stream)) == ["data: 1\n\n", "data: 2"]


async def _all(pieces: AsyncIterator[str]) -> list[str]:
    return [piece async for piece in pieces]
