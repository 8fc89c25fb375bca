"""What a worker remembers of a client between its transfers."""

import time

from tests.support.client import Client, drop_nth

from snow_owl_tftp._engine import probe
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Data, build_ack, build_request

CONTENT = bytes(i * 5 & 0xFF for i in range(6000))
INITIAL_S = 0.4
LAN = {"initial_ns": int(INITIAL_S * 1e9), "ceiling_ns": 10**9}


def fetch_losing(served, number):
    """Seconds that a transfer takes whose datagram `number` from the server is lost; the client never repeats."""
    began = time.monotonic()
    with Client(served.address, timeout_s=60, hear=drop_nth(number)) as client:
        assert client.get("file", options={"blksize": 512}).payload == CONTENT
    return time.monotonic() - began


def test_the_first_loss_of_a_client_costs_the_initial_wait_and_later_ones_a_round_trip(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(**LAN)
    assert fetch_losing(served, 6) >= INITIAL_S
    later = [fetch_losing(served, 6) for _ in range(5)]
    assert min(later) < INITIAL_S / 2, later
    served.completion(total=6)
    assert served.outcomes() == {"OK": 6}


def test_a_lost_oack_of_a_client_whose_path_loses_is_repeated_soon(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(**LAN)
    fetch_losing(served, 6)
    later = [fetch_losing(served, 1) for _ in range(5)]
    assert min(later) < INITIAL_S / 2, later


def test_a_client_that_only_paused_is_waited_for_longer_the_next_time(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(**LAN)
    for lap in (1, 2):
        with Client(served.address) as client:
            client.send(build_request(Opcode.RRQ, "file"))
            for block in range(1, 13):
                packet, tid = client.receive_packet()
                assert isinstance(packet, Data)
                assert packet.block == block
                if block == 5:
                    # A pause that answers both copies when it ends; the second time no copy comes.
                    copies = 1 + (lap == 1)
                    if lap == 1:
                        assert client.receive_packet()[0].block == 5
                    time.sleep(INITIAL_S * 1.5 if lap == 2 else INITIAL_S / 2)
                    for _ in range(copies):
                        client.send(build_ack(5), tid)
                else:
                    client.send(build_ack(block), tid)
        ended = served.completion(total=lap)
        assert (ended.outcome, ended.retransmits) == (Outcome.OK, 2 - lap)


def test_what_is_remembered_is_counted(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(**LAN)
    names = ("memory_learned", "memory_used", "memory_replaced")
    for expected in ([1, 0, 0], [1, 1, 0], [1, 2, 0]):
        fetch_losing(served, 6)
        assert [served.counter(name) for name in names] == expected


def test_a_full_set_gives_up_its_oldest_client_and_says_so():
    memory = probe.MemoryProbe()
    one_set = [2048 * i + 5 for i in range(5)]
    second = 1 << 30
    assert [memory.keep(client, i * second) for i, client in enumerate(one_set)] == ["learned"] * 4 + ["replaced"]
    assert [memory.recall(client, 5 * second) for client in one_set] == [False, True, True, True, True]
    assert memory.keep(one_set[1], 6 * second) == "same"
    # What is forgotten makes room without a loss, and so does its own return.
    assert memory.keep(one_set[0], 310 * second) == "learned"
    assert memory.keep(one_set[2], 311 * second) == "learned"
    assert memory.keep(7, 0, loses=False) == "same"
    assert not memory.recall(7, 0)
