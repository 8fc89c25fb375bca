"""Uploads to a handler: whole, converted, and acknowledged only when it has taken them."""

import asyncio
import errno
from contextlib import ExitStack

import pytest
from tests.support.client import Client
from tests.support.descriptors import open_descriptors, settled_descriptors
from tests.support.server import wait_for

from snow_owl_tftp import AsyncClient, Refuse, Server
from snow_owl_tftp.errors import RefusedError, TransferError, TransferRefused
from snow_owl_tftp.library import receiving
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.netascii import NetasciiDecoder

SOON_S = 20.0
SIZES = [0, 1, 511, 512, 513, 1428, 100_000]


async def put(write, name="x", data=b"data", *, max_upload_bytes=1 << 20, handler_timeout_s=10.0, **settings):
    options = {"max_upload_bytes": max_upload_bytes, "handler_timeout_s": handler_timeout_s}
    async with Server(write=write, **options) as server, AsyncClient(*server.address, **settings) as client:
        return await asyncio.wait_for(client.put(name, data), SOON_S)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", [{}, {"windowsize": 1, "blksize": 512}, {"blksize": 65464}])
async def test_file_arrives_whole(size, settings):
    taken = []
    data = bytes(i % 251 for i in range(size))
    result = await put(taken.append, "backup/switch.cfg", data, **settings)
    (upload,) = taken
    assert (upload.path, upload.raw_name, upload.client) == ("backup/switch.cfg", b"backup/switch.cfg", "127.0.0.1")
    assert upload.data == data
    assert result.payload_bytes == size


async def test_coroutine_takes_uploads_too():
    taken = []

    async def write(upload):
        taken.append(upload.path)

    await put(write, "/a/../b")
    assert taken == ["b"]


async def test_client_hears_of_success_only_after_the_handler_has_returned():
    begun, may_go = asyncio.Event(), asyncio.Event()

    async def write(upload):
        begun.set()
        await may_go.wait()

    async with Server(write=write) as server, AsyncClient(*server.address) as client:
        putting = asyncio.ensure_future(client.put("x", b"data"))
        await asyncio.wait_for(begun.wait(), SOON_S)
        assert not putting.done()
        may_go.set()
        await asyncio.wait_for(putting, SOON_S)


async def test_netascii_is_converted():
    taken = []
    await put(taken.append, data=b"one\ntwo\r", mode="netascii")
    assert taken[0].data == b"one\ntwo\r"


async def test_netascii_is_converted_a_piece_a_turn_of_the_loop(monkeypatch):
    """Line ends are slow to convert, and everybody else would wait for all of a large file."""
    turns, at = 0, []
    decode = NetasciiDecoder.decode

    def note(self, chunk):
        at.append(turns)
        assert len(chunk) <= 1 << 16
        return decode(self, chunk)

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(NetasciiDecoder, "decode", note)
    taken = []
    counting = asyncio.ensure_future(count_turns())
    await put(taken.append, data=b"\n" * 300_000 + b"\r", mode="netascii", max_upload_bytes=1 << 20)
    counting.cancel()
    assert taken[0].data == b"\n" * 300_000 + b"\r"
    assert len(set(at)) == len(at) >= 9


async def test_handler_refuses_what_it_has_seen():
    def write(upload):
        if upload.path == "raised":
            raise RefusedError(2, "not you")
        return Refuse(6, "not you")

    for name, code in (("raised", 2), ("returned", 6)):
        with pytest.raises(TransferRefused, match="not you") as refused:
            await put(write, name)
        assert refused.value.code == code


async def test_handler_that_fails_is_told_as_a_failure_with_its_traceback(caplog):
    def write(upload):
        raise KeyError("secret")

    with pytest.raises(TransferRefused, match="ERROR 0: Internal error"):
        await put(write)
    (failure,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (failure.event, failure.file, str(failure.exc_info[1])) == ("a handler failed", "x", "'secret'")
    assert failure.peer.startswith("127.0.0.1:")


async def test_handler_that_hangs_is_refused_in_time():
    async def write(upload):
        await asyncio.Event().wait()

    with pytest.raises(TransferRefused, match="busy"):
        await put(write, handler_timeout_s=0.05)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "x\ny"])
async def test_handler_is_not_asked_about_a_name_that_leads_nowhere_safe(name):
    taken = []
    with pytest.raises(TransferRefused) as refused:
        await put(taken.append, name)
    assert (refused.value.code, taken) == (2, [])


