"""WRQ, from the request to the last ACK: what is stored, what is seen meanwhile, and what each failure says."""

import errno
import itertools
import json
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused, Silence, Transfer, double_nth, drop_nth, lose_randomly
from tests.support.descriptors import settled_descriptors
from tests.support.server import ServerThread, serve_in_thread, wait_for
from tests.support.uploads import IMPATIENT, files_below, make_root, serve_uploads

from snow_owl_tftp.content.store import staging
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import (
    Ack,
    Data,
    Error,
    Oack,
    build_ack,
    build_data,
    build_error,
    build_request,
    parse_untrusted,
)

BLKSIZE = 512


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="module")
def shared(shared_root: Path) -> Iterator[ServerThread]:
    """One server for all tests that set nothing."""
    with serve_uploads(shared_root, create_directories=True) as server:
        yield server


@pytest.fixture
def client(shared: ServerThread) -> Iterator[Client]:
    with Client(shared.address) as client:
        yield client


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


def refused(act: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        act()
    return caught.value


def begin(client: Client, name: str, **options: Any) -> tuple[str, int]:
    """Send a WRQ and wait for its answer; return the server's TID."""
    client.request(name, options=options, kind=Opcode.WRQ)
    packet, peer = client.receive_packet()
    assert isinstance(packet, (Ack, Oack)), packet
    return peer


def expect_error(client: Client, code: int) -> None:
    while True:
        packet, _ = client.receive_packet()
        if isinstance(packet, Error):
            assert packet.code == code, packet
            return


# ---- what is stored


@pytest.mark.parametrize("windowsize", [1, 4, 16])
@pytest.mark.parametrize(
    "size",
    [0, 1, BLKSIZE - 1, BLKSIZE, BLKSIZE + 1, 4 * BLKSIZE - 1, 4 * BLKSIZE, 4 * BLKSIZE + 1, 16 * BLKSIZE, 400_000],
)
def test_every_size_is_stored_whole(client: Client, shared_root: Path, size: int, windowsize: int) -> None:
    payload = random.Random(size).randbytes(size)
    options = {} if windowsize == 1 else {"windowsize": windowsize}
    put = client.put("up/sized", payload, options=options)
    assert (shared_root / "up/sized").read_bytes() == payload
    assert put.said[-1][:2] == Opcode.DATA.to_bytes(2, "big")


@pytest.mark.parametrize("blksize", [8, 1428, 65464])
def test_every_blksize_is_stored_whole(client: Client, shared_root: Path, blksize: int) -> None:
    payload = random.Random(blksize).randbytes(5 * blksize + 3)
    put = client.put("up/sized", payload, options={"blksize": blksize, "tsize": len(payload)})
    assert (put.oack["blksize"], put.oack["tsize"]) == (str(blksize), str(len(payload)))
    assert (shared_root / "up/sized").read_bytes() == payload


def test_block_numbers_roll_over_past_65535(client: Client, shared_root: Path) -> None:
    payload = random.Random(8).randbytes(8 * 65_540 + 3)
    client.put("up/rollover", payload, options={"blksize": 8, "windowsize": 64})
    assert (shared_root / "up/rollover").read_bytes() == payload


def test_request_without_options_is_answered_with_ack_0(client: Client) -> None:
    packet, _ = client.exchange(build_request(Opcode.WRQ, "up/plain", "octet", []))
    assert packet == Ack(0)


def test_netascii_is_stored_as_local_text(client: Client, shared_root: Path) -> None:
    client.put("up/text", b"one\r\ntwo\r\0three\r\n" * 999, mode="netascii")
    assert (shared_root / "up/text").read_bytes() == b"one\ntwo\rthree\n" * 999


def test_netascii_may_be_longer_on_the_wire_than_its_tsize(client: Client, shared_root: Path) -> None:
    client.put("up/text", b"a\r\n" * 1000, mode="netascii", options={"tsize": 2000})
    assert (shared_root / "up/text").read_bytes() == b"a\n" * 1000


def test_tsize_zero_is_no_announcement(client: Client, shared_root: Path) -> None:
    client.put("up/piped", b"x" * 1000, options={"tsize": 0})
    assert (shared_root / "up/piped").read_bytes() == b"x" * 1000


def test_missing_directories_are_made(client: Client, shared_root: Path) -> None:
    client.put("up/a/b/c", b"x")
    assert (shared_root / "up/a/b/c").read_bytes() == b"x"


@pytest.mark.parametrize("windowsize", [1, 8])
def test_losses_in_both_directions_change_nothing(shared: ServerThread, shared_root: Path, windowsize: int) -> None:
    rng = random.Random(windowsize)
    payload = rng.randbytes(60_000)
    with Client(shared.address, timeout_s=0.05, say=lose_randomly(rng, 0.05), hear=lose_randomly(rng, 0.05)) as client:
        client.put("up/lossy", payload, options={"windowsize": windowsize})
    assert (shared_root / "up/lossy").read_bytes() == payload


def test_duplicate_data_is_stored_once(shared: ServerThread, shared_root: Path) -> None:
    payload = random.Random(3).randbytes(3000)
    with Client(shared.address, say=double_nth(*range(2, 9))) as client:
        client.put("up/twice", payload)
    assert (shared_root / "up/twice").read_bytes() == payload


def test_lost_last_ack_is_sent_again(shared: ServerThread) -> None:
    with Client(shared.address, timeout_s=0.05, hear=drop_nth(3)) as client:
        put = client.put("up/last", b"x" * 600)
    assert [parse_untrusted(datagram) for datagram in put.heard] == [Ack(0), Ack(1), Ack(2)]
    assert put.said[-1] == put.said[-2], "the last DATA was not repeated, so nothing was tested"


def test_gap_is_answered_with_one_ack_of_the_last_block_in_order(client: Client) -> None:
    peer = begin(client, "up/gap", windowsize=8)
    for block in (1, 2, 4, 5, 6, 7, 8):
        client.send(build_data(block, bytes(BLKSIZE)), peer)
    assert client.receive_packet()[0] == Ack(2)
    with pytest.raises(Silence):
        client.receive_packet(0.03)


# ---- refused at once


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("boot.img", ErrorCode.ACCESS_VIOLATION),
        ("up/../boot.img", ErrorCode.ACCESS_VIOLATION),
        ("../up/x", ErrorCode.ACCESS_VIOLATION),
        ("up/out/x", ErrorCode.ACCESS_VIOLATION),
        ("up/directory", ErrorCode.ACCESS_VIOLATION),
        ("up/fifo", ErrorCode.ACCESS_VIOLATION),
        ("up/no/such/directory", ErrorCode.FILE_NOT_FOUND),
        ("up/old", ErrorCode.FILE_EXISTS),
    ],
)
def test_request_is_refused_before_any_data(root: Path, name: str, code: int) -> None:
    (root / "up/out").symlink_to("../..")
    (root / "up/directory").mkdir()
    (root / "up/old").write_bytes(b"old")
    os.mkfifo(root / "up/fifo")
    with serve_uploads(root, on_existing="refuse") as server, Client(server.address) as client:
        error = refused(lambda: client.put(name, b"x" * 10))
    assert error.code == code
    assert str(root) not in error.text
    assert files_below(root) == {"up/old": b"old"}


