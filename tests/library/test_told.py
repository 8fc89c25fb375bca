"""What a program hears of its server: the end of every transfer, and log records with fields."""

import asyncio
import io
import logging
from contextlib import ExitStack

import pytest
from tests.support.client import Client

from snow_owl_tftp import AsyncClient, Completion, Response, Server
from snow_owl_tftp.errors import TransferError, TransferRefused
from snow_owl_tftp.observe.records import log_event
from snow_owl_tftp.server import narrate as report

SOON_S = 20.0


async def respond(request):
    return Response(bytes(5000))


async def completions_of(use, **options):
    """Run a server, use it, and return what it told."""
    told = []
    async with Server(**{"read": respond, **options}, on_complete=told.append) as server:
        await use(server)
        async with asyncio.timeout(SOON_S):
            while not told:  # noqa: ASYNC110 - a condition, and a deadline
                await asyncio.sleep(0.005)
    return told


async def read_x(server):
    async with AsyncClient(*server.address, blksize=1000, windowsize=2) as client:
        await client.get("/boot//x")


@pytest.mark.parametrize("level", ["debug", "info", "error"])
async def test_end_of_a_read_reaches_the_callback_whatever_is_logged(level):
    (told,) = await completions_of(read_x, settings={"logging.level": level})
    assert isinstance(told, Completion)
    assert (told.client, told.path, told.is_upload, told.outcome) == ("127.0.0.1", "boot/x", False, "ok")
    assert (told.payload_bytes, told.size_bytes, told.blksize_bytes, told.windowsize_blocks) == (5000, 5000, 1000, 2)
    assert (told.error, told.text, told.retransmits) == (0, "", 0)
    assert 0 < told.duration_s < SOON_S
    assert 0 < told.client_port < 65536


async def test_end_of_an_upload_reaches_the_callback():
    async def write(server):
        async with AsyncClient(*server.address) as client:
            await client.put("x", bytes(777))

    (told,) = await completions_of(write, write=lambda upload: None)
    assert (told.path, told.is_upload, told.outcome, told.payload_bytes) == ("x", True, "ok", 777)


def ask(address, answer, **options):
    with Client(address) as client:
        client.request("x", **options)
        _, peer = client.receive_packet()
        client.send(answer, peer)


async def test_client_that_gives_up_is_told_with_its_words():
    (told,) = await completions_of(lambda server: asyncio.to_thread(ask, server.address, b"\0\5\0\3no room\0"))
    assert (told.outcome, told.error, told.text) == ("peer_error", 3, "no room")


async def test_size_probe_is_no_failure():
    probe = {"options": {"tsize": 0}}
    (told,) = await completions_of(lambda server: asyncio.to_thread(ask, server.address, b"\0\5\0\0\0", **probe))
    assert told.outcome == "size_probe"


async def test_transfers_that_stop_ends_are_told():
    told, begun = [], asyncio.Event()

    async def endless():
        while True:
            yield bytes(100_000)
            begun.set()

    server = Server(read=lambda request: Response(endless()), on_complete=told.append)
    async with server, AsyncClient(*server.address) as client:
        getting = asyncio.ensure_future(client.get("x", io.BytesIO()))
        await asyncio.wait_for(begun.wait(), SOON_S)
        await server.stop()
        assert [completion.outcome for completion in told] == ["aborted"]
        with pytest.raises(TransferError):
            await getting


async def test_callback_that_raises_harms_nobody_and_is_in_the_log(caplog):
    def fail(completion):
        raise KeyError("mine")

    async with Server(read=respond, on_complete=fail) as server, AsyncClient(*server.address) as client:
        for _ in range(2):
            assert await client.get("x") == bytes(5000)
    failures = [record for record in caplog.records if record.event == "on_complete failed"]
    assert [str(record.exc_info[1]) for record in failures] == ["'mine'"] * 2


async def test_handler_that_fails_for_everybody_is_told_of_within_the_budget(caplog, monkeypatch):
    """A traceback takes long to write, and anybody may ask for it."""
    caplog.set_level(logging.INFO, "snow_owl_tftp")
    monkeypatch.setattr(report, "_LINES_PER_S", 2)  # 20 in a minute, longer than this takes

    def fail(request):
        raise KeyError(request.path)

    async with Server(read=fail) as server:
        with ExitStack() as clients:
            asking = [clients.enter_context(Client(server.address)) for _ in range(100)]
            for client in asking:
                client.request("x")
            for client in asking:
                await asyncio.to_thread(client.receive)
    events = [record.event for record in caplog.records]
    assert 2 <= events.count("a handler failed") <= 20
    left_out = [record.count for record in caplog.records if record.event == "not logged one by one"]
    assert sum(left_out) + events.count("a handler failed") == 100


def test_callback_that_is_a_coroutine_is_refused_at_once():
    async def tell(completion):
        pass

    with pytest.raises(TypeError, match="plain function"):
        Server(read=respond, on_complete=tell)


async def test_records_carry_fields(caplog):
    caplog.set_level(logging.INFO, "snow_owl_tftp")
    async with Server(read=respond, root="/") as server, AsyncClient(*server.address) as client:
        await client.get("boot/x")
        with pytest.raises(TransferRefused):
            await client.get("../x\ninjected")
        with pytest.raises(TransferRefused):
            await client.get("../x")
    records = {record.event: record for record in caplog.records}
    completed, refused = records["transfer completed"], records["request refused"]
    assert (completed.file, completed.bytes, completed.blocks > 0) == ("boot/x", 5000, True)
    assert completed.peer.startswith("127.0.0.1:")
    assert completed.getMessage().startswith(f"transfer completed peer={completed.peer} file=boot/x bytes=5000")
    assert (refused.file, refused.code, refused.kind) == ("../x", 2, "RRQ")
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
async def test_logger_at_debug_is_all_that_debugging_takes(level, caplog):
    caplog.set_level(level, "snow_owl_tftp")
    async with Server(read=respond) as server, AsyncClient(*server.address) as client:
        await client.get("x")
    assert ("transfer started" in [record.event for record in caplog.records]) is (level == logging.DEBUG)


def test_field_that_has_the_name_of_an_attribute_keeps_out_of_its_way(caplog):
    log_event(logging.ERROR, "odd", {"name": "a", "message": "b", "exc_info": "c", "file": "d\ne"})
    (record,) = caplog.records
    assert (record.name, record.name_, record.message_, record.exc_info_) == ("snow_owl_tftp", "a", "b", "c")
    assert (record.file, record.getMessage()) == ("d\ne", "odd name=a message=b exc_info=c file=d\\ne")