@pytest.mark.parametrize("size", [999, 1000])
async def test_file_of_the_largest_size_is_taken(size):
    taken = []
    await put(taken.append, data=bytes(size), max_upload_bytes=1000)
    assert len(taken[0].data) == size


async def test_larger_file_is_refused_whether_it_was_announced_or_not():
    taken = []

    def write_without_tsize(address):
        with Client(address) as client:
            client.request("x", kind=Opcode.WRQ)
            _, peer = client.receive_packet()
            for block in (1, 2, 3):
                client.send(bytes([0, 3, 0, block]) + bytes(512), peer)
                packet, _ = client.receive_packet()
                if hasattr(packet, "code"):
                    return packet.code
        return None

    with pytest.raises(TransferRefused, match="ERROR 3"):
        await put(taken.append, data=bytes(1001), max_upload_bytes=1000)
    async with Server(write=taken.append, max_upload_bytes=1000) as server:
        assert await asyncio.to_thread(write_without_tsize, server.address) == 3
    assert taken == []


async def test_reads_of_a_server_that_only_takes_uploads_find_nothing():
    async with Server(write=lambda upload: None) as server, AsyncClient(*server.address) as client:
        with pytest.raises(TransferRefused, match="ERROR 1"):
            await client.get("x")


async def test_nothing_is_left_behind_whatever_the_end():
    before = settled_descriptors()
    await put(lambda upload: None, data=bytes(10_000))
    with pytest.raises(TransferRefused):
        await put(lambda upload: Refuse(), data=bytes(10_000))
    assert await asyncio.to_thread(settled_descriptors) == before


async def test_stop_waits_for_a_handler_that_stores():
    begun, stored = asyncio.Event(), []

    async def write(upload):
        begun.set()
        await asyncio.sleep(0)
        stored.append(upload.path)

    async with Server(write=write) as server, AsyncClient(*server.address) as client:
        putting = asyncio.ensure_future(client.put("x", b"data"))
        await asyncio.wait_for(begun.wait(), SOON_S)
        await server.stop()
        assert stored == ["x"]
        await asyncio.wait({putting}, timeout=SOON_S)
        assert putting.exception() is None or isinstance(putting.exception(), TransferError)


async def test_requests_that_nothing_follows_lock_nobody_out():
    """As many as may be held in memory at a time, and some more."""
    taken = []
    async with Server(write=taken.append, settings={"retransmit.half_open_give_up_s": 60}) as server:
        with ExitStack() as stack:
            before = settled_descriptors()
            silent = [stack.enter_context(Client(server.address)) for _ in range(300)]
            for number, client in enumerate(silent):
                client.request(f"{number}", kind=Opcode.WRQ)
            await asyncio.to_thread(
                wait_for, lambda: server.counters()["half_open_transfers"] == 300, "all requests to be accepted"
            )
            assert open_descriptors() - before <= len(silent) + 8, "each of these clients has one itself"
            async with AsyncClient(*server.address) as client:
                await asyncio.wait_for(client.put("x", b"data"), SOON_S)
    assert [upload.data for upload in taken] == [b"data"]


async def test_upload_is_given_up_before_its_memory_is_there_and_nothing_is_left(monkeypatch):
    def no_memory(data):
        raise OSError(errno.EMFILE, "no descriptor")

    monkeypatch.setattr(receiving, "memory_of", no_memory)
    async with Server(write=print) as server, AsyncClient(*server.address) as client:
        with pytest.raises(TransferRefused, match="busy"):
            await asyncio.wait_for(client.put("x", b"data"), SOON_S)


@pytest.mark.parametrize(("timeout_s", "patience_s"), [(10.0, 300), (1000.0, 1010), (float("inf"), 86_400)])
def test_engine_waits_as_long_as_a_handler_may_take(timeout_s, patience_s):
    server = Server(write=print, handler_timeout_s=timeout_s)
    assert server._settings.retransmit.stalled_give_up_s == patience_s
    for told in ({"retransmit.stalled_give_up_s": 7}, {"retransmit": {"stalled_give_up_s": 7}}):
        own = Server(write=print, handler_timeout_s=timeout_s, settings=told)
        assert own._settings.retransmit.stalled_give_up_s == 7
    other = Server(write=print, handler_timeout_s=timeout_s, settings={"retransmit": {"give_up_s": 9}})
    assert (other._settings.retransmit.stalled_give_up_s, other._settings.retransmit.give_up_s) == (patience_s, 9)
