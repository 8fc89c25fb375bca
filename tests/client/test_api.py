"""The two faces over one core: targets, sources, progress, cancelling, threads, many at once."""

import asyncio
import io
import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from tests.support.fake_server import Talk, fake_server, refuse_options
from tests.support.server import serve_in_thread
from tests.support.uploads import serve_uploads

from snow_owl_tftp import AsyncClient, Client, Refuse, Response, Server, get
from snow_owl_tftp.client import calls
from snow_owl_tftp.client.address import ServerAddress, resolve
from snow_owl_tftp.errors import ConfigError, TransferAborted, TransferDiskFull, TransferRefused

CONTENT = os.urandom(300_001)
TEXT = b"one\ntwo\rthree\r\n" * 3000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    (root / "text").write_bytes(TEXT)
    (root / "empty").write_bytes(b"")
    return root


@pytest.fixture
def server(root: Path):
    with serve_uploads(root, allowed_patterns=("*",)) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(*server.address) as client:
        yield client


# --- where it goes, what it sends


def test_bytes(client):
    assert client.get("file") == CONTENT
    assert client.get("empty") == b""


def test_result_tells_what_was_granted(client, tmp_path):
    result = client.get("file", tmp_path / "x")
    assert result.payload_bytes == len(CONTENT)
    assert result.tsize == len(CONTENT)
    assert result.options["blksize"] == str(result.blksize)
    assert result.seconds > 0