def test_uploads_are_off_unless_switched_on(root: Path) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        assert refused(lambda: client.put("up/x", b"")).code == ErrorCode.ACCESS_VIOLATION


def test_tsize_beyond_the_limit_is_refused_at_once_and_audited(root: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    keys = {"logging.audit_enabled": True, "logging.audit_file": str(audit), ".max_file_size_bytes": 1000}
    with serve_uploads(root, **keys) as server, Client(server.address) as client:
        error = refused(lambda: client.put("up/x", b"", options={"tsize": 1001}))
        assert error.code == ErrorCode.DISK_FULL
        assert refused(lambda: client.put("up/x", b"x" * 2000)).code == ErrorCode.DISK_FULL
        client.put("up/x", b"x" * 1000, options={"tsize": 1000})
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    kinds = [event["event_type"] for event in events]
    assert kinds[:2] == ["file_size_limit_exceeded", "write_request_denied"]
    assert (events[0]["size_bytes"], events[0]["max_bytes"]) == (1001, 1000)
    assert kinds[2:5] == ["write_request", "write_started", "write_failed"]
    assert kinds[5:] == ["write_request", "write_started", "write_completed"]


def test_upload_beyond_the_limit_without_tsize_ends_when_it_passes(root: Path) -> None:
    with serve_uploads(root, max_total_bytes=1000) as server, Client(server.address) as client:
        assert refused(lambda: client.put("up/x", b"x" * 5000)).code == ErrorCode.DISK_FULL
        client.put("up/x", b"x" * 1000)
        assert refused(lambda: client.put("up/y", b"", options={"tsize": 1})).code == ErrorCode.DISK_FULL
    assert files_below(root) == {"up/x": b"x" * 1000}


def test_uploads_without_tsize_keep_to_the_limit_together(root: Path) -> None:
    """Each of them alone might have taken all the room that was left when it began."""
    with serve_uploads(root, max_total_bytes=100_000) as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server.address)) for _ in range(4)]
        peers = [begin(client, f"up/{number}") for number, client in enumerate(clients)]
        refusals: list[Error] = []
        for block in itertools.count(1):
            for number, peer in enumerate(peers):
                clients[number].send(build_data(block, b"x" * 512), peer)
                packet, _ = clients[number].receive_packet()
                if isinstance(packet, Error):
                    refusals.append(packet)
                    break
            if refusals:
                break
        assert refusals[0].code == ErrorCode.DISK_FULL
    assert files_below(root) == {}


