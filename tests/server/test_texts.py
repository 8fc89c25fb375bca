"""netascii of files too large for a copy: right, never mixed, and converted for those only who take it."""

import asyncio
import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.descriptors import open_descriptors, settled_descriptors
from tests.support.server import ServerThread, serve_in_thread, wait_for

from snow_owl_tftp import AsyncClient, Response, Server
from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.source import LATER
from snow_owl_tftp.content.text import PIECE_BYTES, Text
from snow_owl_tftp.content.translate import MAX_COPIED_BYTES
from snow_owl_tftp.errors import TransferRefused
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.packets import Data, Error, Oack, build_ack, build_error
from snow_owl_tftp.server import slow_opens, texts

LARGE = MAX_COPIED_BYTES + 1
DEADLINE_S = 20
UNHURRIED = {
    "retransmit.initial_ms": 3000,
    "retransmit.half_open_give_up_s": 100,
    "retransmit.half_open_max_datagrams": 64,
}
"""Nobody is repeated to, or given up, because a busy machine takes long."""
LONG_AGO_NS = 1_000_000_000_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was asked of texts, piece by piece."""
    pieces = list[int]()
    read = Text.read

    def count(self: Text, size_bytes: int = PIECE_BYTES) -> bytes:
        pieces.append(size_bytes)
        return read(self, size_bytes)

    monkeypatch.setattr(Text, "read", count)
    return pieces


def write_text(path: Path, size: int, rng: random.Random, letters: bytes = b"abc\r\n") -> bytes:
    text = bytes(rng.choices(letters, k=size))
    path.write_bytes(text)
    return text


def made(served: ServerThread) -> texts.Texts:
    """What makes the server's texts."""
    return served.server._decider.texts  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("options", [{}, {"blksize": 1428, "windowsize": 16}, {"blksize": 65464, "windowsize": 64}])
@pytest.mark.parametrize("size", [MAX_COPIED_BYTES, LARGE, LARGE + 2 * mmap.PAGESIZE, 5 * PIECE_BYTES + 77])
def test_large_text_is_sent_as_netascii(root: Path, rng: random.Random, size: int, options: dict[str, int]) -> None:
    text = write_text(root / "text", size, rng)
    with serve_in_thread(root) as served, Client(served.address) as client:
        assert client.get("text", "netascii", options).payload == netascii.encode(text)


@pytest.mark.parametrize("letters", [b"\n", b"\r", b"x"])
def test_text_of_one_letter_ends_where_a_block_does(root: Path, rng: random.Random, letters: bytes) -> None:
    write_text(root / "text", 2 * MAX_COPIED_BYTES, rng, letters)
    with serve_in_thread(root) as served, Client(served.address) as client:
        got = client.get("text", "netascii", {"blksize": 1024})
    assert got.payload == netascii.encode(letters * (2 * MAX_COPIED_BYTES))


def test_size_of_a_large_text_is_not_told(root: Path, rng: random.Random) -> None:
    """That of a small one is; both as RFC 2349 has it."""
    write_text(root / "large", LARGE, rng)
    small = write_text(root / "small", MAX_COPIED_BYTES, rng)
    with serve_in_thread(root) as served, Client(served.address) as client:
        assert client.get("large", "netascii", {"tsize": 0, "blksize": 1400}).oack == {"blksize": "1400"}
        told = client.get("small", "netascii", {"tsize": 0}).oack
    assert told == {"tsize": str(len(netascii.encode(small)))}


def test_request_that_nobody_follows_costs_two_pages_of_text(
    root: Path, rng: random.Random, read_bytes: list[int]
) -> None:
    """With options and without; also where every letter becomes two."""
    for name in "ab":
        write_text(root / name, 20 * MAX_COPIED_BYTES, rng, b"\n")
    with serve_in_thread(root) as served, ExitStack() as clients:
        for number in range(20):
            client = clients.enter_context(Client(served.address))
            client.request("ab"[number % 2], "netascii", {} if number % 4 < 2 else {"blksize": 8192, "windowsize": 64})
            client.receive()
        # They wait for the pipe now, or never: who is served whole takes a turn behind all of them.
        with Client(served.address) as last:
            assert last.get("a", "netascii", {"blksize": 8192, "windowsize": 8}).payload[:2] == b"\r\n"
        assert read_bytes.count(2 * mmap.PAGESIZE) == 21
        assert len(read_bytes) - 21 == 20 * MAX_COPIED_BYTES // PIECE_BYTES + 1  # those of the last


def ask(clients: ExitStack, served: ServerThread, source: str = "") -> Client:
    """Ask for the text and hear the OACK."""
    client = clients.enter_context(Client(served.address, source=source))
    client.request("text", "netascii", {"blksize": 8192, "windowsize": 8})
    assert isinstance(client.receive_packet()[0], Oack)
    return client


