"""A disk that stalls: what the server holds back is never the client's silence, and nothing is held back for ever."""

import errno
import os
import threading
import time

import pytest
from tests.engine.test_waiting import ColdDisk
from tests.support.client import Client, Silence

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Data, Error, build_ack, build_data, build_error

QUICK = {"initial_ns": 100_000_000, "give_up_ns": 600_000_000, "half_open_give_up_ns": 800_000_000}
STALL_S = 1.8  # three times as long as a silent client has
pytestmark = pytest.mark.usefixtures("ahead")
BOUND = {"stalled_give_up_ns": 500_000_000}
BUSY = Error(0, "Server busy, try again")
BLKSIZE = 8192
HELD_BACK = 32
"""Blocks that an upload may have on their way to the disk; the ACK of the last waits for the disk."""


@pytest.fixture
def cold_disk():
    ColdDisk.opened = threading.Event()
    yield ColdDisk.opened
    ColdDisk.opened.set()


def cold(serve, **options):
    return serve(kind=ColdDisk, slot_bytes=BLKSIZE + 4, **QUICK, **options)


def fill(client):
    """Send DATA until the ACK is held back; return the server's TID and the block that it waits for."""
    client.request("up", options={"blksize": BLKSIZE}, kind=Opcode.WRQ)
    answer, peer = client.receive_packet()
    for block in range(1, HELD_BACK):
        client.send(build_data(block, bytes(BLKSIZE)), peer)
        while (packet := client.receive_packet()[0]) != Ack(block):
            assert packet == answer, "a repetition, since this machine is busy"
        answer = packet
    client.send(build_data(HELD_BACK, bytes(BLKSIZE)), peer)
    while True:
        try:
            assert client.receive_packet(0.2)[0] == answer, "at most a repetition of what it had said before"
        except Silence:
            return peer, HELD_BACK


def silent_for(client, seconds):
    with pytest.raises(Silence):
        client.receive(seconds)


def test_an_upload_outlives_a_disk_that_stalls_longer_than_a_client_may(serve, tmp_path, cold_disk):
    served = cold(serve)
    with Client(served.address) as client:
        peer, block = fill(client)
        silent_for(client, STALL_S)
        cold_disk.set()
        assert client.receive_packet()[0] == Ack(block)
        client.send(build_data(block + 1, b"end"), peer)
        assert client.receive_packet()[0] == Ack(block + 1)
    assert (tmp_path / "up").stat().st_size == block * BLKSIZE + 3
    completion = served.completion()
    assert (completion.outcome, completion.retransmits) == (Outcome.OK, 0)
    assert served.counter("timeouts") == 0, "nothing was held against the client"


def test_after_a_stall_the_client_has_all_its_patience(serve, cold_disk):
    served = cold(serve)
    with Client(served.address) as client:
        _, block = fill(client)
        silent_for(client, STALL_S)
        began = time.monotonic()
        cold_disk.set()
        heard = [client.receive_packet()[0] for _ in range(4)]
        took = time.monotonic() - began
    assert heard[:3] == [Ack(block)] * 3, "repeated as for anybody"
    assert served.completion().outcome == Outcome.TIMED_OUT
    assert took > 0.3


def test_a_repeated_block_is_not_acknowledged_while_the_disk_stalls(serve, cold_disk):
    served = cold(serve)
    with Client(served.address) as client:
        peer, block = fill(client)
        for _ in range(3):
            client.send(build_data(block, bytes(BLKSIZE)), peer)
            silent_for(client, 0.1)
        cold_disk.set()
        assert client.receive_packet()[0] == Ack(block)


def ended_by_the_bound(served, client, patience_s=5.0):
    while True:
        packet, _ = client.receive_packet(patience_s)
        if isinstance(packet, Error):
            break
    assert packet == BUSY
    assert served.counter("transfers_stalled") == 1


def check_stalled(served):
    completion = served.completion()
    assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, errno.ETIMEDOUT)
    assert completion.text == b"Server busy, try again"


def test_a_disk_that_never_comes_back_ends_an_upload_at_the_bound(serve, cold_disk):
    served = cold(serve, **BOUND)
    with Client(served.address) as client:
        fill(client)
        ended_by_the_bound(served, client)
    assert served.completions == [], "its buffers are with the disk"
    cold_disk.set()
    check_stalled(served)


def test_a_disk_that_never_writes_the_last_block_ends_an_upload_at_the_bound(serve, cold_disk):
    served = cold(serve, **BOUND)
    with Client(served.address) as client:
        client.request("up", kind=Opcode.WRQ)
        _, peer = client.receive_packet()
        client.send(build_data(1, b"all"), peer)
        ended_by_the_bound(served, client)
    cold_disk.set()
    check_stalled(served)