# ---- two at once


def test_two_writers_of_one_name_are_never_mixed(root: Path) -> None:
    contents = [bytes([65 + number]) * 100_000 for number in range(4)]
    with serve_uploads(root) as server:
        threads = [threading.Thread(target=_put, args=(server, "up/x", content)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (root / "up/x").read_bytes() in contents


def _put(server: ServerThread, name: str, content: bytes) -> Transfer:
    with Client(server.address) as client:
        return client.put(name, content, options={"windowsize": 4})


def test_second_of_two_writers_is_told_that_the_file_exists(root: Path) -> None:
    with (
        serve_uploads(root, on_existing="refuse") as server,
        Client(server.address) as first,
        Client(server.address) as second,
    ):
        first_peer, second_peer = begin(first, "up/x"), begin(second, "up/x")
        second.send(build_data(1, b"second"), second_peer)
        assert second.receive_packet()[0] == Ack(1)
        first.send(build_data(1, b"first"), first_peer)
        expect_error(first, ErrorCode.FILE_EXISTS)
    assert files_below(root) == {"up/x": b"second"}


def test_versions_are_kept(root: Path) -> None:
    with serve_uploads(root, on_existing="version") as server, Client(server.address) as client:
        for content in (b"one", b"two", b"three"):
            client.put("up/x", content)
    assert files_below(root) == {"up/x": b"three", "up/x.~1~": b"one", "up/x.~2~": b"two"}


def test_only_files_made_ready_for_it_are_replaced_where_that_is_the_rule(root: Path) -> None:
    (root / "up/ready").touch()
    (root / "up/ready").chmod(0o666)
    (root / "up/locked").write_bytes(b"keep")
    (root / "up/locked").chmod(0o644)
    with serve_uploads(root, on_existing="replace_writable") as server, Client(server.address) as client:
        for content in (b"one", b"two"):
            client.put("up/ready", content)
        assert refused(lambda: client.put("up/locked", b"x")).code == ErrorCode.ACCESS_VIOLATION
        assert refused(lambda: client.put("up/missing", b"x")).code == ErrorCode.FILE_NOT_FOUND
    assert files_below(root) == {"up/ready": b"two", "up/locked": b"keep"}


def test_reader_of_a_file_that_is_written_in_place_gets_an_error_and_no_mixture(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "up/x"
    path.write_bytes(b"o" * 5000)
    os.utime(path, (1, 1))

    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "mounted")

    monkeypatch.setattr(os, "rename", busy)
    with serve_uploads(root) as server, Client(server.address) as reader:
        reader.request("up/x")
        packet, peer = reader.receive_packet()
        assert packet == Data(1, b"o" * 512)
        _put(server, "up/x", b"n" * 5000)
        while isinstance(packet, Data):
            reader.send(build_ack(packet.block), peer)
            newest = packet.block
            while isinstance(packet, Data) and packet.block == newest:  # repeated while the upload took its time
                packet, _ = reader.receive_packet()
        assert isinstance(packet, Error)
    assert path.read_bytes() == b"n" * 5000


def test_read_during_an_upload_gets_the_old_file(root: Path) -> None:
    (root / "up/x").write_bytes(b"old")
    with serve_uploads(root) as server, Client(server.address) as writer, Client(server.address) as reader:
        peer = begin(writer, "up/x")
        writer.send(build_data(1, b"n" * 512), peer)
        assert writer.receive_packet()[0] == Ack(1)
        assert reader.get("up/x").payload == b"old"
        writer.send(build_data(2, b"ew"), peer)
        assert writer.receive_packet()[0] == Ack(2)
        assert reader.get("up/x").payload == b"n" * 512 + b"ew"


# ---- the last ACK


def test_last_ack_waits_for_the_disk_and_nobody_else_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_fsync, may_go_on = threading.Event(), threading.Event()
    real_fsync = os.fsync

    def slow_fsync(fd: int) -> None:
        if os.pread(fd, 4, 0) == b"slow":
            in_fsync.set()
            assert may_go_on.wait(10)
        real_fsync(fd)

    monkeypatch.setattr("snow_owl_tftp.content.store.uploads.os.fsync", slow_fsync)
    monkeypatch.setattr("snow_owl_tftp.content.store.uploads.fsync_directory", lambda _: None)
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/slow")
        client.send(build_data(1, b"slow"), peer)
        assert in_fsync.wait(10)
        _put(server, "up/quick", b"q" * 5000)
        client.send(build_data(1, b"slow"), peer)
        with pytest.raises(Silence):
            client.receive_packet(0.03)
        assert not (root / "up/slow").exists()
        may_go_on.set()
        assert client.receive_packet()[0] == Ack(1)
        assert (root / "up/slow").read_bytes() == b"slow"


@pytest.mark.parametrize(
    ("error_number", "code"), [(errno.EIO, ErrorCode.NOT_DEFINED), (errno.ENOSPC, ErrorCode.DISK_FULL)]
)
def test_what_cannot_be_made_durable_is_no_success(
    root: Path, monkeypatch: pytest.MonkeyPatch, error_number: int, code: int
) -> None:
    def broken_fsync(_: int) -> None:
        raise OSError(error_number, os.strerror(error_number))

    monkeypatch.setattr("snow_owl_tftp.content.store.uploads.os.fsync", broken_fsync)
    with serve_uploads(root) as server, Client(server.address) as client:
        assert refused(lambda: client.put("up/x", b"x" * 600)).code == code
        wait_for(lambda: "transfer failed" in server.log, "the failure in the log")
        assert f"error={error_number}" in server.log
    assert files_below(root) == {}


# ---- ends that are no success


def test_client_that_vanishes_leaves_nothing(root: Path) -> None:
    with serve_uploads(root) as server:
        with Client(server.address) as client:
            peer = begin(client, "up/x")
            client.send(build_data(1, bytes(512)), peer)
            assert client.receive_packet()[0] == Ack(1)
        wait_for(lambda: "transfer failed" in server.log, "the upload to be given up")
        assert "UNREACHABLE" in server.log
    assert files_below(root) == {}


def test_client_that_sends_an_error_leaves_nothing(root: Path) -> None:
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x", tsize=512)
        client.send(build_error(0, "changed my mind"), peer)
        wait_for(lambda: "transfer failed" in server.log, "the upload to be given up")
    assert files_below(root) == {}


def test_silent_requests_leave_no_file_and_no_directory(root: Path) -> None:
    with serve_uploads(root, create_directories=True, **IMPATIENT) as server, Client(server.address) as client:
        for number in range(500):
            client.request(f"up/{number}/x", kind=Opcode.WRQ)
            if number % 50 == 49:  # no more at a time than a socket's buffer holds
                wait_for(lambda number=number: server.counters()["requests"] > number, "requests to be heard")
        wait_for(lambda: server.server.tally.transfers_total >= 500, "500 transfers to be given up", 60)
        assert list((root / "up").iterdir()) == []


def test_server_that_stops_leaves_nothing_of_what_was_under_way(root: Path) -> None:
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, bytes(512)), peer)
        assert client.receive_packet()[0] == Ack(1)
        server.call(server.server.stop)
        expect_error(client, ErrorCode.NOT_DEFINED)
    assert files_below(root) == {}


