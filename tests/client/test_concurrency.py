"""Threads, callbacks and cancelling at awkward moments."""

import asyncio
import io
import os
import resource
import threading
from pathlib import Path

import pytest
from tests.support.fake_server import Talk, fake_server, refuse_options
from tests.support.server import serve_command, wait_for
from tests.support.uploads import serve_uploads

from snow_owl_tftp import AsyncClient, Client
from snow_owl_tftp.client import calls, events
from snow_owl_tftp.client.url import parse_url
from snow_owl_tftp.errors import TransferAborted, TransferError

CONTENT = os.urandom(100_001)


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    with serve_uploads(root, allowed_patterns=("*",)) as server:
        yield server


def cores_alive() -> int:
    return sum(thread.name == "tftp-client" for thread in threading.enumerate())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def in_threads(count, run):
    """Runs it at the same moment in all of them; what it raised or returned."""
    ready, ends = threading.Barrier(count), []

    def body() -> None:
        ready.wait(10)
        try:
            ends.append(run())
        except Exception as error:  # compared by the test
            ends.append(error)

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return ends


@pytest.fixture
def slow_core(monkeypatch):
    """Making a core takes as long as it takes all threads to ask for one."""
    made = []

    class Slow(events.ClientCore):
        def __init__(self, settings) -> None:
            made.append(self)
            gate.wait(0.2)
            super().__init__(settings)

    gate = threading.Event()
    monkeypatch.setattr(calls, "ClientCore", Slow)
    return made


def test_threads_that_begin_at_once_share_one_core(server, slow_core):
    before = cores_alive()
    with Client(*server.address) as client:
        assert in_threads(8, lambda: client.get("file")) == [CONTENT] * 8
        assert cores_alive() == before + 1
    assert len(slow_core) == 1
    assert cores_alive() == before


def test_closing_while_others_begin_leaves_no_thread(server, slow_core):
    before = cores_alive()
    client = Client(*server.address)
    turns = iter([client.close, *[lambda: client.get("file")] * 7])
    for end in in_threads(8, lambda: next(turns)()):
        assert end in (None, CONTENT) or isinstance(end, TransferAborted | ValueError)
    client.close()
    assert cores_alive() == before


@pytest.mark.parametrize("missing", ["eventfd", "thread"])
def test_client_that_cannot_start_leaves_nothing(tmp_path, monkeypatch, missing):
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = descriptors(), threads()
    with Client("127.0.0.1", 9, timeout=0.01, retries=0) as client:
        with monkeypatch.context() as patch:
            patch.setattr(*{"eventfd": (os, "eventfd"), "thread": (threading.Thread, "start")}[missing], fail)
            with pytest.raises(OSError, match="Too many"):
                client.get("file", tmp_path / "x")
        assert list(tmp_path.iterdir()) == []
        wait_for(lambda: descriptors() <= before[0] and threads() <= before[1], "everything given back")
        with pytest.raises(TransferError):
            client.get("file")


# --- callbacks


def in_time(event) -> None:
    assert event.wait(10)


def test_callback_may_wait_for_a_thread_that_uses_the_client(server):
    with Client(*server.address) as client:
        begun = []

        def begin() -> None:
            begun.append(client._begin_get(parse_url(f"tftp://127.0.0.1:{server.address[1]}/file"), None, None))

        def progress(done_bytes, size_bytes) -> None:
            thread = threading.Thread(target=begin)
            thread.start()
            thread.join(5)
            assert not thread.is_alive(), "the lock is held"

        assert client.get("file", progress=progress) == CONTENT
        assert begun[0].future.result(10).data == CONTENT


def test_callback_that_asks_its_own_client_is_told_so(server):
    with Client(*server.address) as client:
        with pytest.raises(RuntimeError, match="cannot wait"):
            client.get("file", progress=lambda *_: client.get("file"))
        assert client.get("file") == CONTENT


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_last_callback_that_raises_is_heard(server, error):
    def progress(done_bytes, size_bytes) -> None:
        if done_bytes == size_bytes:
            raise error("at the end")

    with Client(*server.address) as client:
        with pytest.raises(error, match="at the end"):
            client.get("file", progress=progress)
        assert client.get("file") == CONTENT


async def test_async_callback_that_raises_ends_its_transfer():
    heard = []

    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        heard.append(talk.hear_error())

    def progress(done_bytes, size_bytes) -> None:
        if done_bytes:  # nothing has arrived before the ACK that the script waits for
            raise RuntimeError("enough")

    with fake_server(refuse_options(script)) as server:
        async with AsyncClient() as client:
            with pytest.raises(RuntimeError, match="enough"):
                await client.get(server.url("x"), progress=progress)
    assert heard == [0]


async def test_last_async_callback_that_raises_is_heard(server):
    def progress(done_bytes, size_bytes) -> None:
        raise RuntimeError("enough")

    async with AsyncClient(*server.address) as client:
        with pytest.raises(RuntimeError, match="enough"):
            await client.put("up", b"short", progress=progress)


# --- cancelling


def test_file_in_place_is_a_success_though_the_client_is_closed(server, tmp_path):
    """From the rename on nothing may call it a failure: here the client is closed before the last ACK has left."""
    entered, go_on = threading.Event(), threading.Event()

    class Blocking(io.BytesIO):
        def flush(self) -> None:
            entered.set()
            in_time(go_on)

    client, file = Client(*server.address), Blocking()
    results = []
    getting = threading.Thread(target=lambda: results.append(client.get("file", file)))
    getting.start()
    in_time(entered)
    closing = threading.Thread(target=client.close)
    closing.start()
    wait_for(lambda: client._closed, "the end")
    go_on.set()
    closing.join(10)
    getting.join(10)
    assert [result.payload_bytes for result in results] == [len(CONTENT)]
    assert file.getvalue() == CONTENT


def test_cancelled_while_it_is_copied_writes_no_more(server):
    entered, go_on = threading.Event(), threading.Event()
    content = bytes(3 << 20)

    class Slow(io.BytesIO):
        def write(self, data) -> int:
            entered.set()
            in_time(go_on)
            return super().write(data)

    file = Slow()
    with Client(*server.address, max_size_bytes=0) as client:
        client.put("up", content)
        transfer = client._begin_get(parse_url(f"tftp://127.0.0.1:{server.address[1]}/up"), file, None)
        in_time(entered)
        client._cancel(transfer)
        go_on.set()
        with pytest.raises(TransferAborted):
            transfer.future.result(10)
    assert len(file.getvalue()) == 1 << 20


# --- special files


@pytest.mark.parametrize("does", ["get", "put"])
async def test_fifo_does_not_block_the_loop(server, tmp_path, does):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with AsyncClient(*server.address) as client:
        if does == "get":
            task = asyncio.ensure_future(client.get("file", fifo))
            await asyncio.sleep(0)
            assert await asyncio.to_thread(fifo.read_bytes) == CONTENT
            await task
        else:
            task = asyncio.ensure_future(client.put("up", fifo))
            await asyncio.sleep(0)
            await asyncio.to_thread(fifo.write_bytes, CONTENT)
            await task
            assert await client.get("up") == CONTENT


# --- descriptors


async def test_transfers_that_wait_need_no_descriptor(tmp_path):
    """A hundred under a limit that has room for a few; the client may not count on having it all for itself."""
    (tmp_path / "file").write_bytes(CONTENT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serve_command(tmp_path) as server:
        async with AsyncClient(*server.address, max_transfers=50) as client:
            assert await client.get("file") == CONTENT
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 40, hard))
            try:
                got = await asyncio.gather(*[client.get("file") for _ in range(100)])
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert got == [CONTENT] * 100
