"""The receiving side: what is kept is what was sent, the last ACK waits for the verdict, and a full disk is told."""

import errno
import os
import threading

import pytest
from tests.support.client import Client, Refused, Silence, double_nth, drop_nth

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Error, Oack, build_data, build_error, build_request

QUICK = {"initial_ns": 100_000_000, "give_up_ns": 600_000_000, "half_open_give_up_ns": 800_000_000}
pytestmark = pytest.mark.usefixtures("ahead")


def content(size):
    return bytes((i * 17 + (i >> 9)) & 0xFF for i in range(size))


def put_raw(client, blocks, options=(), blksize=512):
    """WRQ, then `blocks` one by one in lock-step; returns the packets that answered."""
    answers = [client.exchange(build_request(Opcode.WRQ, "up", options=options))]
    peer = answers[0][1]
    for number, payload in enumerate(blocks, 1):
        client.send(build_data(number, payload), peer)
        answers.append(client.receive_packet())
    return [packet for packet, _ in answers], peer


@pytest.mark.parametrize("windowsize", [1, 4, 16])
@pytest.mark.parametrize("blksize", [8, 512, 1428])
def test_every_size_is_kept_whole(serve, tmp_path, windowsize, blksize):
    served = serve()
    window = blksize * windowsize
    sizes = [0, 1, blksize - 1, blksize, blksize + 1, window, window + 1, 3 * window + 5]
    for size in sizes:
        with Client(served.address) as client:
            client.put("up", content(size), options={"blksize": blksize, "windowsize": windowsize, "tsize": size})
            assert (tmp_path / "up").read_bytes() == content(size)
    served.completion(total=len(sizes))
    assert [(c.outcome, c.payload_bytes) for c in served.completions] == [(Outcome.OK, size) for size in sizes]


def test_a_client_that_keeps_its_port_may_upload_again_and_again(serve, tmp_path):
    served = serve(tids=4)
    with Client(served.address) as client:
        for i in range(10):
            client.put("up", content(600 + i))
            assert (tmp_path / "up").read_bytes() == content(600 + i)


def test_an_upload_longer_than_the_engines_buffers_is_written_in_order(serve, tmp_path):
    served = serve(io_threads=4)
    payload = os.urandom(5_000_003)
    with Client(served.address) as client:
        client.put("up", payload, options={"blksize": 1428, "windowsize": 64})
    assert (tmp_path / "up").read_bytes() == payload
    assert served.counter("file_writes") > 1
    served.completion()


def test_a_fast_upload_is_written_a_few_buffers_at_a_time(serve, tmp_path):
    served = serve()
    payload = os.urandom(4 << 20)
    with Client(served.address) as client:
        client.put("up", payload, options={"blksize": 1428, "windowsize": 64})
    assert (tmp_path / "up").read_bytes() == payload
    served.completion()
    buffers = -(-len(payload) // 65536)
    assert 1 < served.counter("file_writes") <= buffers // 2 + 1


def test_without_options_ack_0_begins_and_is_repeated(serve):
    served = serve(**QUICK)
    with Client(served.address) as client:
        client.send(build_request(Opcode.WRQ, "up"))
        first, peer = client.receive_packet()
        again, _ = client.receive_packet()
        assert first == again == Ack(0)
        client.send(build_data(1, b"end"), peer)
        packet, _ = client.receive_packet()
        assert packet == Ack(1)
    assert served.completion().outcome == Outcome.OK


def test_a_lost_oack_is_repeated_and_the_upload_goes_on(serve, tmp_path):
    served = serve(**QUICK)
    with Client(served.address, timeout_s=60, hear=drop_nth(1)) as client:
        client.put("up", content(3000), options={"blksize": 1000})
    assert (tmp_path / "up").read_bytes() == content(3000)
    assert served.completion().retransmits == 1


@pytest.mark.parametrize("windowsize", [1, 4])
@pytest.mark.parametrize("fault", [drop_nth(3, 8), double_nth(3, 8)])
def test_lost_and_doubled_data_and_acks_change_nothing(serve, tmp_path, windowsize, fault):
    served = serve(**QUICK)
    with Client(served.address, timeout_s=0.1, say=fault, hear=fault) as client:
        client.put("up", content(20_000), options={"blksize": 1000, "windowsize": windowsize})
    assert (tmp_path / "up").read_bytes() == content(20_000)
    served.completion()


def test_the_last_ack_waits_for_the_commit(serve):
    served = serve()
    committed = threading.Event()
    served.verdict = lambda received: () if committed.wait(10) else (0, b"never")
    with Client(served.address) as client:
        client.send(build_request(Opcode.WRQ, "up"))
        _, peer = client.receive_packet()
        client.send(build_data(1, b"all of it"), peer)
        with pytest.raises(Silence):
            client.receive(0.2)
        client.send(build_data(1, b"all of it"), peer)  # impatient
        with pytest.raises(Silence):
            client.receive(0.1)
        committed.set()
        assert client.receive_packet()[0] == Ack(1)
    assert served.completion().payload_bytes == 9


def test_the_last_ack_is_repeated_on_demand_while_dallying(serve):
    served = serve()
    with Client(served.address) as client:
        answers, peer = put_raw(client, [b"x" * 512, b"end"])
        assert answers == [Ack(0), Ack(1), Ack(2)]
        assert served.completion().outcome == Outcome.OK
        for _ in range(3):
            client.send(build_data(2, b"end"), peer)
            assert client.receive_packet()[0] == Ack(2)
        client.send(build_data(1, b"x" * 512), peer)
        with pytest.raises(Silence):
            client.receive(0.1)
    assert served.counter("dallying_transfers") == 1, "dallying; stop() lets it go"


def test_a_refused_commit_sends_the_error_instead_of_the_last_ack(serve):
    served = serve()
    served.verdict = lambda received: (6, b"exists already", errno.EEXIST)
    with Client(served.address) as client, pytest.raises(Refused) as refused:
        client.put("up", content(2000))
    assert (refused.value.code, refused.value.text) == (6, "exists already")
    completion = served.completion()
    assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, errno.EEXIST)


