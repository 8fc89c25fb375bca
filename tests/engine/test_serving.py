"""Files through the engine, on real sockets: every size, every build-in of the protocol, one thing a test."""

import pytest
from tests.support.client import Client, Refused

from snow_owl_tftp.plan.transfer import Outcome


def content(size, salt=0):
    return bytes((i * 31 + (i >> 8) + salt) & 0xFF for i in range(size))


@pytest.mark.parametrize("windowsize", [1, 4, 16])
@pytest.mark.parametrize("blksize", [8, 512, 1428])
def test_every_size_arrives_whole(serve, tmp_path, windowsize, blksize):
    served = serve()
    window = blksize * windowsize
    sizes = [0, 1, blksize - 1, blksize, blksize + 1, window - 1, window, window + 1, 3 * window + 5]
    with Client(served.address) as client:
        for size in sizes:
            (tmp_path / "file").write_bytes(content(size))
            got = client.get("file", options={"blksize": blksize, "windowsize": windowsize, "tsize": 0})
            assert got.payload == content(size)
            assert int(got.oack.get("tsize", 0)) == size  # that of an empty file is left out
            assert len(got.payload) // blksize + 1 + 1 == len(got.heard), "not one datagram too many"
    served.completion(total=len(sizes))
    assert served.outcomes() == {"OK": len(sizes)}
    assert [c.payload_bytes for c in served.completions] == sizes
    assert all(c.retransmits == 0 and c.blocks == c.payload_bytes // blksize + 1 for c in served.completions)


def test_a_missing_file_is_refused_and_starts_nothing(serve):
    served = serve()
    with Client(served.address) as client, pytest.raises(Refused, match="no such file"):
        client.get("missing")
    assert not served.started


@pytest.mark.parametrize("tuning", [{"gso": False}, {"sendmmsg": False}, {"recvmmsg": False}, {"max_batch": 1}])
def test_every_way_of_calling_the_kernel_sends_the_same_bytes(serve, tmp_path, tuning):
    served = serve(**tuning)
    (tmp_path / "file").write_bytes(content(300_000))
    with Client(served.address) as client:
        assert client.get("file", options={"blksize": 1428, "windowsize": 16}).payload == content(300_000)
        assert client.get("file").payload == content(300_000)
    counters = served.engine.counters()
    if tuning == {"sendmmsg": False}:
        assert counters["sendmmsg_calls"] == 0
        assert counters["sendto_calls"] == counters["datagrams_sent"] > 790
    if tuning == {"recvmmsg": False}:
        assert counters["recvmmsg_calls"] == 0
    if tuning == {"gso": False}:
        assert counters["gso_trains"] == 0


def test_single_port_mode_answers_from_the_request_port(serve, tmp_path):
    served = serve(tids=0)
    (tmp_path / "file").write_bytes(content(5000))
    with Client(served.address) as client:
        got = client.get("file")
        assert (got.payload, got.peer) == (content(5000), served.address)
        assert client.get("file", options={"blksize": 1428}).payload == content(5000)
    served.completion(total=2)
    assert {Outcome(c.outcome) for c in served.completions} == {Outcome.OK}
