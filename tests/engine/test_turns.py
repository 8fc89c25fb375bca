"""How much one transfer may do in a turn of the worker's loop, told by the worker's counters, not by a clock."""

import pytest
from tests.support.client import Client

from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Oack, build_ack, build_error, build_request

BLOCKS_A_TURN = 256
PATIENT = {"initial_ns": 20 * 10**9, "floor_ns": 20 * 10**9, "ceiling_ns": 20 * 10**9}  # no timer ends a turn


def turns_of_one_window(served, blksize, windowsize):
    """How often the loop turns for the first window of `file`, which is in memory, and how many blocks left."""
    with Client(served.address) as client:
        client.get("file", options={"blksize": 65464})
        served.completion(total=1)
        options = [("blksize", str(blksize)), ("windowsize", str(windowsize))]
        client.send(build_request(Opcode.RRQ, "file", options=options))
        packet, peer = client.receive_packet()
        assert isinstance(packet, Oack)
        before = served.engine.counters()
        client.send(build_ack(0), peer)
        served.wait(lambda: served.counter("blocks_sent") >= before["blocks_sent"] + windowsize)
        after = served.engine.counters()
        client.send(build_error(0, "enough"), peer)
        served.completion(total=2)
    assert after["blocks_sent"] - before["blocks_sent"] == windowsize
    return after["epoll_wait_calls"] - before["epoll_wait_calls"]


def test_a_window_of_tiny_blocks_leaves_in_several_turns(serve, tmp_path):
    """Or one client with blksize 8 and windowsize 32767 keeps everybody waiting for 32,767 datagrams."""
    (tmp_path / "file").write_bytes(bytes(8 * 3000))
    # The turn in which the ACK comes was counted when it began to wait for it.
    assert turns_of_one_window(serve(**PATIENT), 8, 2560) >= 2560 // BLOCKS_A_TURN - 1


@pytest.mark.parametrize(("blksize", "windowsize"), [(512, 124), (1428, 64), (8192, 11), (65464, 1)])
def test_a_window_that_fits_the_usual_buffer_leaves_whole(serve, tmp_path, blksize, windowsize):
    """What a socket with the default size holds, and a quarter less; larger ones leave in bursts."""
    (tmp_path / "file").write_bytes(bytes(blksize * (windowsize + 1)))
    # One turn for the ACK; a counter read in the middle of it may see the next one begin.
    assert turns_of_one_window(serve(**PATIENT), blksize, windowsize) <= 2
