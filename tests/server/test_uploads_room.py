"""`max_total_bytes` under attack: many at once, lies about sizes, aborts, replaced files, netascii, a restart. Nothing
leaks, nothing overruns."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.test_uploads import begin, refused
from tests.support.client import Client, Refused, Silence
from tests.support.server import ServerThread, wait_for
from tests.support.uploads import IMPATIENT, files_below, make_root, serve_uploads

from snow_owl_tftp.content.store.space import Space
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import Ack, Error, build_data, build_error

LIMIT = 200_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> list[Space]:
    """Every account that is opened."""
    made: list[Space] = []
    init: Callable[..., None] = Space.__init__

    def note(self: Space, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        made.append(self)

    monkeypatch.setattr(Space, "__init__", note)
    return made


def stored_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "up").rglob("*") if path.is_file())


@contextmanager
def serve_limited(root: Path, spaces: list[Space], **keys: Any) -> Iterator[ServerThread]:
    """When it has ended, nothing is reserved any more, and what the account says is what lies there."""
    with serve_uploads(root, max_total_bytes=LIMIT, **keys) as server:
        yield server
        wait_for(lambda: not spaces[-1]._running, "every reservation to be released")
    assert spaces[-1].used_bytes == stored_bytes(root) <= LIMIT


def is_taken(server: ServerThread, name: str, content: bytes, **options: int) -> bool:
    with Client(server.address) as client:
        try:
            client.put(name, content, options={"blksize": 1428, "windowsize": 4, **options})
        except Refused as error:
            if error.code == ErrorCode.DISK_FULL:
                return False
            raise
    return True


def test_many_at_once_never_hold_more_than_there_is(root: Path, spaces: list[Space]) -> None:
    """Forty clients, with tsize and without, ask for three times as much as there is."""
    rng = random.Random(4)
    sizes = [rng.randrange(1, 30_000) for _ in range(40)]
    taken: dict[str, int] = {}

    def put(server: ServerThread, number: int) -> None:
        size = sizes[number]
        if is_taken(server, f"up/{number}", os.urandom(size), **({"tsize": size} if number % 2 else {})):
            taken[f"up/{number}"] = size

    with serve_limited(root, spaces) as server:
        threads = [threading.Thread(target=put, args=(server, number)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {name: len(content) for name, content in files_below(root).items()} == taken
    assert sum(taken.values()) > LIMIT // 3, "most of the room was of use"


@pytest.mark.parametrize("announced", [1, 999, 1001, LIMIT])
def test_who_lies_about_its_size_reserves_nothing_for_long(root: Path, spaces: list[Space], announced: int) -> None:
    with serve_limited(root, spaces) as server:
        for _ in range(5):
            with Client(server.address) as client, pytest.raises(Refused):
                client.put("up/liar", bytes(1000), options={"tsize": announced})
        wait_for(lambda: not spaces[-1]._running, "the room to be given back")
        assert is_taken(server, "up/honest", bytes(LIMIT), tsize=LIMIT)
    assert files_below(root) == {"up/honest": bytes(LIMIT)}


@pytest.mark.parametrize("end", ["error", "silence", "another request"])
def test_who_stops_in_the_middle_gives_the_room_back(root: Path, spaces: list[Space], end: str) -> None:
    with serve_limited(root, spaces, **IMPATIENT) as server, ExitStack() as stack:
        client = stack.enter_context(Client(server.address))
        peer = begin(client, "up/x", tsize=LIMIT)
        client.send(build_data(1, bytes(512)), peer)
        assert client.receive_packet()[0] == Ack(1)
        wait_for(lambda: spaces[-1]._running, "the room to be reserved")
        assert not is_taken(server, "up/y", b"y"), "all is reserved"
        if end == "error":
            client.send(build_error(0, "enough"), peer)
        elif end == "another request":
            client.request("up/z", kind=Opcode.WRQ)
        wait_for(lambda: not spaces[-1]._running, "the room to be free again")
        assert is_taken(server, "up/y", b"y")
    assert files_below(root) == {"up/y": b"y"}


@pytest.mark.parametrize("on_existing", ["replace", "version"])
def test_files_that_are_replaced_again_and_again_count_once_and_versions_each(
    root: Path, spaces: list[Space], on_existing: str
) -> None:
    rng = random.Random(1)
    refusals = 0
    with serve_limited(root, spaces, on_existing=on_existing) as server:
        for number in range(30):
            size = rng.randrange(1, 40_000)
            tsize = {"tsize": size} if number % 3 else {}
            refusals += not is_taken(server, f"up/{number % 3}", os.urandom(size), **tsize)
    assert refusals > 0 if on_existing == "version" else refusals < 10


def test_simultaneous_uploads_of_one_name_count_once(root: Path, spaces: list[Space]) -> None:
    with serve_limited(root, spaces) as server:
        threads = [
            threading.Thread(target=is_taken, args=(server, "up/x", bytes([number]) * (1000 + number)))
            for number in range(30)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(files_below(root)) == 1


def test_netascii_counts_as_stored_and_never_overruns(root: Path, spaces: list[Space]) -> None:
    """On the wire twice as long as stored, which is what it needs until then; the announced size is a hint."""
    text = b"\r\n" * 60_000
    with serve_limited(root, spaces) as server, Client(server.address) as client:
        for number in range(2):
            client.put(f"up/{number}", text, mode="netascii", options={"tsize": 5, "blksize": 1428})
        error = refused(lambda: client.put("up/2", text, mode="netascii", options={"blksize": 1428}))
        assert error.code == ErrorCode.DISK_FULL
        client.put("up/2", text[:80_000], mode="netascii", options={"blksize": 1428})
    assert stored_bytes(root) == 160_000


def test_server_that_starts_anew_counts_what_is_there_and_nothing_else(root: Path, spaces: list[Space]) -> None:
    with serve_limited(root, spaces) as server, Client(server.address) as client:
        client.put("up/x", bytes(150_000), options={"blksize": 1428, "windowsize": 4})
        peer = begin(client, "up/y", tsize=50_000)
        client.send(build_data(1, bytes(512)), peer)
        assert client.receive_packet()[0] == Ack(1)
        server.call(server.server.stop)
    with serve_limited(root, spaces) as server:
        assert not is_taken(server, "up/z", bytes(50_001), tsize=50_001)
        assert is_taken(server, "up/z", bytes(50_000), tsize=50_000)
    assert stored_bytes(root) == LIMIT


def test_uploads_that_grow_together_are_cut_off_before_they_outgrow_the_limit_much(
    root: Path, spaces: list[Space]
) -> None:
    """Ten that announce nothing and never end: what lies on the disk at any look stays near the limit."""
    peak_bytes, refusals = 0, 0
    with serve_limited(root, spaces) as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server.address)) for _ in range(10)]
        peers = {client: begin(client, f"up/{number}", blksize=1428) for number, client in enumerate(clients)}
        block = 0
        while peers and block < 400:
            block += 1
            for client, peer in list(peers.items()):
                client.send(build_data(block, bytes(1428)), peer)
                try:
                    packet, _ = client.receive_packet()
                except Silence:
                    packet = Error(0, "silent")
                if isinstance(packet, Error):
                    refusals += 1
                    del peers[client]
            with spaces[-1]._lock:
                peak_bytes = max(peak_bytes, sum(running.held_bytes() for running in spaces[-1]._running))
        assert refusals >= 9
    # Between two looks each may write what fits into its buffers, and one batch more.
    assert peak_bytes < LIMIT + 10 * 6 * 65_536
    assert files_below(root) == {}


def test_upload_that_is_refused_its_room_leaves_the_others_theirs(root: Path, spaces: list[Space]) -> None:
    with serve_limited(root, spaces) as server, ExitStack() as stack:
        first = stack.enter_context(Client(server.address))
        peer = begin(first, "up/first", tsize=1000)
        first.send(build_data(1, bytes(512)), peer)
        assert first.receive_packet()[0] == Ack(1)
        for number in range(20):
            assert not is_taken(server, f"up/{number}", b"", tsize=LIMIT)
        first.send(build_data(2, bytes(488)), peer)
        assert first.receive_packet()[0] == Ack(2)
    assert files_below(root) == {"up/first": bytes(1000)}
