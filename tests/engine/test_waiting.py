"""Waiting for our own disk or pipe is not the peer's silence: it costs no share, no retry, no back-off, no sample."""

import os
import threading

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp._engine import engine as native
from snow_owl_tftp.plan.transfer import Outcome, Role, TransferPlan
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import (
    Ack,
    Data,
    Error,
    Oack,
    build_ack,
    build_data,
    build_error,
    build_oack,
    build_request,
)

CONTENT = bytes(i * 7 & 0xFF for i in range(5000))
QUICK = {"initial_ns": 100_000_000, "give_up_ns": 600_000_000, "half_open_give_up_ns": 800_000_000}
pytestmark = pytest.mark.usefixtures("ahead")
WAIT_S = 1.6  # longer than any of these


class ColdDisk(native.Engine):
    """Its I/O threads begin when `opened` is set."""

    opened = threading.Event()

    def _run_io(self):
        self.opened.wait(20)
        super()._run_io()


@pytest.fixture
def cold_disk():
    ColdDisk.opened = threading.Event()
    yield ColdDisk.opened
    ColdDisk.opened.set()


def nothing_for(client, seconds):
    with pytest.raises(Silence):
        client.receive(seconds)


def test_a_request_without_options_keeps_its_share_while_the_disk_is_slow(serve, tmp_path, cold_disk):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(kind=ColdDisk, **QUICK)
    with Client(served.address) as client:
        client.request("file")
        nothing_for(client, WAIT_S)
        cold_disk.set()
        heard = [client.receive_packet()[0] for _ in range(4)]
    assert [type(packet) for packet in heard] == [Data, Data, Data, Error]
    assert served.completion().outcome == Outcome.TIMED_OUT
    assert served.completion().retransmits == 2


def test_a_transfer_outlives_a_disk_that_takes_longer_than_a_peer_may(serve, tmp_path, cold_disk):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(kind=ColdDisk, **QUICK)
    with Client(served.address) as client:
        client.request("file", options={"blksize": 8192})
        packet, peer = client.receive_packet()
        assert isinstance(packet, Oack)
        client.send(build_ack(0), peer)
        nothing_for(client, WAIT_S)
        cold_disk.set()
        packet, _ = client.receive_packet()
        client.send(build_ack(1), peer)
    assert isinstance(packet, Data)
    assert packet.payload == CONTENT
    completion = served.completion()
    assert (completion.outcome, completion.retransmits) == (Outcome.OK, 0)
    assert served.counter("timeouts") == 0, "and nothing was backed off"


def test_a_pipe_that_pauses_backs_nothing_off(serve):
    served = serve(**QUICK)
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    oack = build_oack([("blksize", "1000"), ("windowsize", "2")])
    served.on_request = lambda event, request: TransferPlan(
        transfer_id=event.transfer_id,
        role=Role.SENDER,
        fd=readable,
        size_bytes=0,
        blksize_bytes=1000,
        windowsize_blocks=2,
        first_packet=oack,
        context="pipe",
        stream=True,
    )
    os.write(writable, CONTENT[:2000])
    with Client(served.address) as client:
        client.request("pipe", options={"blksize": 1000, "windowsize": 2})
        _, peer = client.receive_packet()
        client.send(build_ack(0), peer)
        heard = [client.receive_packet()[0] for _ in range(2)]
        client.send(build_ack(2), peer)
        nothing_for(client, WAIT_S)
        os.write(writable, CONTENT[2000:4500])
        os.close(writable)
        heard += [client.receive_packet()[0] for _ in range(2)]
        client.send(build_ack(4), peer)
        heard.append(client.receive_packet()[0])
        client.send(build_ack(5), peer)
    assert b"".join(packet.payload for packet in heard) == CONTENT[:4500]
    completion = served.completion()
    assert (completion.outcome, completion.retransmits) == (Outcome.OK, 0)
    assert served.counter("timeouts") == 0


def test_an_upload_that_ends_while_the_disk_writes_keeps_its_first_reason(serve, tmp_path, cold_disk):
    served = serve(kind=ColdDisk, slot_bytes=8200, **QUICK)
    with Client(served.address) as client:
        packet, peer = client.exchange(build_request(Opcode.WRQ, "up", options=[("blksize", "8192")]))
        assert isinstance(packet, Oack)
        for block in range(1, 10):  # more than the 64 KiB that make a full buffer
            client.send(build_data(block, bytes(8192)), peer)
            assert client.receive_packet()[0] == Ack(block)
        client.send(build_error(3, "the client's disk is full"), peer)
        client.send(build_error(0, "and a second thought"), peer)
        served.wait(lambda: served.counter("datagrams_received") >= 12, "both errors to arrive")
        assert served.completions == []
        cold_disk.set()
        completion = served.completion()
    assert (completion.outcome, completion.error) == (Outcome.PEER_ERROR, 3)
    assert completion.text == b"the client's disk is full"
