"""Far into a file: past block 65535, past 4 GiB."""

import hashlib
import time

import pytest
from tests.support.client import Client

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import build_ack, build_request

BLOCKS = 65_600
PATTERN = bytes(range(256)) * 32


def rolling(size):
    """Content in which no two blocks of 8 bytes are alike."""
    return b"".join(i.to_bytes(8, "big") for i in range(size // 8 + 1))[:size]


@pytest.mark.parametrize("windowsize", [1, 64])
def test_blocks_go_on_with_0_after_65535(serve, tmp_path, windowsize):
    served = serve()
    content = rolling(8 * BLOCKS + 3)
    (tmp_path / "file").write_bytes(content)
    with Client(served.address) as client:
        got = client.get("file", options={"blksize": 8, "windowsize": windowsize})
    assert got.payload == content
    completion = served.completion()
    assert (completion.outcome, completion.blocks) == (Outcome.OK, BLOCKS + 1)


def test_uploads_follow_a_rollover(serve, tmp_path):
    served = serve()
    content = rolling(8 * BLOCKS + 3)
    with Client(served.address) as client:
        client.put("up", content, options={"blksize": 8, "windowsize": 64})
    assert (tmp_path / "up").read_bytes() == content
    assert served.completion().blocks == BLOCKS + 1


class Samples:
    """Hashes of a few stretches of a stream that is far too long to keep."""

    def __init__(self, starts, length):
        self.wanted = {start: hashlib.sha256() for start in starts}
        self.length = length
        self.position = 0

    def feed(self, payload):
        end = self.position + len(payload)
        for start, digest in self.wanted.items():
            if start < end and self.position < start + self.length:
                digest.update(payload[max(0, start - self.position) : start + self.length - self.position])
        self.position = end


def read_windows(client, blksize, windowsize, samples):
    """A receiver without bookkeeping: loopback and a big buffer lose nothing, and what is lost is found out."""
    client.send(build_request(Opcode.RRQ, "file", options=[("blksize", str(blksize)), ("windowsize", str(windowsize))]))
    datagram, peer = client.receive()
    assert datagram[:2] == b"\0\6"
    client.send(build_ack(0), peer)
    recv, index, unacknowledged = client.socket.recv, 0, 0
    client.socket.settimeout(10)
    while True:
        datagram = recv(65536)
        if datagram[2:4] != ((index + 1) & 0xFFFF).to_bytes(2, "big"):
            unacknowledged = 0
            client.send(build_ack(index & 0xFFFF), peer)
            continue
        index += 1
        unacknowledged += 1
        samples.feed(datagram[4:])
        if len(datagram) - 4 < blksize or unacknowledged == windowsize:
            unacknowledged = 0
            client.send(build_ack(index & 0xFFFF), peer)
        if len(datagram) - 4 < blksize:
            return index


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_file_of_5_gib_is_read_to_its_end(serve, tmp_path):
    served = serve()
    size, length = 5 << 30, 1 << 20
    starts = [0, (1 << 32) - length // 2, (1 << 31) + 17, size - length]
    with (tmp_path / "file").open("wb") as sparse:
        sparse.truncate(size)
        for salt, start in enumerate(starts):
            sparse.seek(start)
            sparse.write(PATTERN[salt:] + bytes([salt]) * (length - len(PATTERN) + salt))
    expected = []
    with (tmp_path / "file").open("rb") as sparse:
        for start in starts:
            sparse.seek(start)
            expected.append(hashlib.sha256(sparse.read(length)).hexdigest())
    samples = Samples(starts, length)
    began = time.monotonic()
    with Client(served.address) as client:
        blocks = read_windows(client, 65464, 64, samples)
    print(f"5 GiB in {time.monotonic() - began:.1f} s, {blocks} blocks")
    assert samples.position == size
    assert [digest.hexdigest() for digest in samples.wanted.values()] == expected
    assert served.completion().payload_bytes == size
