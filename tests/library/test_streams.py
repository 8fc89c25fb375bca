"""Streams of a library server: no failure looks like the end of a file, whatever an iterator does and when."""

import asyncio
import logging
import socket
import time

import pytest
from tests.support.client import Client
from tests.support.descriptors import settled_descriptors

from snow_owl_tftp import AsyncClient, Response, Server
from snow_owl_tftp.errors import TransferError, TransferRefused

QUICKLY_S = 20.0
"""Far below the time limit of a handler, and the second after which a client repeats itself."""


def serving(make_chunks, **options):
    async def handler(request):
        return Response(make_chunks())

    return Server(read=handler, **options)


async def get(server, **settings):
    async with AsyncClient(*server.address, **settings) as client:
        return await asyncio.wait_for(client.get("x"), QUICKLY_S)


class Broken:
    """An iterator that is no generator."""

    def __init__(self, error):
        self.error = error

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise self.error


def failing_after(size, error):
    async def chunks():
        yield bytes(size)
        raise error

    return chunks


@pytest.mark.parametrize("windowsize", [1, 64])
@pytest.mark.parametrize("size", [0, 3, 511, 512, 1500])
async def test_failure_without_a_pause_is_told_at_once(size, windowsize):
    async with serving(failing_after(size, ValueError("no more"))) as server:
        with pytest.raises(TransferRefused, match="could not be made"):
            await get(server, blksize=512, windowsize=windowsize)


async def test_failure_before_the_first_chunk_is_told_at_once():
    async with serving(lambda: Broken(ValueError("no more"))) as server:
        with pytest.raises(TransferRefused, match="could not be made"):
            await get(server)


@pytest.mark.parametrize("error", [BrokenPipeError(), BlockingIOError(), TimeoutError(), asyncio.CancelledError()])
async def test_no_exception_of_an_iterator_is_taken_for_the_end(error):
    async with serving(failing_after(3, error)) as server:
        with pytest.raises(TransferRefused, match="could not be made"):
            await get(server)


@pytest.mark.parametrize("chunk", [None, "text", 5])
async def test_chunk_that_is_no_bytes_is_a_failure(chunk):
    async def chunks():
        yield b"abc"
        yield chunk

    async with serving(chunks) as server:
        with pytest.raises(TransferRefused, match="could not be made"):
            await get(server)


@pytest.mark.parametrize("kind", [ZeroDivisionError, asyncio.CancelledError])
async def test_failure_is_in_the_log_with_its_traceback(kind, caplog):
    async with serving(failing_after(3, kind("secret"))) as server:
        with pytest.raises(TransferRefused) as refused:
            await get(server)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info[0] is kind
    assert (record.event, record.file) == ("a stream failed", "x")
    assert "secret" not in refused.value.server_text


async def test_failed_stream_waits_for_the_end_of_its_transfer(monkeypatch):
    """An abort that has not arrived yet: the pipe stays open, and nobody has a whole file."""
    async with serving(failing_after(3, ValueError())) as server:
        aborted = asyncio.Event()
        monkeypatch.setattr(server._decider, "abort", lambda *_: aborted.set())
        async with AsyncClient(*server.address, timeout=0.5, retries=1) as client:
            getting = asyncio.ensure_future(client.get("x"))
            await asyncio.wait_for(aborted.wait(), QUICKLY_S)
            assert len(server._decider._streams) == 1
    # The server's end is the transfer's.
    with pytest.raises(TransferError):
        await getting


async def test_generator_that_never_waits_lets_others_be_served():
    served = False

    async def chunks():
        end = time.monotonic() + QUICKLY_S
        while not served and time.monotonic() < end:
            yield b""
        yield b"%d" % served

    async def handler(request):
        return Response(chunks() if request.path == "greedy" else b"other")

    async with Server(read=handler) as server, AsyncClient(*server.address) as client:
        greedy = asyncio.ensure_future(client.get("greedy"))
        assert await client.get("other") == b"other"
        served = True
        assert await greedy == b"1"


