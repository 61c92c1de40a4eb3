"""Answers on connections of their own: what arrives, who may send, and what each end notices."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from provider_ray.calls import Head
from provider_ray.replies import ReplyAddress, ReplyCut, ReplyListener, send_reply

HEAD = Head(200, (("Content-Type", "text/event-stream"), ("X-Name", "äö\n")))


class Answer:
    """What a server answers, piece by piece."""

    def __init__(self, *pieces: Head | bytes | Exception | asyncio.Event) -> None:
        self.num_taken = 0
        self.is_closed = False
        self._pieces = pieces

    async def pieces(self) -> AsyncGenerator[Head | bytes, None]:
        """The pieces; an event is waited for, and an error is raised."""
        try:
            for piece in self._pieces:
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                    continue
                yield piece
                self.num_taken += 1
        finally:
            self.is_closed = True


@pytest.fixture
async def listener() -> AsyncIterator[ReplyListener]:
    """An ingress's."""
    listener = ReplyListener("127.0.0.1")
    await listener.open()
    yield listener
    listener.close()


async def test_an_answer_arrives_as_it_was_sent(listener: ReplyListener) -> None:
    """Its head, whatever is in it, and all bytes in order, until the connection ends."""
    body = [bytes([number]) * 1000 for number in range(200)]
    with listener.expect() as reply:
        sending = asyncio.create_task(send_reply(reply.address, Answer(HEAD, *body).pieces()))
        head = await reply.head()
        found = b"".join([piece async for piece in reply.pieces()])
        await sending

    assert (head, found) == (HEAD, b"".join(body))


async def test_several_answers_do_not_mix(listener: ReplyListener) -> None:
    """Each has a ticket of its own."""

    async def exchange(number: int) -> bytes:
        answer = Answer(HEAD, *(b"%d," % number for _ in range(50)))
        with listener.expect() as reply:
            sending = asyncio.create_task(send_reply(reply.address, answer.pieces()))
            await reply.head()
            found = b"".join([piece async for piece in reply.pieces()])
            await sending
        return found

    found = await asyncio.gather(*map(exchange, range(20)))
    assert found == [b"%d," % number * 50 for number in range(20)]


async def test_nobody_answers_without_a_ticket(listener: ReplyListener) -> None:
    """Nor with one that was used; whose it is does not notice."""
    answer = Answer(HEAD, b"true")
    with listener.expect() as reply:
        address = reply.address
        forged = ReplyAddress(address.host, address.port, b"?" * len(address.ticket))
        with pytest.raises(ConnectionError):
            await send_reply(forged, Answer(asyncio.Event()).pieces())
        sending = asyncio.create_task(send_reply(address, answer.pieces()))
        await reply.head()
        with pytest.raises(ConnectionError):
            await send_reply(address, Answer(asyncio.Event()).pieces())
        assert b"".join([piece async for piece in reply.pieces()]) == b"true"
        await sending


async def test_a_replica_hears_at_once_of_a_client_that_left(listener: ReplyListener) -> None:
    """Though it has nothing to write."""
    answer = Answer(HEAD, asyncio.Event())
    with listener.expect() as reply:
        sending = asyncio.create_task(send_reply(reply.address, answer.pieces()))
        await reply.head()

    with pytest.raises(ConnectionAbortedError, match="the ingress has left"):
        await sending
    assert answer.is_closed


async def test_a_client_that_does_not_read_holds_up_its_own_answer(
    listener: ReplyListener,
) -> None:
    """The replica stops taking pieces; nothing is kept without bounds."""
    answer = Answer(HEAD, *[bytes(2**20)] * 64)
    with listener.expect() as reply:
        sending = asyncio.create_task(send_reply(reply.address, answer.pieces()))
        await reply.head()
        num_taken = -1
        while num_taken != answer.num_taken:  # until it takes no more
            num_taken = answer.num_taken
            for _ in range(200):
                await asyncio.sleep(0)
        assert num_taken < 32
        num_bytes = sum([len(piece) async for piece in reply.pieces()])
        await sending

    assert num_bytes == 64 * 2**20


async def test_an_answer_that_fails_ends_its_connection_first(listener: ReplyListener) -> None:
    """What came before has arrived; the call says that it is not whole."""
    with listener.expect() as reply:
        answer = Answer(HEAD, b"half", ValueError("lost"))
        sending = asyncio.create_task(send_reply(reply.address, answer.pieces()))
        sending.add_done_callback(reply.note_end)
        await reply.head()
        assert b"".join([piece async for piece in reply.pieces()]) == b"half"
        with pytest.raises(ValueError, match="lost"):
            await sending


async def test_without_a_head_there_is_no_answer(listener: ReplyListener) -> None:
    """The connection ended before it, or the call failed before there was one."""
    with listener.expect() as reply:
        sending = asyncio.create_task(send_reply(reply.address, Answer(KeyError("lost")).pieces()))
        with pytest.raises(ReplyCut):
            await reply.head()
        with pytest.raises(KeyError, match="lost"):
            await sending
    with listener.expect() as reply:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(KeyError("full"))
        reply.note_end(failed)
        with pytest.raises(KeyError, match="full"):
            await reply.head()
