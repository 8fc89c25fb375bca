"""What a newcomer hands to a Server first: it works, or says at once what to write instead."""

import asyncio
import functools
import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.server import wait_for

from snow_owl_tftp import AsyncClient, Refuse, Response, Server
from snow_owl_tftp.errors import ConfigError, RefusedError, TransferRefused
from snow_owl_tftp.library import response_bytes as contents

SOON_S = 20.0


async def fetch(read, name="x", **options):
    async with Server(read=read, **options) as server, AsyncClient(*server.address) as client:
        return await asyncio.wait_for(client.get(name), SOON_S)


def plain(request):
    return Response(f"for {request.path}")


async def coroutine(request):
    return plain(request)


class Caller:
    def __call__(self, request):
        return plain(request)


class AsyncCaller:
    async def __call__(self, request):
        return plain(request)


def two(request, greeting):
    return Response(f"{greeting} {request.path}")


@pytest.mark.parametrize(
    "read",
    [
        plain,
        coroutine,
        lambda request: coroutine(request),
        Caller(),
        AsyncCaller(),
        functools.partial(two, greeting="for"),
        functools.partial(coroutine),
        lambda request: "for x",
        lambda request: b"for x",
        lambda request: iter([b"for ", b"x"]),
    ],
)
async def test_any_function_of_one_argument_is_a_handler(read):
    assert await fetch(read) == b"for x"


async def test_generators_are_handlers():
    def chunks(request):
        yield b"for "
        yield request.path.encode()

    async def async_chunks(request):
        for chunk in chunks(request):
            yield chunk

    assert await fetch(chunks) == await fetch(async_chunks) == b"for x"


async def test_plain_handler_that_waits_holds_up_neither_the_loop_nor_the_others():
    may_go = threading.Event()

    def read(request):
        if request.path == "slow":
            assert may_go.wait(SOON_S)
        return Response(request.path)

    async with Server(read=read) as server, AsyncClient(*server.address) as client:
        slow = asyncio.ensure_future(client.get("slow"))
        assert await client.get("quick") == b"quick"
        assert not slow.done()
        may_go.set()
        assert await slow == b"slow"


async def test_plain_handlers_run_in_a_bounded_number_of_threads_of_the_servers_own(monkeypatch):
    monkeypatch.setattr(contents, "_CALLING_THREADS", 2)
    running, most, lock = 0, 0, threading.Lock()
    pair = threading.Barrier(2, timeout=SOON_S)  # so that they overlap

    def read(request):
        nonlocal running, most
        assert threading.current_thread().name.startswith("tftp-handler")
        with lock:
            running += 1
            most = max(most, running)
        pair.wait()
        with lock:
            running -= 1
        return Response(request.path)

    async with Server(read=read) as server, AsyncClient(*server.address) as client:
        names = [str(number) for number in range(12)]
        assert await asyncio.gather(*map(client.get, names)) == [name.encode() for name in names]
    assert most == 2
    await asyncio.to_thread(
        wait_for, lambda: not any(t.name.startswith("tftp-handler") for t in threading.enumerate()), "their end"
    )


async def test_plain_handler_that_hangs_is_refused_in_time():
    may_go = threading.Event()
    with pytest.raises(TransferRefused, match="busy"):
        await fetch(lambda request: may_go.wait(SOON_S), handler_timeout_s=0.05)
    may_go.set()


@pytest.mark.parametrize("error", [KeyError("secret"), StopIteration("secret"), TimeoutError("secret")])
async def test_plain_handler_that_raises_is_a_failure_with_its_traceback(error, caplog):
    def read(request):
        raise error

    with pytest.raises(TransferRefused, match="Internal error") as refused:
        await fetch(read)
    assert "secret" not in refused.value.server_text
    failure = next(record for record in caplog.records if record.levelname == "ERROR")
    assert (failure.event, failure.file) == ("a handler failed", "x")
    assert "secret" in str(failure.exc_info[1].__cause__ or failure.exc_info[1])


