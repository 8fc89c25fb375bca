"""What a Response may hold, and that what hangs or fails in it harms nobody else."""

import asyncio
import contextlib
import errno
import io
import logging
import os
import threading
from pathlib import Path

import pytest
from tests.support.client import Client
from tests.support.server import wait_for

from snow_owl_tftp import AsyncClient, Refuse, Response, Server
from snow_owl_tftp.errors import RefusedError, TransferError, TransferRefused
from snow_owl_tftp.library import response_bytes as contents
from snow_owl_tftp.server import texts

SOON_S = 20.0


def serving(make_content, **options):
    async def handler(request):
        return Response(make_content())

    return Server(read=handler, **options)


async def get(make_content, to=None, **settings):
    async with serving(make_content) as server, AsyncClient(*server.address, **settings) as client:
        return await asyncio.wait_for(client.get("x", to), SOON_S)


@contextlib.contextmanager
def silent_pipes(count):
    """Reading ends of pipes that nobody writes to until the end of the test."""
    ends = [os.pipe() for _ in range(count)]
    files = [os.fdopen(reader, "rb", buffering=0) for reader, _ in ends]
    try:
        yield files
    finally:
        for _, writer in ends:
            os.close(writer)
        wait_for(lambda: not any(t.name.startswith("tftp-read") for t in threading.enumerate()), "the readers' end")
        for file in files:
            file.close()


async def test_file_objects_that_hang_end_in_time_and_hold_up_nobody(tmp_path):
    (tmp_path / "file").write_bytes(b"path")
    with silent_pipes(40) as files:
        all_asked, asked = asyncio.Event(), set()
        others = {"bytes": b"bytes", "path": tmp_path / "file"}

        async def handler(request):
            asked.add(request.path)
            if len(asked) == len(files):
                all_asked.set()
            return Response(others[request.path] if request.path in others else files[int(request.path)])

        async with Server(read=handler, handler_timeout_s=0.5) as server, AsyncClient(*server.address) as client:
            hanging = [asyncio.ensure_future(client.get(str(i))) for i in range(len(files))]
            await asyncio.wait_for(all_asked.wait(), SOON_S)
            assert await client.get("bytes") == b"bytes"
            assert await client.get("path") == b"path"
            await asyncio.wait_for(asyncio.to_thread(os.getpid), SOON_S)  # the program's own threads are free
            for outcome in await asyncio.gather(*hanging, return_exceptions=True):
                assert isinstance(outcome, TransferRefused)
                assert outcome.code == 0


async def test_opening_that_hangs_is_refused_in_time_and_leaves_no_descriptor(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"x")
    release, open_path = threading.Event(), contents._open_path
    opened = []

    def hang(*arguments):
        release.wait(SOON_S)
        opened.append(open_path(*arguments))
        return opened[-1]

    monkeypatch.setattr(contents, "_open_path", hang)
    async with (
        serving(lambda: tmp_path / "x", handler_timeout_s=0.1) as server,
        AsyncClient(*server.address) as client,
    ):
        with pytest.raises(TransferRefused, match="busy"):
            await client.get("x")
        release.set()
        await asyncio.to_thread(wait_for, lambda: opened and not any(map(is_open, opened)), "the end of the descriptor")


@pytest.mark.parametrize("what", ["open", "handler"])
async def test_what_waits_for_threads_that_hang_is_bounded(tmp_path, monkeypatch, what):
    """Those whose time is up leave the queue when the next one comes, though no thread takes them out of it."""
    monkeypatch.setattr(contents, "_MAX_WAITING", 40)
    (tmp_path / "x").write_bytes(b"x")
    release = threading.Event()

    def hang(*_):
        release.wait(60)
        raise RefusedError(1, "no")

    if what == "open":
        monkeypatch.setattr(contents, "_open_path", hang)
    handler = hang if what == "handler" else lambda request: Response(tmp_path / "x")
    async with Server(read=handler, handler_timeout_s=0.01) as server:
        threads = server._decider._threads._calling if what == "handler" else server._decider._threads._opening
        with contextlib.ExitStack() as clients:
            for _ in range(100):
                client = clients.enter_context(Client(server.address))
                client.request("x")
                assert b"busy" in (await asyncio.to_thread(client.receive))[0]
            waiting = threads.waiting_for(None)
            release.set()
    assert 0 < waiting <= 40


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_file_object_that_never_ends_is_read_as_far_as_its_client_takes_it():
    read_bytes = 0

    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            nonlocal read_bytes
            read_bytes += len(buffer)
            return len(buffer)

    with pytest.raises(TransferError):
        await get(Endless, max_size_bytes=1_000_000, windowsize=4, blksize=512)
    assert 1_000_000 <= read_bytes <= 2_000_000


