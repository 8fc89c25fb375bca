"""What lies in the send batch outlives nothing: a transfer may end between queueing DATA and the flush."""

import os

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp.plan.transfer import Role, TransferPlan
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Data, Oack, build_ack, build_error, build_oack, build_request

BLKSIZE, WINDOWSIZE = 1024, 4
CONTENT = bytes(i * 11 + (i >> 8) & 0xFF for i in range(8 * BLKSIZE))
# What arrives within these 5 ms is handled in one batch, with one flush behind it.
IN_ONE_BATCH = {"linger_us": 5000, "adaptive": False}
OPTIONS = [("blksize", str(BLKSIZE)), ("windowsize", str(WINDOWSIZE))]


def from_a_pipe(event, request):
    """A plan whose content is read from a pipe."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(writable, CONTENT)
    os.close(writable)
    return TransferPlan(
        transfer_id=event.transfer_id,
        role=Role.SENDER,
        fd=readable,
        size_bytes=0,
        blksize_bytes=BLKSIZE,
        windowsize_blocks=WINDOWSIZE,
        first_packet=build_oack(OPTIONS),
        context="stream",
        stream=True,
    )


def payloads(client):
    heard = []
    try:
        while True:
            packet, _ = client.receive_packet(0.3 if len(heard) < WINDOWSIZE else 0.0)
            assert isinstance(packet, Data)
            heard.append(packet.payload)
    except Silence:
        return heard


@pytest.mark.parametrize("sendmmsg", [True, False])
@pytest.mark.parametrize("source", ["file", "pipe"])
def test_an_error_right_behind_the_ack_finds_the_window_still_in_the_batch(serve, tmp_path, sendmmsg, source):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(sendmmsg=sendmmsg, **IN_ONE_BATCH)
    with Client(served.address) as client:
        client.get("file")  # resident from now on: an ACK queues DATA at once
    if source == "pipe":
        served.on_request = from_a_pipe
    for total in range(2, 12):
        with Client(served.address) as client:
            client.send(build_request(Opcode.RRQ, "file", options=OPTIONS))
            packet, peer = client.receive_packet()
            assert isinstance(packet, Oack)
            client.send(build_ack(0), peer)
            client.send(build_error(0, "enough"), peer)
            served.completion(total=total)
            assert b"".join(payloads(client)) == CONTENT[: BLKSIZE * WINDOWSIZE]
    assert served.outcomes() == {"OK": 1, "PEER_ERROR": 10}
    assert served.counter("send_errors") == 0