class Supplied:
    """Opens files when it is asked to, and closes them when they may be closed."""

    def __init__(self, served, path):
        self.served, self.path = served, path
        self.fds = []
        served.on_first_data = self.open

    def open(self, event):
        self.fds.append(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.served.engine.supply(event.transfer_id, self.fds[-1])

    def close(self):
        for fd in self.fds:
            os.close(fd)


@pytest.mark.parametrize("is_whole", [False, True])
def test_the_end_of_an_upload_that_a_disk_never_writes_is_told_and_so_is_its_release(
    serve, tmp_path, cold_disk, is_whole
):
    served = cold(serve, **BOUND)
    supplied = Supplied(served, tmp_path / "up")
    with Client(served.address) as client:
        if is_whole:
            client.request("up", kind=Opcode.WRQ)
            client.send(build_data(1, b"all"), client.receive_packet()[1])
        else:
            fill(client)
        ended_by_the_bound(served, client)
        check_stalled(served)
        assert served.completion().is_stuck
        assert served.released == []
        assert served.engine.live_objects()["transfers"] == 0
        with Client(served.address) as other:
            other.request("up", kind=Opcode.WRQ)
            assert other.receive_packet()[0] == Ack(0), "the worker goes on"
        cold_disk.set()
        served.wait(lambda: served.released, "the release")
    (released,) = served.released
    assert released.transfer_id == served.completions[0].transfer_id
    assert released.context == served.completions[0].context
    supplied.close()


def test_the_end_by_its_client_waits_for_a_write_as_long_and_no_longer(serve, tmp_path, cold_disk):
    served = cold(serve, **BOUND)
    supplied = Supplied(served, tmp_path / "up")
    with Client(served.address) as client:
        peer, _ = fill(client)
        client.send(build_error(0, "changed my mind"), peer)
        completion = served.completion()
        assert (completion.outcome, completion.is_stuck) == (Outcome.PEER_ERROR, True)
        cold_disk.set()
        served.wait(lambda: served.released, "the release")
    supplied.close()


def test_stopping_with_a_stuck_upload_keeps_the_accounts(serve, tmp_path, cold_disk):
    served = cold(serve, **BOUND)
    supplied = Supplied(served, tmp_path / "up")
    with Client(served.address) as client:
        fill(client)
        ended_by_the_bound(served, client)
        check_stalled(served)
        opening = threading.Timer(0.3, cold_disk.set)
        opening.start()
        served.engine.stop()
        opening.join()
    served.wait(lambda: served.released, "the release")
    supplied.close()


def test_a_commit_that_never_ends_ends_an_upload_at_the_bound(serve):
    served = serve(**QUICK, **BOUND)
    received = []
    answered = threading.Event()
    commit = served.engine.commit

    class Mute:
        """The engine, whose commit is not called: Python is waiting for the disk."""

        def __init__(self, engine):
            self._engine = engine

        def __getattr__(self, name):
            return getattr(self._engine, name)

        def commit(self, transfer_id):
            received.append(transfer_id)
            answered.set()

    served.engine = Mute(served.engine)
    with Client(served.address) as client:
        client.request("up", kind=Opcode.WRQ)
        _, peer = client.receive_packet()
        client.send(build_data(1, b"all"), peer)
        assert answered.wait(5)
        ended_by_the_bound(served, client)
        check_stalled(served)
        commit(received[0])  # too late: ignored
        silent_for(client, 0.2)


def test_a_commit_may_take_longer_than_a_client_may_be_silent(serve):
    served = serve(**QUICK)
    served.verdict = lambda received: time.sleep(STALL_S) or ()
    with Client(served.address) as client:
        client.put("up", b"all")
    assert served.completion().outcome == Outcome.OK


def test_a_disk_that_never_comes_back_ends_a_download_at_the_bound(serve, tmp_path, cold_disk):
    (tmp_path / "file").write_bytes(bytes(5000))
    served = serve(kind=ColdDisk, **QUICK, **BOUND)
    with Client(served.address) as client:
        client.request("file", options={"blksize": 1000})
        _, peer = client.receive_packet()
        client.send(build_ack(0), peer)
        ended_by_the_bound(served, client)
    check_stalled(served)


def test_the_bound_is_for_one_wait_and_not_for_their_sum(serve, tmp_path, cold_disk):
    """A download that waited, went on, and waits again."""
    chunk = 1 << 19
    (tmp_path / "file").write_bytes(bytes(3 * chunk))
    served = serve(kind=ColdDisk, stalled_give_up_ns=800_000_000, initial_ns=50_000_000)
    with Client(served.address, timeout_s=5) as client:
        client.request("file", options={"blksize": 65464})
        _, peer = client.receive_packet()
        client.send(build_ack(0), peer)
        silent_for(client, 0.6)
        cold_disk.set()
        block, packet = 0, None
        while packet is None or len(packet.payload) == 65464:
            packet, _ = client.receive_packet()
            assert isinstance(packet, Data)
            block += packet.block == block + 1
            time.sleep(0.03)
            client.send(build_ack(block), peer)
    assert served.completion().outcome == Outcome.OK
    assert served.counter("transfers_stalled") == 0
