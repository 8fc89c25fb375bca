"""A server whose answers are a coroutine of the caller's."""

import asyncio
import io
import os
import threading
from pathlib import Path

import msgspec
import pytest
from tests.support.client import Client as RawClient

from snow_owl_tftp import AsyncClient, ReadRequest, Refuse, Response, Server
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError, EngineError, RefusedError, TransferRefused

CONTENT = os.urandom(200_000)


def answering(content):
    async def handler(request: ReadRequest) -> Response | Refuse:
        return content if isinstance(content, Refuse) else Response(content)

    return handler


async def fetch(handler, name="x", *, handler_timeout_s=10.0, **settings):
    async with Server(read=handler, handler_timeout_s=handler_timeout_s) as server, AsyncClient(**settings) as client:
        return await client.get(server.url(name))


async def chunks(count, size=10_000):
    for i in range(count):
        yield bytes([i % 256]) * size


async def test_bytes_path_and_file_object(tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    for content in (CONTENT, tmp_path / "x", io.BytesIO(CONTENT), [CONTENT[:7], CONTENT[7:]]):
        assert await fetch(answering(content)) == CONTENT


@pytest.mark.parametrize("settings", [{}, {"blksize": 1428}, {"blksize": 512, "windowsize": 1}, {"blksize": 10_000}])
@pytest.mark.parametrize("count", [0, 1, 37])
async def test_stream_of_unknown_length(settings, count):
    file = io.BytesIO()
    async with Server(read=lambda request: respond(count)) as server, AsyncClient(**settings) as client:
        result = await client.get(server.url("x"), file)
    assert file.getvalue() == b"".join([chunk async for chunk in chunks(count)])
    assert result.tsize is None


async def respond(count):
    return Response(chunks(count))


async def test_request_says_who_asks_for_what():
    seen = []

    async def handler(request):
        seen.append(request)
        return Response(b"")

    await fetch(handler, "boot/../x", windowsize=7)
    assert (seen[0].path, seen[0].raw_name) == ("x", b"boot/../x")
    assert seen[0].client == "127.0.0.1"
    assert seen[0].options["windowsize"] == "7"
    assert seen[0].mode == "octet"


@pytest.mark.parametrize(
    ("sent", "path"), [("x\udcff", "x"), ("x\udcff\x06junk", "x"), ("x\r\n", "x"), ("caf\udce9", "caf\udce9")]
)
async def test_handler_is_spared_what_firmware_hangs_behind_a_name(sent, path):
    seen = []

    async def handler(request):
        seen.append(request.path)
        return Response(b"content")

    async with Server(read=handler) as server:
        loop = asyncio.get_running_loop()
        with RawClient(server.address) as client:
            assert (await loop.run_in_executor(None, client.get, sent)).payload == b"content"
    assert seen == [path]


async def test_netascii_is_converted():
    text = b"one\ntwo\r"
    for content in (text, io.BytesIO(text)):
        assert await fetch(answering(content), mode="netascii") == text


async def test_refusals_reach_the_client():
    with pytest.raises(TransferRefused) as refused:
        await fetch(answering(Refuse(2, "not you")))
    assert (refused.value.code, refused.value.server_text) == (2, "not you")

    async def handler(request):
        raise RefusedError(6, "exists")

    with pytest.raises(TransferRefused, match="ERROR 6: exists"):
        await fetch(handler)
    with pytest.raises(TransferRefused, match="ERROR 1: File not found"):
        await fetch(answering(Path("/does/not/exist")))


@pytest.mark.parametrize("code", [-1, 9, 65536, "1", None, 1.5])
def test_refusal_with_a_code_that_is_none_is_an_error(code):
    with pytest.raises(ValueError, match=r"must be 0\.\.8"):
        Refuse(code, "text")


@pytest.mark.parametrize("is_raised", [False, True])
async def test_text_of_a_refusal_is_cut_so_that_it_arrives(is_raised):
    async def handler(request):
        if is_raised:
            raise RefusedError(2, "x" * 5000)
        return Refuse(2, "x" * 5000)

    with pytest.raises(TransferRefused) as refused:
        await fetch(handler, timeout=0.5, retries=1)
    assert (refused.value.code, refused.value.server_text) == (2, "x" * 250)


async def test_handler_that_awaits_what_was_cancelled_is_answered():
    async def handler(request):
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    with pytest.raises(TransferRefused, match="Internal error"):
        await fetch(handler, timeout=0.5, retries=1)


async def test_handler_that_raises_ends_its_own_request_only():
    async def handler(request):
        if request.path == "bad":
            raise KeyError("bad")
        return Response(CONTENT)

    async with Server(read=handler) as server, AsyncClient(*server.address) as client:
        good, bad = await asyncio.gather(client.get("good"), client.get("bad"), return_exceptions=True)
        assert good == CONTENT
        assert isinstance(bad, TransferRefused)
        assert "bad" not in bad.server_text


async def test_handler_that_hangs_is_refused_in_time():
    async def handler(request):
        await asyncio.sleep(60)

    with pytest.raises(TransferRefused, match="busy"):
        await fetch(handler, handler_timeout_s=0.05)


@pytest.mark.parametrize("ending", ["raises", "hangs"])
async def test_stream_that_fails_is_never_a_whole_file(ending):
    closed = []

    async def failing():
        try:
            yield CONTENT
            if ending == "hangs":
                await asyncio.sleep(60)
            raise ValueError("no more")
        finally:
            closed.append(True)

    with pytest.raises(TransferRefused, match="could not be made"):
        await fetch(answering(failing()), handler_timeout_s=0.2)
    assert closed == [True]


async def test_stream_waits_for_a_slow_client():
    """The generator is never further ahead than a pipe (64 KiB), a window and what the client has."""
    made = 0

    async def endless():
        nonlocal made
        while True:
            made += 1
            yield bytes(65536)

    enough = asyncio.Event()
    taken = 0

    def progress(done_bytes, _):
        nonlocal taken
        taken = done_bytes
        if taken > 200_000:
            enough.set()

    async with Server(read=answering(endless())) as server, AsyncClient(blksize=512, windowsize=1) as client:
        task = asyncio.ensure_future(client.get(server.url("x"), "/dev/null", progress=progress))
        await asyncio.wait_for(enough.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert made * 65536 <= seen_bytes(taken)


def seen_bytes(taken):
    """What the client had at the last report, and a tenth of a second of the fastest lock-step."""
    return taken + 8_000_000


NAMES = ["a;b", "100%41", "a b", "a?b#c", "ä/ö", "boot/x", "a;mode=netascii", "..x", "a\u3000b", "[x]"]


@pytest.mark.parametrize("name", NAMES)
async def test_url_of_any_name_asks_for_that_name(name):
    async def echo(request):
        return Response(request.path.encode())

    assert await fetch(echo, name) == name.encode()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "::1"])
