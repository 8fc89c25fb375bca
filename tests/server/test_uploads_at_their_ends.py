"""The two ends of an upload: before its first byte nothing is held for it, behind its last one the truth is told."""

import errno
import json
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.test_uploads import begin, expect_error, refused
from tests.support.client import Client, Silence
from tests.support.descriptors import open_descriptors, settled_descriptors
from tests.support.server import ServerThread, wait_for
from tests.support.uploads import IMPATIENT, files_below, make_root, serve_uploads

from snow_owl_tftp._engine.engine import Engine
from snow_owl_tftp.content.store import reception
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Ack, Error, build_data, build_error


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


def wait_committed(server: ServerThread) -> None:
    """Until every commit has ended, and was told."""

    async def nothing() -> None:
        pass

    wait_for(lambda: not server.server._under_way, "all commits to end")
    server.call(nothing)


def audited(path: Path) -> Counter[str]:
    return Counter(json.loads(line)["event_type"] for line in path.read_text().splitlines())


# ---- before the first byte


def test_requests_that_nothing_follows_hold_no_descriptor(root: Path) -> None:
    with serve_uploads(root, **{"retransmit.half_open_give_up_s": 20}) as server, Client(server.address) as client:
        begin(client, "up/warm")
        before = settled_descriptors()
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(server.address)) for _ in range(200)]
            for number, silent in enumerate(clients):
                begin(silent, f"up/{number}")
            assert server.server.live_transfers >= 200
            assert open_descriptors() - before <= len(clients) + 8, "each test client has one itself"


def test_upload_begins_to_hold_a_descriptor_with_its_first_byte_and_gives_it_back(root: Path) -> None:
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        before = settled_descriptors()
        client.send(build_data(1, bytes(512)), peer)
        assert client.receive_packet()[0] == Ack(1)
        wait_for(lambda: open_descriptors() > before, "the file to be open")
        client.send(build_error(0, "no more"), peer)
        wait_for(lambda: open_descriptors() <= before, "the file to be closed")
    assert files_below(root) == {}


def test_silent_requests_do_not_use_up_the_room(root: Path) -> None:
    """Each of them announces all that is left."""
    with serve_uploads(root, max_total_bytes=10_000) as server, ExitStack() as stack:
        for number in range(20):
            begin(stack.enter_context(Client(server.address)), f"up/{number}", tsize=10_000)
        with Client(server.address) as client:
            client.put("up/x", bytes(10_000), options={"tsize": 10_000})
    assert files_below(root) == {"up/x": bytes(10_000)}


def test_room_that_another_upload_took_meanwhile_is_error_3_at_the_first_data(root: Path) -> None:
    with serve_uploads(root, max_total_bytes=1000) as server, Client(server.address) as late:
        peer = begin(late, "up/late", tsize=600)
        with Client(server.address) as client:
            client.put("up/x", bytes(900))
        late.send(build_data(1, bytes(512)), peer)
        expect_error(late, ErrorCode.DISK_FULL)
    assert files_below(root) == {"up/x": bytes(900)}


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 3), (errno.EDQUOT, 3), (errno.EMFILE, 0), (errno.EROFS, 2), (errno.EIO, 0)],
)
def test_file_that_cannot_be_made_is_told_at_the_first_data(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reception, "StagedFile", fail)
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, b"all"), peer)
        expect_error(client, code)
        wait_for(lambda: f"error={number}" in server.log, "the failure in the log")
        monkeypatch.undo()
        client.put("up/x", b"again")
    assert files_below(root) == {"up/x": b"again"}


