"""tftpd-hpa's own options over the wire: what is granted is obeyed."""

import time

import pytest
from tests.support.client import Client
from tests.support.server import serve_in_thread
from tests.support.uploads import serve_uploads

from snow_owl_tftp import Response, Server
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Data, Oack, build_ack, build_data
from snow_owl_tftp.protocol.seq import Rollover, block_of

BLOCKS = 65_600
CONTENT = b"".join(b"%07d\n" % number for number in range(1, BLOCKS))  # blocks of 8 bytes, and an empty one
WINDOW = 32


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "up").mkdir(parents=True)
    (root / "file").write_bytes(CONTENT)
    return root


def test_options_are_answered_and_a_cookie_is_echoed(root):
    asked = {"blksize2": 1500, "utimeout": 500_000, "rollover": 0, "cookie": "as sent"}
    with serve_in_thread(root) as server, Client(server.address) as client:
        got = client.get("file", options={**asked, "tsize": 0})
    assert got.payload == CONTENT
    assert got.oack == {
        "blksize2": "1024",
        "utimeout": "500000",
        "rollover": "0",
        "cookie": "as sent",
        "tsize": str(len(CONTENT)),
    }
    assert all(len(data) == 1028 for data in got.heard[1:-1])


def test_an_empty_file_arrives_without_its_size(root):
    (root / "empty").write_bytes(b"")
    with serve_in_thread(root) as server, Client(server.address) as client:
        assert client.get("empty", options={"tsize": 0}).oack == {}
        assert client.get("empty", options={"tsize": 0, "blksize": 512}).oack == {"blksize": "512"}


def test_utimeout_is_the_time_between_repetitions(root):
    settings = {"retransmit.initial_ms": 5000, "retransmit.ceiling_ms": 5000, "retransmit.half_open_max_datagrams": 4}
    with serve_in_thread(root, settings) as server, Client(server.address) as client:
        client.request("file", options={"utimeout": 60_000})
        came_s = []
        for _ in range(4):
            packet, _ = client.receive_packet(timeout_s=4.0)
            assert isinstance(packet, Oack)
            came_s.append(time.monotonic())
    # A lower bound, which no busy machine breaks; the upper one is that all came long before a measured timer.
    assert came_s[3] - came_s[0] > 0.1


def read_blocks(address, rollover):
    with Client(address) as client:
        client.request("file", options={"blksize": 8, "windowsize": WINDOW, "rollover": int(rollover)})
        oack, tid = client.receive_packet()
        assert ("rollover", str(int(rollover))) in oack.options
        client.send(build_ack(0), tid)
        expected = 1
        while expected <= BLOCKS:
            packet, _ = client.receive_packet()
            assert isinstance(packet, Data)
            if packet.block != block_of(expected, rollover):
                continue  # a window that was sent again
            assert packet.payload == CONTENT[(expected - 1) * 8 : expected * 8]
            if expected % WINDOW == 0 or expected == BLOCKS:
                client.send(build_ack(packet.block), tid)
            expected += 1


def write_blocks(address, rollover):
    with Client(address) as client:
        options = {"blksize": 8, "windowsize": WINDOW, "rollover": int(rollover)}
        client.request("up/file", kind=Opcode.WRQ, options=options)
        oack, tid = client.receive_packet()
        assert ("rollover", str(int(rollover))) in oack.options
        acked = 0
        while acked < BLOCKS:
            end = min(acked + WINDOW, BLOCKS)
            for index in range(acked + 1, end + 1):
                client.send(build_data(block_of(index, rollover), CONTENT[(index - 1) * 8 : index * 8]), tid)
            packet, _ = client.receive_packet()
            assert isinstance(packet, Ack)
            while packet.block != block_of(end, rollover):
                packet, _ = client.receive_packet()
            acked = end


@pytest.mark.parametrize("rollover", list(Rollover))
def test_blocks_of_a_read_go_on_as_agreed(root, rollover):
    with serve_in_thread(root) as server:
        read_blocks(server.address, rollover)


@pytest.mark.parametrize("rollover", list(Rollover))
def test_blocks_of_an_upload_go_on_as_agreed(root, rollover):
    with serve_uploads(root) as server:
        write_blocks(server.address, rollover)
    assert (root / "up/file").read_bytes() == CONTENT


def test_blocks_of_a_handler_go_on_as_agreed():
    taken = []
    with Server(read=lambda request: Response(CONTENT), write=taken.append) as server:
        read_blocks(server.address, Rollover.TO_1)
        write_blocks(server.address, Rollover.TO_1)
    assert taken[0].data == CONTENT