async def test_url_leads_to_this_server_wherever_it_listens(host):
    async with Server(bind=(host, 0), read=answering(b"here")) as server, AsyncClient() as client:
        assert await client.get(server.url("x")) == b"here"


async def test_server_that_runs_cannot_be_started():
    async with Server(read=answering(b"here")) as server, AsyncClient() as client:
        address = server.address
        with pytest.raises(RuntimeError, match="runs already"):
            await server.start()
        assert server.address == address
        assert await client.get(server.url("x")) == b"here"


async def test_server_may_be_started_anew_after_its_end(tmp_path):
    (tmp_path / "x").write_bytes(b"here")
    server = Server(read=answering(tmp_path / "x"))
    for _ in range(2):
        async with server, AsyncClient() as client:
            assert await client.get(server.url("x")) == b"here"


def test_server_that_was_not_started_has_no_address():
    server = Server(read=answering(b""))
    for ask in (lambda: server.address, lambda: server.url("x")):
        with pytest.raises(RuntimeError, match="started"):
            ask()


def test_host_to_bind_is_a_number():
    with pytest.raises(ConfigError, match="numeric address"):
        Server(bind=("localhost", 0), read=answering(b""))


HONOURED = ("workers", "single_port", "tid_", "logging.level", "options.", "limits.", "retransmit.", "performance.")


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize(("key", "value"), [*leaves(msgspec.to_builtins(Settings()))])
def test_every_setting_has_an_effect_or_is_refused(key, value):
    if key.startswith(HONOURED) and not key.endswith("enable_flows"):
        Server(read=answering(b""), settings={key: value})
    else:
        with pytest.raises(ConfigError, match=f"^Server: {key}: has no effect here; "):
            Server(read=answering(b""), settings={key: value})


def test_setting_in_a_table_is_refused_too():
    with pytest.raises(ConfigError, match=r"write_config\.enabled: has no effect"):
        Server(read=answering(b""), settings={"workers": 1, "write_config": {"enabled": True}})


async def test_uploads_are_refused():
    async with Server(read=answering(b"")) as server, AsyncClient(*server.address) as client:
        with pytest.raises(TransferRefused) as refused:
            await client.put("x", b"y")
    assert refused.value.code == 2


def test_fixture_serves_a_dictionary(tftp_server):
    from snow_owl_tftp import get

    for name in ("x", *NAMES):
        tftp_server.files[name] = name.encode()
        assert get(tftp_server.url(name)) == name.encode()
    assert [request.path for request in tftp_server.requests] == ["x", *NAMES]


async def test_answer_that_depends_on_the_client_is_never_anothers():
    async def handler(request):
        return Response(f"for {request.client}".encode())

    hosts = ["127.0.0.1", "127.0.0.2"]
    async with Server(read=handler) as server:
        for host in hosts * 3:
            async with AsyncClient(bind=host) as client:
                assert await client.get(server.url("same")) == f"for {host}".encode()
        counters = server.counters()
    assert counters["flow_hits"] == 0
    assert counters["flow_misses"] == 6


@pytest.mark.parametrize("read", [lambda request: Response(request.path), answering("x")])
def test_program_without_a_loop_serves_from_a_thread(read):
    from snow_owl_tftp import get

    for _ in range(2):
        with Server(read=read) as server:
            assert get(server.url("x")) == b"x"
            assert threads_of_servers()
        assert not threads_of_servers()


def threads_of_servers():
    return [thread.name for thread in threading.enumerate() if thread.name == "tftp-server"]


def test_thread_of_a_server_that_cannot_start_ends():
    with Server(read=answering(b"")) as server, pytest.raises(EngineError, match="in use"):  # noqa: SIM117
        with Server(bind=server.address, read=answering(b"")):
            pass
    assert not threads_of_servers()


async def test_server_says_where_it_is():
    server = Server(read=answering(b""))
    assert repr(server) == "<Server that was not started>"
    async with server:
        assert repr(server) == f"<Server 127.0.0.1:{server.address[1]}>"


async def test_handler_that_returns_nothing_is_told_what_to_return(caplog):
    with pytest.raises(TransferRefused, match="Internal error"):
        await fetch(lambda request: None)
    (failure, *_) = (record for record in caplog.records if record.event == "a handler failed")
    assert "return a Response" in str(failure.exc_info[1])