# --- too much, and full disks ----------------------------------------------------------------------------


def test_more_than_the_limit_is_refused_with_error_3(serve):
    served = serve()
    served.limit_bytes = 1000
    with Client(served.address) as client:
        client.put("up", content(1000))
        with pytest.raises(Refused) as refused:
            client.put("up", content(1001))
        assert refused.value.code == 3
    completion = served.completion(total=2)
    assert (completion.outcome, completion.error) == (Outcome.ABORTED, errno.EFBIG)
    assert completion.payload_bytes <= 1000


def test_more_than_the_announced_tsize_is_refused(serve):
    served = serve()
    with Client(served.address) as client:
        answers, _ = put_raw(client, [b"x" * 512, b"y" * 512], options=[("tsize", "600")])
    assert isinstance(answers[0], Oack)
    assert isinstance(answers[2], Error)
    assert answers[2].code == 3
    served.completion()


def test_a_full_disk_is_reported_not_acknowledged(serve):
    served = serve()
    served.sink = lambda path: os.open("/dev/full", os.O_RDWR)
    with Client(served.address) as client, pytest.raises(Refused, match="disk full") as refused:
        client.put("up", content(500))
    assert refused.value.code == 3
    completion = served.completion()
    assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, errno.ENOSPC)


def test_a_full_disk_ends_a_long_upload_early(serve):
    served = serve()
    served.sink = lambda path: os.open("/dev/full", os.O_RDWR)
    with Client(served.address) as client, pytest.raises(Refused, match="disk full"):
        client.put("up", content(5_000_000), options={"blksize": 1428, "windowsize": 16})
    assert served.completion().payload_bytes < 5_000_000


def test_a_sink_that_cannot_be_written_is_an_io_error(serve, tmp_path):
    served = serve()
    (tmp_path / "ro").touch()
    served.sink = lambda path: os.open(tmp_path / "ro", os.O_RDONLY)
    with Client(served.address) as client, pytest.raises(Refused, match="I/O error") as refused:
        client.put("up", content(500))
    assert refused.value.code == 0
    assert served.completion().error == errno.EBADF


def test_data_longer_than_the_block_size_is_refused(serve):
    served = serve()
    with Client(served.address) as client:
        answers, _ = put_raw(client, [b"x" * 513])
    assert (answers[1].code, answers[1].text) == (4, "DATA longer than the block size")
    assert served.completion().outcome == Outcome.ABORTED


# --- ends ------------------------------------------------------------------------------------------------


def test_a_peers_error_ends_an_upload_at_once(serve):
    served = serve()
    with Client(served.address) as client:
        _, peer = put_raw(client, [b"x" * 512])
        client.send(build_error(0, "changed my mind"), peer)
        completion = served.completion()
    assert (completion.outcome, completion.text) == (Outcome.PEER_ERROR, b"changed my mind")
    assert completion.payload_bytes == 512


def test_a_silent_uploader_is_given_up(serve):
    served = serve(**QUICK)
    with Client(served.address) as client:
        put_raw(client, [b"x" * 512])
        packet = None
        while not isinstance(packet, Error):
            packet, _ = client.receive_packet()
    assert served.completion().outcome == Outcome.TIMED_OUT


def test_stopping_in_the_middle_of_uploads_keeps_the_accounts(serve):
    served = serve()
    clients = [Client(served.address) for _ in range(10)]
    for client in clients:
        _, peer = put_raw(client, [])
        for number in range(1, 8):
            client.send(build_data(number, b"x" * 512), peer)
    served.engine.stop()
    served.completion(total=10)
    assert served.outcomes() == {"ABORTED": 10}
    for client in clients:
        client.close()