def test_data_beyond_tsize_is_error_3(root: Path) -> None:
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x", tsize=600)
        client.send(build_data(1, bytes(512)), peer)
        client.send(build_data(2, bytes(89)), peer)
        expect_error(client, ErrorCode.DISK_FULL)
    assert files_below(root) == {}


@pytest.mark.parametrize("size", [0, 100, 511])
def test_block_cut_short_before_tsize_is_reached_is_no_success(root: Path, size: int) -> None:
    """A client that changes its block size on the way ends its file too early; tsize shows it."""
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x", tsize=2000)
        client.send(build_data(1, bytes(512)), peer)
        client.send(build_data(2, bytes(size)), peer)
        expect_error(client, ErrorCode.NOT_DEFINED)
    assert files_below(root) == {}


def test_data_longer_than_the_block_size_is_error_4(root: Path) -> None:
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, bytes(513)), peer)
        expect_error(client, ErrorCode.ILLEGAL_OPERATION)
    assert files_below(root) == {}


def test_short_last_window_is_acknowledged_at_once(root: Path) -> None:
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x", windowsize=16)
        for block in (1, 2, 3):
            client.send(build_data(block, bytes(512 if block < 3 else 1)), peer)
        assert client.receive_packet()[0] == Ack(3)
    assert len(files_below(root)["up/x"]) == 1025