def follow(client: Client) -> None:
    """Acknowledge the OACK, and hear a block."""
    client.send(build_ack(0), client.last_sender)
    assert isinstance(client.receive_packet()[0], Data)


def test_who_has_answered_nothing_gives_way_to_newcomers(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_text(root / "text", 20 * MAX_COPIED_BYTES, rng)
    monkeypatch.setattr(texts, "_MAX_STREAMS", 8)
    with serve_in_thread(root, UNHURRIED) as served, ExitStack() as clients:
        before = settled_descriptors()
        answered = ask(clients, served, "127.0.1.1")
        follow(answered)
        wait_for(lambda: True in made(served)._streams.values(), "the first one to be known as answered")
        for number in range(40):
            ask(clients, served, f"127.0.2.{number + 1}")
        assert made(served).gave_way_total == 33
        wait_for(lambda: open_descriptors() <= before + 41 + 3 * 8, "the others to be closed")
        with Client(served.address) as good:
            assert good.get("text", "netascii", {"blksize": 8192, "windowsize": 8}).payload == netascii.encode(text)
        # Who had answered still has his place: his window is repeated, and goes on.
        follow(answered)
    assert "Server busy, try again" in served.log


def test_newcomer_is_refused_where_all_have_answered(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(root / "text", 20 * MAX_COPIED_BYTES, rng)
    monkeypatch.setattr(texts, "_MAX_STREAMS", 4)
    monkeypatch.setattr(texts, "_STOPPED_S", 1000.0)
    with serve_in_thread(root, {**UNHURRIED, "logging.level": "error"}) as served, ExitStack() as clients:
        all_of_them = [ask(clients, served, f"127.0.1.{number + 1}") for number in range(4)]
        for client in all_of_them:
            follow(client)
        streams = made(served)._streams
        wait_for(lambda: list(streams.values()) == [True] * 4, "all to be known as answered")
        with Client(served.address, source="127.0.2.1") as late:
            with pytest.raises(Refused, match="busy"):
                late.get("text", "netascii")
            assert made(served).refused_total == 1
            all_of_them[0].send(build_error(0, "enough"), all_of_them[0].last_sender)
            wait_for(lambda: len(streams) == 3, "a place")
            late.get("text", "netascii", {"blksize": 8192, "windowsize": 8})
            late.get("text", "netascii", {"blksize": 8192, "windowsize": 8})
        wait_for(lambda: len(streams) == 3, "the last to leave, of whose success nobody hears")


def test_who_has_stopped_for_long_gives_way_although_he_answered_once(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else four clients that ask for `timeout=255` and say nothing more hold all places for a quarter of an hour."""
    text = write_text(root / "text", 20 * MAX_COPIED_BYTES, rng)
    monkeypatch.setattr(texts, "_MAX_STREAMS", 4)
    monkeypatch.setattr(texts, "_STOPPED_S", 0.5)
    with serve_in_thread(root, UNHURRIED) as served, ExitStack() as clients:
        streams = made(served)._streams
        stopped = [ask(clients, served, f"127.0.1.{number + 1}") for number in range(4)]
        for number, client in enumerate(stopped):
            follow(client)
            wait_for(lambda: list(streams.values()).count(True) == number + 1, "it to be known as answered")  # noqa: B023

        def is_served() -> bool:
            with Client(served.address) as late:
                try:
                    got = late.get("text", "netascii", {"blksize": 8192, "windowsize": 8})
                except Refused:
                    return False
            return got.payload == netascii.encode(text)

        wait_for(is_served, "a place")
        assert made(served).gave_way_total == 1
        packet, _ = stopped[0].receive_packet()
        while isinstance(packet, Data):
            packet, _ = stopped[0].receive_packet()
        assert isinstance(packet, Error)


def test_one_client_has_a_fourth_of_the_places(root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(root / "text", 20 * MAX_COPIED_BYTES, rng)
    monkeypatch.setattr(texts, "_MAX_STREAMS", 8)
    with serve_in_thread(root, UNHURRIED) as served, ExitStack() as clients:
        others = [ask(clients, served, "127.0.1.1"), ask(clients, served, "127.0.1.2")]
        for _ in range(10):
            ask(clients, served, "127.0.1.3")
        assert served.server._decider.turned_away()["streams_gave_way"] == 8  # type: ignore[attr-defined]
        for other in others:
            follow(other)
        assert len(made(served)._streams) == 4


@pytest.mark.parametrize("change", ["grown", "cut", "rewritten, time put back", "replaced", "chmod and link"])
@pytest.mark.parametrize("kind", ["serve", "library"])
def test_text_that_changes_while_it_is_sent_never_counts_as_delivered(
    root: Path, rng: random.Random, kind: str, change: str
) -> None:
    """But for one that is replaced by rename, or that gets a link or other permissions: it is sent to its end."""
    path = root / "text"
    text = write_text(path, 8 * MAX_COPIED_BYTES, rng)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))

    def on_block(index: int) -> None:
        if index != 40:
            return
        if change == "replaced":
            (root / "new").write_bytes(b"new")
            (root / "new").rename(path)
        elif change == "chmod and link":
            path.chmod(0o444)
            (root / "link").hardlink_to(path)
        elif change == "cut":
            os.truncate(path, 1000)
        else:
            with path.open("r+b") as file:
                file.seek(0 if change == "grown" else 7 * MAX_COPIED_BYTES, os.SEEK_END if change == "grown" else 0)
                file.write(b"new" * 1000)
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))

    with ExitStack() as running:
        server = Server(root=root) if kind == "library" else None
        address = running.enter_context(server or serve_in_thread(root)).address  # type: ignore[attr-defined]
        client = running.enter_context(Client(address))
        if change in ("replaced", "chmod and link"):
            got = client.get("text", "netascii", {"blksize": 1428}, on_block=on_block)
            assert got.payload == netascii.encode(text)
        else:
            with pytest.raises(Refused, match="being changed"):
                client.get("text", "netascii", {"blksize": 1428}, on_block=on_block)


def test_text_that_cannot_be_read_is_told_as_that(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(root / "text", LARGE, rng)
    before = settled_descriptors()

    def fail(*_: object) -> bytes:
        raise OSError(5, "disk")

    with serve_in_thread(root) as served, Client(served.address) as client:
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(Refused, match="I/O error"):
            client.get("text", "netascii")
        monkeypatch.undo()
    wait_for(lambda: open_descriptors() == before, "all to be closed")


@pytest.mark.parametrize("call", ["pipe2", "memfd_create"])
def test_shortage_of_descriptors_is_told_as_busy(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_text(root / "text", LARGE if call == "pipe2" else 100, rng)
    before = settled_descriptors()

    def fail(*_: object) -> None:
        raise OSError(24, "short")

    with serve_in_thread(root) as served, Client(served.address) as client:
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(Refused, match="busy"):
            client.get("text", "netascii")
        monkeypatch.undo()
        assert client.get("text", "netascii", {"blksize": 1428}).payload
    wait_for(lambda: open_descriptors() == before, "all to be closed")


def test_read_that_hangs_ends_its_transfer_and_closes_its_file_when_it_returns(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    write_text(root / "text", LARGE, rng)
    monkeypatch.setattr(texts, "_READ_S", 0.1)
    pread, read_by, before = os.pread, list[int](), settled_descriptors()

    def hang(fd: int, size: int, offset: int) -> bytes:
        release.wait(DEADLINE_S)
        read_by.append(os.fstat(fd).st_ino)  # still the file's, not somebody else's
        return pread(fd, size, offset)

    with serve_in_thread(root) as served, Client(served.address) as client:
        monkeypatch.setattr(os, "pread", hang)
        with pytest.raises(Refused, match="busy"):
            client.get("text", "netascii")
        release.set()
        wait_for(lambda: read_by, "the read to return")
        monkeypatch.undo()
    assert read_by == [(root / "text").stat().st_ino]
    wait_for(lambda: open_descriptors() == before, "all to be closed")


def test_texts_that_hang_or_take_long_keep_no_other_name_waiting(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    """Not even a cold one: netascii is opened and converted by threads of its own."""
    write_text(root / "small", 1000, rng)
    write_text(root / "large", LARGE, rng)
    (root / "cold").write_bytes(b"cold")
    read = Text.read

    def hang(self: Text, size_bytes: int = PIECE_BYTES) -> bytes:
        release.wait(DEADLINE_S)
        return read(self, size_bytes)

    monkeypatch.setattr(Text, "read", hang)
    monkeypatch.setattr(FileTree, "open_now", lambda self, named: LATER)
    with serve_in_thread(root) as served, ExitStack() as clients, Client(served.address) as client:
        for number in range(100):
            stuck = clients.enter_context(Client(served.address))
            stuck.request(("small", "large")[number % 2], "netascii")
        for _ in range(5):
            assert client.get("cold").payload == b"cold"
        release.set()


def test_too_many_that_wait_to_be_converted_are_refused(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    write_text(root / "text", 1000, rng)
    read = Text.read

    def hang(self: Text, size_bytes: int = PIECE_BYTES) -> bytes:
        release.wait(DEADLINE_S)
        return read(self, size_bytes)

    monkeypatch.setattr(Text, "read", hang)
    monkeypatch.setattr(slow_opens, "OPEN_PATIENCE_S", 10 * DEADLINE_S)  # nobody is refused for the test's own slowness
    with serve_in_thread(root) as served, ExitStack() as clients, Client(served.address) as late:
        opens = served.server._decider.slow_texts  # type: ignore[attr-defined]
        waiting = [clients.enter_context(Client(served.address)) for _ in range(128)]
        for number, client in enumerate(waiting):
            client.request("text", "netascii")
            # One by one: what a busy machine decides late it decides newest first, and drops at last.
            wait_for(lambda: opens._waiting_total == number + 1, "it to wait")  # noqa: B023
        with pytest.raises(Refused, match="busy"):
            late.get("text", "netascii")
        assert opens.busy_total == 1
        release.set()
        assert all(isinstance(client.receive_packet()[0], Data) for client in waiting)


@pytest.mark.parametrize("size", [1000, LARGE])
def test_conversion_is_the_engines_which_holds_no_gil(
    root: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Of copies and of streams; or the event loop waits for a piece, and where all are line ends for milliseconds."""
    text = write_text(root / "text", size, rng)

    def never(chunk: bytes) -> bytes:
        raise AssertionError("the conversion that holds the GIL")

    with monkeypatch.context() as patch, serve_in_thread(root) as served, Client(served.address) as client:
        patch.setattr(netascii, "encode", never)
        got = client.get("text", "netascii").payload
    assert got == netascii.encode(text)


@pytest.mark.parametrize("acknowledged", [False, True])
def test_stop_leaves_no_descriptor(root: Path, rng: random.Random, acknowledged: bool) -> None:
    write_text(root / "text", 20 * MAX_COPIED_BYTES, rng)
    before = settled_descriptors()
    with serve_in_thread(root) as served, ExitStack() as clients:
        for _ in range(5):
            client = ask(clients, served)
            if acknowledged:
                follow(client)
    wait_for(lambda: open_descriptors() == before, "all to be closed")


# ---- the library


async def library_get(make_content: Callable[[], Any], **options: Any) -> bytes:
    async def handler(request: Any) -> Response:
        return Response(make_content())

    async with Server(read=handler, **options) as server, AsyncClient(*server.address, mode="netascii") as client:
        return await asyncio.wait_for(client.get("x"), DEADLINE_S)


@pytest.mark.parametrize("size", [0, 1, MAX_COPIED_BYTES, LARGE, 8 * MAX_COPIED_BYTES])
async def test_library_sends_a_path_as_netascii(root: Path, rng: random.Random, size: int) -> None:
    text = write_text(root / "text", size, rng)
    assert await library_get(lambda: root / "text") == text


async def test_library_converts_large_texts_for_those_only_who_take_them(
    root: Path, rng: random.Random, read_bytes: list[int]
) -> None:
    write_text(root / "text", 20 * MAX_COPIED_BYTES, rng)
    async with Server(root=root) as server:
        with ExitStack() as clients:
            for _ in range(10):
                client = clients.enter_context(Client(server.address))
                client.request("text", "netascii", {"blksize": 1428})
                await asyncio.to_thread(client.receive)
            async with AsyncClient(*server.address, mode="netascii") as whole:
                await whole.get("text")
    assert len(read_bytes) == 11 + 20 * MAX_COPIED_BYTES // PIECE_BYTES + 1


async def test_library_shares_a_copy(root: Path, rng: random.Random, read_bytes: list[int]) -> None:
    text = write_text(root / "text", 1000, rng)
    os.utime(root / "text")
    async with Server(root=root) as server, AsyncClient(*server.address, mode="netascii") as client:
        for _ in range(3):
            assert await client.get("text") == text
    assert len(read_bytes) == 2  # the text and its end, once


async def test_library_tells_a_missing_file_in_netascii_too(root: Path) -> None:
    with pytest.raises(TransferRefused) as refused:
        await library_get(lambda: root / "missing")
    assert refused.value.code == 1


@pytest.mark.parametrize("size", [1000, LARGE, 8 * MAX_COPIED_BYTES])
async def test_library_converts_large_bytes_piece_by_piece(
    rng: random.Random, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """In the event loop, so that everybody else would wait for the whole."""
    encode, longest = netascii.encode, [0]
    text = bytes(rng.choices(b"abc\r\n", k=size))

    def note(chunk: bytes) -> bytes:
        longest[0] = max(longest[0], len(chunk))
        return encode(chunk)

    monkeypatch.setattr(netascii, "encode", note)
    assert await library_get(lambda: text) == text
    assert longest[0] == min(size, PIECE_BYTES)