async def test_generator_is_closed_when_its_client_gives_up():
    begun, closed = asyncio.Event(), asyncio.Event()

    async def endless():
        try:
            yield bytes(1_000_000)  # more than is made ahead: whoever asks for the next one has answered
            begun.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with serving(endless) as server, AsyncClient(*server.address) as client:
        getting = asyncio.ensure_future(client.get("x"))
        await asyncio.wait_for(begun.wait(), QUICKLY_S)
        getting.cancel()
        await asyncio.wait_for(closed.wait(), QUICKLY_S)


async def test_stop_tells_the_client_and_leaves_no_descriptor():
    begun = asyncio.Event()

    async def endless():
        while True:
            yield bytes(1_000_000)
            begun.set()

    before = settled_descriptors()
    async with serving(endless) as server, AsyncClient(*server.address) as client:
        getting = asyncio.ensure_future(client.get("x"))
        await asyncio.wait_for(begun.wait(), QUICKLY_S)
        await server.stop()
        with pytest.raises(TransferRefused, match="ERROR 0"):
            await getting
    del server, client
    assert await asyncio.to_thread(settled_descriptors) == before


async def test_generator_is_asked_for_a_pipe_and_a_window_at_most():
    """A client that stops acknowledging stops the generator: what it made fits the pipe and the engine's window."""
    made_bytes, chunk_bytes, windowsize = 0, 4096, 8

    async def endless():
        nonlocal made_bytes
        while True:
            made_bytes += chunk_bytes
            yield bytes(chunk_bytes)

    def take_two_windows_and_fall_silent(address):
        with Client(address) as client:
            client.request("x", options={"blksize": 512, "windowsize": windowsize})
            packet, peer = client.receive_packet()
            client.send(b"\0\4\0\0", peer)
            heard = [client.receive_packet()[0].block for _ in range(windowsize)]
            client.send(b"\0\4\0\x08", peer)
            # Until the server repeats itself: it has had all the time to run ahead.
            while len(heard) == len(set(heard)):
                heard.append(client.receive_packet()[0].block)
            return packet, heard

    async with serving(endless) as server:
        _, heard = await asyncio.to_thread(take_two_windows_and_fall_silent, server.address)
        acknowledged = windowsize * 512
        assert max(heard) == 2 * windowsize
        assert made_bytes > 2 * acknowledged  # the window was full, so it was held back by more than the wire
        assert made_bytes <= acknowledged + 65536 + (windowsize + 1) * 512 + chunk_bytes


async def endless():
    while True:
        yield bytes(1000)


async def begin_streams(server, count):
    """Clients that ask and then say nothing; returns their sockets when each generator has been asked."""
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for client in clients:
        client.sendto(b"\0\1x\0octet\0", server.address)
    await eventually(lambda: len(server._decider._streams) == count)
    return clients


async def eventually(is_so):
    async with asyncio.timeout(QUICKLY_S):
        while not is_so():  # noqa: ASYNC110 - any condition, and a deadline
            await asyncio.sleep(0.005)


async def test_stop_that_is_cancelled_still_lets_everything_go():
    closed = []

    async def counted():
        try:
            while True:
                yield bytes(1000)
        finally:
            closed.append(1)

    before = settled_descriptors()
    server = serving(counted)
    await server.start()
    clients = await begin_streams(server, 20)
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await asyncio.wait_for(server.stop(), QUICKLY_S)
    for client in clients:
        client.close()
    assert len(closed) == 20
    assert asyncio.all_tasks() == {asyncio.current_task()}
    del server
    assert await asyncio.to_thread(settled_descriptors) == before


async def test_stop_that_is_cancelled_leaves_nothing_where_nobody_asks_again():
    server = serving(endless)
    await server.start()
    clients = await begin_streams(server, 3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await server.stop()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert server.counters() == {}
    for client in clients:
        client.close()


async def test_server_that_is_being_stopped_says_so_and_starts_again_afterwards():
    server = serving(endless)
    await server.start()
    stops = [asyncio.ensure_future(server.stop()) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="still being stopped"):
        await server.start()
    await asyncio.wait_for(asyncio.gather(*stops), QUICKLY_S)
    await server.stop()
    async with server:
        assert server.counters()