def test_directory_removed_meanwhile_is_told(root: Path) -> None:
    (root / "up/gone").mkdir()
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/gone/x")
        (root / "up/gone").rmdir()
        client.send(build_data(1, b"x"), peer)
        expect_error(client, ErrorCode.FILE_NOT_FOUND)
    assert files_below(root) == {}


def test_write_error_while_data_flows_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is mapped at the start of our address space: every write to it says EIO.
    monkeypatch.setattr(staging, "open_unnamed", lambda *_, **__: os.open("/proc/self/mem", os.O_RDWR))
    with serve_uploads(root) as server, Client(server.address) as client:
        assert refused(lambda: client.put("up/x", b"x" * 600)).code == ErrorCode.NOT_DEFINED
        wait_for(lambda: f"error={errno.EIO}" in server.log, "the failure in the log")
    assert files_below(root) == {}


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """256 KiB mounted at up."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root / "up")]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("CANNOT MOUNT a tmpfs: what a full disk does is NOT tested on this machine")
    yield root / "up"
    subprocess.run(["umount", "-l", str(root / "up")], check=True)


def test_disk_full_while_data_flows_is_error_3_and_keeps_the_old_file(root: Path, small_disk: Path) -> None:
    (small_disk / "x").write_bytes(b"old")
    with serve_uploads(root) as server:
        with Client(server.address) as client:
            client.put("up/y", b"x" * 100_000)
            error = refused(lambda: client.put("up/x", b"x" * 3_000_000))
            assert error.code == ErrorCode.DISK_FULL
        wait_for(lambda: f"error={errno.ENOSPC}" in server.log, "the failure in the log")
    assert files_below(root) == {"up/x": b"old", "up/y": b"x" * 100_000}
    used = os.statvfs(small_disk)
    assert (used.f_blocks - used.f_bfree) * used.f_frsize < 120_000, "what was written is not given back"


def test_tsize_beyond_the_disk_is_refused_at_once(root: Path, small_disk: Path) -> None:
    with serve_uploads(root) as server, Client(server.address) as client:
        error = refused(lambda: client.put("up/x", b"", options={"tsize": 300_000}))
    assert error.code == ErrorCode.DISK_FULL
    assert list(small_disk.iterdir()) == []


def test_no_descriptor_is_left(root: Path) -> None:
    before = settled_descriptors()
    with serve_uploads(root) as server, Client(server.address) as client:
        client.put("up/x", b"x" * 600)
        refused(lambda: client.put("up/x", b"", options={"tsize": 2**62}))
        begin(client, "up/y")
    assert settled_descriptors() <= before


def test_ack_to_an_upload_is_no_packet_of_it(client: Client, shared_root: Path) -> None:
    peer = begin(client, "up/odd")
    client.send(build_ack(1), peer)
    client.send(build_data(1, b"x"), peer)
    assert client.receive_packet()[0] == Ack(1)
    assert (shared_root / "up/odd").read_bytes() == b"x"