def test_path_appears_with_the_umask_and_no_leftovers(client, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    client.get("file", folder / "x")
    assert (folder / "x").read_bytes() == CONTENT
    umask = os.umask(0)
    os.umask(umask)
    assert (folder / "x").stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(folder.iterdir()) == [folder / "x"]


def test_existing_file_keeps_its_mode_and_a_link_stays_a_link(client, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    client.get("file", link)
    assert link.is_symlink()
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o640


def test_device_is_written_to_and_never_replaced(client):
    client.get("file", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_file_object(client):
    file = io.BytesIO()
    client.get("file", file)
    assert file.getvalue() == CONTENT


def test_pipe(client, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    client.get("file", fifo)
    reader.join()
    assert read == [CONTENT]


def test_file_object_that_raises_fails_its_own_transfer_only(client):
    class Broken(io.BytesIO):
        def write(self, data):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        client.get("file", Broken())
    assert client.get("file") == CONTENT


def test_full_disk_leaves_nothing(client):
    with pytest.raises(TransferDiskFull):
        client.get("file", "/dev/full")


def test_directory_is_no_target(client, tmp_path):
    for folder in (tmp_path, f"{tmp_path}/", f"{tmp_path}/absent/"):
        with pytest.raises(IsADirectoryError):
            client.get("file", folder)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_netascii_is_decoded(server, tmp_path, kind):
    with Client(*server.address, mode="netascii") as client:
        to = {"bytes": None, "path": tmp_path / "x", "file": io.BytesIO()}[kind]
        got = client.get("text", to) if to is not None else client.get("text")
    if isinstance(to, io.BytesIO):
        got = to.getvalue()
    elif to is not None:
        got = to.read_bytes()
    assert got == TEXT


@pytest.mark.parametrize("mode", ["octet", "netascii"])
@pytest.mark.parametrize("kind", ["bytes", "path", "file", "half", "pipe"])
def test_put_and_back(server, root, tmp_path, kind, mode):
    (tmp_path / "source").write_bytes(TEXT)
    with Client(*server.address, mode=mode) as client, (tmp_path / "source").open("rb") as file:
        content = {"bytes": TEXT, "path": tmp_path / "source", "file": file, "half": file, "pipe": io.BytesIO(TEXT)}[
            kind
        ]
        if kind == "half":
            file.seek(4)
        client.put("up", content)
        expected = TEXT[4:] if kind == "half" else TEXT
        assert client.get("up") == expected


# --- progress and cancelling


def test_progress_is_told_and_ends_at_the_size(client):
    told = []
    client.get("file", progress=lambda done, size: told.append((done, size)))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_progress_that_raises_ends_its_transfer():
    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        talk.hear_error()

    def progress(done, size):
        if done:  # nothing has arrived before the ACK that the script waits for
            raise RuntimeError("enough")

    with fake_server(refuse_options(script)) as server, pytest.raises(RuntimeError, match="enough"):
        get(server.url("x"), progress=progress)


async def test_timeout_cancels_tells_the_server_and_leaves_nothing(tmp_path):
    heard = []

    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        heard.append(talk.hear_error())

    with fake_server(script) as server:
        async with AsyncClient() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.get(server.url("x"), tmp_path / "x")
            assert list(tmp_path.iterdir()) == []
        await asyncio.to_thread(lambda: None)
    assert heard == [0]


async def test_cancelling_before_any_answer_leaves_nothing(tmp_path):
    with fake_server(lambda talk: None) as server:
        async with AsyncClient() as client:
            task = asyncio.ensure_future(client.get(server.url("x"), tmp_path / "x"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert list(tmp_path.iterdir()) == []


def test_closing_ends_what_is_under_way(tmp_path):
    with fake_server(lambda talk: None) as server:
        client = Client()
        errors = []

        def run() -> None:
            try:
                client.get(server.url("x"), tmp_path / "x")
            except TransferAborted as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while not server.requests:
            pass
        client.close()
        thread.join(5)
        assert len(errors) == 1
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ValueError, match="closed"):
            client.get(server.url("x"))


# --- many


async def test_a_thousand_at_once(server):
    async with AsyncClient(*server.address, blksize=1428) as client:
        got = await asyncio.gather(*[client.get("file") for _ in range(1000)])
        assert all(data == CONTENT for data in got)
        counters = client.counters()
    calls = sum(counters[name] for name in ("epoll_wait_calls", "recvmmsg_calls", "sendmmsg_calls"))
    assert calls * 10 <= 2 * counters["blocks_received"]


async def test_waiting_turns_all_come(server):
    async with AsyncClient(*server.address, max_transfers=3) as client:
        assert all(data == CONTENT for data in await asyncio.gather(*[client.get("file") for _ in range(50)]))


def test_threads_share_a_client(client):
    got = []
    threads = [threading.Thread(target=lambda: got.append(client.get("file"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [CONTENT] * 8


async def test_several_clients_and_servers_in_one_process():
    async def handler(request):
        return Response(request.path.encode()) if request.path != "no" else Refuse()

    async with Server(read=handler) as one, Server(read=handler) as two, AsyncClient() as a, AsyncClient() as b:
        assert await asyncio.gather(a.get(one.url("x")), b.get(one.url("y")), a.get(two.url("z"))) == [b"x", b"y", b"z"]
        with pytest.raises(TransferRefused):
            await a.get(two.url("no"))


def test_ipv6(root):
    with serve_in_thread(root, {"bind_addr": "[::1]:0"}) as server:
        assert get(f"tftp://[::1]:{server.address[1]}/file") == CONTENT


def test_zone_becomes_the_scope_of_the_address():
    (address,) = resolve("fe80::1%lo", 69)
    assert address.packed[-4:] == socket.if_nametoindex("lo").to_bytes(4, sys.byteorder)
    assert len(address.packed) == 28


def test_next_address_is_asked_when_the_first_is_silent(server, monkeypatch):
    host, port = server.address
    silent = ServerAddress(socket.AF_INET, ("127.0.0.9", port))
    monkeypatch.setattr(calls, "resolve", lambda *_: [silent, ServerAddress(socket.AF_INET, (host, port))])
    assert get("tftp://both/file", timeout=0.1, retries=1) == CONTENT


def test_port_range_and_bind_are_kept():
    with fake_server(lambda talk: talk.data(1, str(talk.peer).encode())) as server:
        got = get(server.url("x"), port_range=(41000, 41003), bind="127.0.0.5")
    assert got.decode().startswith("('127.0.0.5', 4100")


@pytest.mark.parametrize(
    "settings",
    [
        {"blksize": 7},
        {"windowsize": 0},
        {"timeout": 0},
        {"retries": -1},
        {"mode": "mail"},
        {"port_range": (5, 4)},
        {"max_size_bytes": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        Client(**settings)


def test_name_without_a_host_is_an_error():
    with Client() as client, pytest.raises(ValueError, match="has no host"):
        client.get("file")


def test_name_too_long_for_a_packet_is_an_error(client):
    with pytest.raises(ValueError, match="exceeds 512"):
        client.get("x" * 600)


def test_unclosed_client_warns(server):
    client = Client(*server.address)
    client.get("empty")
    with pytest.warns(ResourceWarning, match="was not closed"):
        del client