def test_name_that_was_taken_meanwhile_is_told_at_the_first_data(root: Path) -> None:
    with serve_uploads(root, on_existing="refuse") as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        (root / "up/x").write_bytes(b"somebody's")
        client.send(build_data(1, bytes(512)), peer)
        expect_error(client, ErrorCode.FILE_EXISTS)
    assert files_below(root) == {"up/x": b"somebody's"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_directory_that_may_not_be_written_to_is_refused_at_once(root: Path) -> None:
    (root / "up").chmod(0o555)
    with serve_uploads(root) as server:
        os.seteuid(65534)
        try:
            with Client(server.address) as client:
                assert refused(lambda: begin_or_raise(client)).code == ErrorCode.ACCESS_VIOLATION
        finally:
            os.seteuid(0)


def begin_or_raise(client: Client) -> None:
    client.put("up/x", b"")


# ---- behind the last byte


class Gate:
    """An fsync that waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        real = os.fsync

        def slow(fd: int) -> None:
            self.entered.set()
            assert self.may_go_on.wait(20)
            real(fd)

        monkeypatch.setattr(where, slow)


BEFORE_THE_NAME = "snow_owl_tftp.content.store.uploads.os.fsync"
BEHIND_THE_NAME = "snow_owl_tftp.content.store.uploads.fsync_directory"


@contextmanager
def serve_audited(root: Path, audit: Path, **keys: Any) -> Iterator[ServerThread]:
    with serve_uploads(root, **{"logging.audit_enabled": True, "logging.audit_file": str(audit), **keys}) as server:
        yield server


def test_error_right_behind_the_last_data_drops_the_upload_without_a_traceback(root: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    with serve_audited(root, audit) as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server.address)) for _ in range(50)]
        peers = [begin(client, f"up/{number}") for number, client in enumerate(clients)]
        for client, peer in zip(clients, peers, strict=True):
            client.send(build_data(1, b"all"), peer)
            client.send(build_error(0, "changed my mind"), peer)
        wait_for(lambda: server.server.tally.transfers_total >= 50, "50 transfers to end")
        wait_committed(server)
        stored = len(files_below(root))
        log = server.log
    assert "Traceback" not in log
    assert "internal error" not in log
    told = audited(audit)
    assert told["write_failed"] + told["write_completed"] == 50
    assert told["write_completed"] + told["write_stored_after_failure"] == stored, "what is there was told"


def test_error_that_is_heard_together_with_the_end_of_the_data_drops_the_upload(root: Path, tmp_path: Path) -> None:
    """The event loop was busy meanwhile, and finds both at once."""
    audit = tmp_path / "audit"
    is_busy, may_go_on = threading.Event(), threading.Event()

    async def be_busy() -> None:
        is_busy.set()
        may_go_on.wait(20)

    with serve_audited(root, audit) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        before = settled_descriptors()
        client.send(build_data(1, bytes(512)), peer)
        assert client.receive_packet()[0] == Ack(1)
        wait_for(lambda: open_descriptors() > before and not server.server._under_way, "the file to be open")
        busy = threading.Thread(target=server.call, args=(be_busy,))
        busy.start()
        assert is_busy.wait(10)
        written = server.server.counters()["file_writes"]
        client.send(build_data(2, b"end"), peer)
        wait_for(lambda: server.server.counters()["file_writes"] != written, "the last block to be written")
        engine = server.engine
        wait_for(lambda: select.select([engine.fileno()], [], [], 0)[0], "the worker to tell that it is")
        client.send(build_error(0, "changed my mind"), peer)
        wait_for(lambda: server.server.counters()["live_transfers"] == 0, "the engine to hear of it")
        may_go_on.set()
        busy.join()
        wait_for(lambda: "transfer failed" in server.log, "the end in the log")
        wait_committed(server)
        assert "Traceback" not in server.log
        assert "internal error" not in server.log
    assert files_below(root) == {}
    told = audited(audit)
    assert (told["write_failed"], told["write_completed"], told["write_stored_after_failure"]) == (1, 0, 0)


def test_error_while_the_commit_runs_drops_the_upload(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "up/x").write_bytes(b"old")
    gate, audit = Gate(monkeypatch, BEFORE_THE_NAME), tmp_path / "audit"
    with serve_audited(root, audit) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, b"all"), peer)
        assert gate.entered.wait(10)
        client.send(build_error(0, "changed my mind"), peer)
        wait_for(lambda: "transfer failed" in server.log, "the end in the log")
        gate.may_go_on.set()
        wait_committed(server)
        assert "Traceback" not in server.log
    assert files_below(root) == {"up/x": b"old"}
    told = audited(audit)
    assert (told["write_failed"], told["write_completed"], told["write_stored_after_failure"]) == (1, 0, 0)


def test_error_behind_the_name_keeps_the_file_and_the_audit_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, audit = Gate(monkeypatch, BEHIND_THE_NAME), tmp_path / "audit"
    monkeypatch.setattr(BEFORE_THE_NAME, lambda fd: None)
    with serve_audited(root, audit) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, b"all"), peer)
        assert gate.entered.wait(10)
        client.send(build_error(0, "changed my mind"), peer)
        wait_for(lambda: "transfer failed" in server.log, "the end in the log")
        monkeypatch.undo()
        gate.may_go_on.set()
        wait_for(lambda: "stored although" in server.log, "what became of the file in the log")
        assert "Traceback" not in server.log
    assert files_below(root) == {"up/x": b"all"}
    told = audited(audit)
    assert (told["write_failed"], told["write_completed"], told["write_stored_after_failure"]) == (1, 0, 1)


def test_next_upload_of_a_name_whose_client_gave_up_is_not_told_that_it_exists(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, BEFORE_THE_NAME)
    with serve_uploads(root, on_existing="refuse") as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, b"all"), peer)
        assert gate.entered.wait(10)
        client.send(build_error(0, "timed out"), peer)
        wait_for(lambda: "transfer failed" in server.log, "the end in the log")
        gate.may_go_on.set()
        with Client(server.address) as again:
            again.put("up/x", b"again")
    assert files_below(root) == {"up/x": b"again"}


def test_server_that_stops_while_an_upload_is_stored_logs_no_traceback(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, BEFORE_THE_NAME)
    with serve_uploads(root) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, b"all"), peer)
        assert gate.entered.wait(10)
        server.call(server.server.stop)
        expect_error(client, ErrorCode.NOT_DEFINED)
        gate.may_go_on.set()
        wait_committed(server)
        assert "Traceback" not in server.log
    assert files_below(root) == {}


# ---- a disk that stalls


@pytest.mark.parametrize("stall_s", [2.5])
def test_fsync_that_takes_longer_than_a_client_may_be_silent_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, stall_s: float
) -> None:
    real = os.fsync
    monkeypatch.setattr(BEFORE_THE_NAME, lambda fd: (time.sleep(stall_s), real(fd)))
    with serve_uploads(root, **IMPATIENT) as server, Client(server.address, timeout_s=0.5) as client:
        client.put("up/x", b"all")
    assert files_below(root) == {"up/x": b"all"}


def test_fsync_that_never_ends_is_error_0_at_the_bound_and_the_file_never_appears(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, BEFORE_THE_NAME)
    with serve_uploads(root, **{"retransmit.stalled_give_up_s": 1}) as server, Client(server.address) as client:
        peer = begin(client, "up/x")
        client.send(build_data(1, b"all"), peer)
        assert gate.entered.wait(10)
        assert client.receive_packet(10)[0] == Error(0, "Server busy, try again")
        wait_for(lambda: f"error={errno.ETIMEDOUT}" in server.log, "the failure in the log")
        assert server.server.counters()["transfers_stalled"] == 1
        assert server.server.live_transfers == 0
        gate.may_go_on.set()
        wait_committed(server)
        with pytest.raises(Silence):
            client.receive(0.1)
    assert files_below(root) == {}


def test_write_that_never_ends_is_told_at_the_bound_and_keeps_its_descriptor_until_it_does(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit, disk = tmp_path / "audit", threading.Event()

    class ColdDisk(Engine):
        """Its I/O threads begin when the disk is there."""

        def _run_io(self) -> None:
            disk.wait(20)
            super()._run_io()

    monkeypatch.setattr("snow_owl_tftp.server.engine.Engine", ColdDisk)
    keys = {"retransmit.stalled_give_up_s": 1}
    with serve_audited(root, audit, **keys) as server, Client(server.address) as client:
        before = settled_descriptors()
        peer = begin(client, "up/x")
        client.send(build_data(1, b"all"), peer)
        assert client.receive_packet(10)[0] == Error(0, "Server busy, try again")
        wait_for(lambda: f"error={errno.ETIMEDOUT}" in server.log, "the failure in the log")
        assert server.server.live_transfers == 0
        assert open_descriptors() > before, "the write may still come to it"
        disk.set()
        wait_for(lambda: open_descriptors() <= before, "the file to be closed")
        client.put("up/y", b"again")
    assert files_below(root) == {"up/y": b"again"}
    assert audited(audit)["write_failed"] == 1


def test_file_that_takes_long_to_open_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = reception.StagedFile

    def slow(directory_fd: int) -> Any:
        time.sleep(2.5)
        return real(directory_fd)

    monkeypatch.setattr(reception, "StagedFile", slow)
    payload = os.urandom(600_000)
    with serve_uploads(root, **IMPATIENT) as server, Client(server.address, timeout_s=0.4) as client:
        client.put("up/x", payload, options={"blksize": 1428, "windowsize": 4})
    assert files_below(root) == {"up/x": payload}