async def test_plain_handler_refuses():
    def read(request):
        if request.path == "raised":
            raise RefusedError(6, "raised")
        return Refuse(2, "returned")

    for name in ("raised", "returned"):
        with pytest.raises(TransferRefused, match=name):
            await fetch(read, name)


async def test_text_is_sent_as_utf_8():
    assert await fetch(lambda request: Response("grüß Gott\n")) == "grüß Gott\n".encode()


async def test_iterator_is_sent_piece_by_piece_and_closed():
    closed = []

    def chunks():
        try:
            for number in range(50):
                yield b"%d\n" % number * 1000
        finally:
            closed.append(threading.current_thread().name)

    assert await fetch(lambda request: Response(chunks())) == b"".join(b"%d\n" % n * 1000 for n in range(50))
    assert len(closed) == 1
    assert await fetch(lambda request: Response([])) == b""


@pytest.mark.parametrize("chunk", [None, "text", 5])
async def test_iterator_of_anything_but_bytes_is_never_a_whole_file(chunk):
    for content in ([b"abc", chunk], iter([b"abc", chunk])):
        with pytest.raises(TransferRefused, match="could not be made"):
            await fetch(lambda request: Response(content))  # noqa: B023


async def test_iterator_that_fails_is_never_a_whole_file():
    def chunks():
        yield b"abc"
        raise ValueError("no more")

    with pytest.raises(TransferRefused, match="could not be made"):
        await fetch(lambda request: Response(chunks()))


async def a_coroutine():
    """Called without await."""


@pytest.mark.parametrize(
    ("content", "instead"),
    [
        (None, "give bytes, a str, a Path"),
        (5, "give bytes"),
        ({"a": b"b"}, "give bytes"),
        (io.StringIO("text"), r'open\(path, "rb"\)'),
        (Path, "give bytes"),
    ],
)
def test_response_says_at_once_what_it_cannot_hold(content, instead):
    with pytest.raises(TypeError, match=instead):
        Response(content)


def test_response_of_a_coroutine_says_that_it_must_be_awaited():
    coroutine = a_coroutine()
    with pytest.raises(TypeError, match="await it first"):
        Response(coroutine)
    coroutine.close()


# ---- arguments of Server


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", ("127.0.0.1", 0), ["::1", 0]])
async def test_address_is_one_text_or_a_pair(bind):
    async with Server(bind=bind, read=plain) as server, AsyncClient(*server.address) as client:
        assert await client.get("x") == b"for x"


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost:0", ("localhost", 0), 6969, ("127.0.0.1", 0, 0), None])
def test_address_that_is_none_is_refused_with_what_to_write(bind):
    with pytest.raises(ConfigError, match=r"ADDR:PORT|numeric address"):
        Server(bind=bind, read=plain)


@pytest.mark.parametrize("name", ["read", "write", "on_complete"])
def test_function_that_takes_no_request_is_refused_at_once(name):
    for function in (lambda: None, lambda a, b: None):
        with pytest.raises(TypeError, match=f"{name} is called with one argument"):
            Server(**{"read": plain, name: function})
    for value in (5, b"x", "x", {}):
        with pytest.raises(TypeError, match=f"{name} must be a function"):
            Server(**{"read": plain, name: value})
    with pytest.raises(TypeError, match=f"{name}=a_coroutine"):
        Server(**{"read": plain, name: a_coroutine()})


def test_server_without_any_content_says_what_it_needs():
    with pytest.raises(TypeError, match=r"read=.*root="):
        Server()


@pytest.mark.parametrize(
    ("name", "value"), [("handler_timeout_s", 0), ("handler_timeout_s", -1), ("max_upload_bytes", 0)]
)
def test_number_out_of_its_range_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Server(read=plain, **{name: value})


def test_program_ends_although_a_handler_hangs():
    code = (
        "import threading; from snow_owl_tftp import Server, get\n"
        "from snow_owl_tftp.errors import TransferRefused\n"
        "with Server(read=lambda request: threading.Event().wait(), handler_timeout_s=0.05) as server:\n"
        "    try: get(server.url('x'))\n"
        "    except TransferRefused as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True)
    assert "busy" in done.stdout