async def test_pipe_that_somebody_writes_to_is_sent_to_its_end():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        writing = asyncio.ensure_future(asyncio.to_thread(write_all, writer, b"y" * 300_000))
        assert await get(lambda: file) == b"y" * 300_000
        await writing


def write_all(fd, data):
    with os.fdopen(fd, "wb") as file:
        file.write(data)


async def test_size_of_a_file_object_is_told_where_it_can_be_measured(tmp_path):
    (tmp_path / "x").write_bytes(bytes(70_000))
    with (tmp_path / "x").open("rb") as file:
        for content in (io.BytesIO(bytes(70_000)), file):
            assert (await get(lambda: content, io.BytesIO())).tsize == 70_000  # noqa: B023


async def test_file_object_is_sent_from_where_it_stands():
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    got = io.BytesIO()
    assert (await get(lambda: file, got)).tsize == 6
    assert got.getvalue() == b"456789"


class Odd(io.BytesIO):
    """Says that it has ten bytes."""

    def seek(self, offset, whence=os.SEEK_SET):
        return 10 if whence == os.SEEK_END else super().seek(offset, whence)


class Unready(io.BytesIO):
    """Non-blocking, and without anything to read now."""

    def read(self, size=-1):
        return None


@pytest.mark.parametrize("make_file", [lambda: Odd(b"short"), lambda: Odd(b"much longer than ten"), Unready])
async def test_file_object_that_is_not_what_it_says_is_never_a_whole_file(make_file):
    with pytest.raises(TransferRefused, match="could not be made"):
        await get(make_file)


def test_file_whose_size_the_kernel_does_not_tell_is_sent_whole():
    path = Path("/proc/version")
    assert path.stat().st_size == 0
    assert asyncio.run(get(lambda: path)) == path.read_bytes()
    with path.open("rb") as file:
        assert asyncio.run(get(lambda: file)) == path.read_bytes()


async def test_empty_contents_are_empty_files(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    for content in (b"", tmp_path / "x", io.BytesIO()):
        assert await get(lambda: content) == b""  # noqa: B023


async def test_path_that_is_no_file_to_send_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, code in [("fifo", 2), (".", 2), ("missing", 1), ("x" * 300, 1), ("fifo/x", 1)]:
        with pytest.raises(TransferRefused) as refused:
            await get(lambda: tmp_path / path)  # noqa: B023
        assert refused.value.code == code, path


@pytest.mark.parametrize("error", [FileNotFoundError(2, "x"), PermissionError(13, "x"), TimeoutError("x"), OSError(5)])
async def test_error_of_a_handler_is_a_failure_with_its_traceback_whatever_it_is(error, caplog):
    async def handler(request):
        raise error

    async with Server(read=handler) as server, AsyncClient(*server.address) as client:
        with pytest.raises(TransferRefused, match="Internal error"):
            await client.get("x")
    failures = [record.exc_info[1] for record in caplog.records if record.levelno == logging.ERROR]
    assert failures  # two: a client that is told 0 asks once more without options
    assert all(failure is error for failure in failures)


@pytest.mark.parametrize(
    ("call", "content"), [("memfd_create", b"x"), ("pipe2", io.BytesIO(b"x")), ("open", Path("/x"))]
)
async def test_want_of_descriptors_is_told_as_that(call, content, monkeypatch, caplog):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    async def handler(request):
        monkeypatch.setattr(os, call, fail)
        return Response(content)

    async with Server(read=handler) as server, AsyncClient(*server.address) as client:
        with pytest.raises(TransferRefused, match="ERROR 0: Server busy"):
            await client.get("x", io.BytesIO())
        monkeypatch.undo()
    assert not [record for record in caplog.records if record.levelno == logging.ERROR]


async def test_answer_that_is_no_response_is_a_failure():
    async def handler(request):
        return Refuse if request.path == "class" else None

    async with Server(read=handler) as server, AsyncClient(*server.address) as client:
        for name in ("class", "none"):
            with pytest.raises(TransferRefused, match="Internal error"):
                await client.get(name)


@pytest.mark.parametrize("before", [b"old\n" * 50_000, b""])
async def test_text_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, before):
    """Half of one file and half of another would pass for a whole one."""
    path = tmp_path / "x"
    path.write_bytes(before)
    encode = texts.encode

    def encode_and_write(chunk):
        path.write_bytes(b"new\n" * 50_000)
        return encode(chunk)

    monkeypatch.setattr(texts, "encode", encode_and_write)
    if not before:  # read to its end before anything is there: nothing to encode
        real_stat = os.fstat

        def stat_then_write(fd):
            status = real_stat(fd)
            if not status.st_size:
                path.write_bytes(b"new\n" * 50_000)
            return status

        monkeypatch.setattr(os, "fstat", stat_then_write)
    with pytest.raises(TransferRefused, match="being changed"):
        await get(lambda: path, mode="netascii")
