"""An upload whose file is opened when its first DATA is here: nothing is lost meanwhile, and nothing is held for who is
silent."""

import errno
import os
import threading

import pytest
from tests.support.client import Client, Refused, Silence

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Error, build_data, build_error

QUICK = {"initial_ns": 100_000_000, "give_up_ns": 600_000_000, "half_open_give_up_ns": 800_000_000}
pytestmark = pytest.mark.usefixtures("ahead")


class Desk:
    """Opens files when it is asked, and may; `limit_bytes` goes with the descriptor."""

    def __init__(self, served, path):
        self.served, self.path = served, path
        self.asked = []
        self.fds = []
        self.limit_bytes = 0
        self.may_open = threading.Event()
        self.may_open.set()
        served.on_first_data = self.on_first_data

    def on_first_data(self, event):
        self.asked.append(event.transfer_id)
        if self.may_open.is_set():
            self.open(event.transfer_id)

    def open(self, transfer_id):
        self.fds.append(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        self.served.engine.supply(transfer_id, self.fds[-1], self.limit_bytes)

    def close(self):
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def desks():
    made = []
    yield made
    for desk in made:
        desk.close()


def make(serve, tmp_path, desks, **options):
    served = serve(**options)
    desks.append(Desk(served, tmp_path / "up"))
    return served, desks[-1]


def begin(client, **options):
    client.request("up", options=options, kind=Opcode.WRQ)
    return client.receive_packet()[1]


@pytest.mark.parametrize("windowsize", [1, 4, 64])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 70_000, 3_000_001])
def test_every_size_is_kept_whole(serve, tmp_path, desks, size, windowsize):
    served, desk = make(serve, tmp_path, desks)
    payload = os.urandom(size)
    with Client(served.address) as client:
        client.put("up", payload, options={"blksize": 512 if size < 10_000 else 1428, "windowsize": windowsize})
        assert (tmp_path / "up").read_bytes() == payload
    assert served.completion().outcome == Outcome.OK
    assert len(desk.asked) == 1


def test_who_sends_no_data_is_never_asked_for_a_file(serve, tmp_path, desks):
    served, desk = make(serve, tmp_path, desks, **QUICK)
    with Client(served.address) as client:
        begin(client)
        assert served.completion().outcome == Outcome.TIMED_OUT
    assert desk.asked == []


def test_what_arrives_before_the_file_is_open_is_bounded_and_written_then(serve, tmp_path, desks):
    served, desk = make(serve, tmp_path, desks)
    desk.may_open.clear()
    payload = os.urandom(400_000)
    blocks = [payload[at : at + 1000] for at in range(0, len(payload), 1000)] + [b""]
    with Client(served.address) as client:
        peer = begin(client, blksize=1000)
        for number, block in enumerate(blocks, 1):
            client.send(build_data(number, block), peer)
            try:
                client.receive_packet(0.5)
            except Silence:
                break
        assert 200_000 < number * 1000 < 350_000, "about four buffers of 64 KiB are kept"
        desk.open(desk.asked[0])
        assert client.receive_packet()[0] == Ack(number)
        for rest in range(number + 1, len(blocks) + 1):
            client.send(build_data(rest, blocks[rest - 1]), peer)
            assert client.receive_packet()[0] == Ack(rest)
    assert (tmp_path / "up").read_bytes() == payload
    assert served.completion().outcome == Outcome.OK


def test_a_file_that_cannot_be_opened_ends_the_upload_with_the_callers_error(serve, tmp_path, desks):
    served, _ = make(serve, tmp_path, desks)
    served.on_first_data = lambda event: served.engine.commit(event.transfer_id, 3, b"no room", errno.EDQUOT)
    with Client(served.address) as client, pytest.raises(Refused) as refused:
        client.put("up", b"x" * 5000)
    assert (refused.value.code, refused.value.text) == (3, "no room")
    completion = served.completion()
    assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, errno.EDQUOT)


def test_a_success_for_what_has_not_arrived_is_ignored(serve, tmp_path, desks):
    served, desk = make(serve, tmp_path, desks)
    desk.may_open.clear()
    with Client(served.address) as client:
        peer = begin(client)
        client.send(build_data(1, b"all"), peer)
        served.wait(lambda: desk.asked)
        served.engine.commit(desk.asked[0])
        with pytest.raises(Silence):
            client.receive(0.2)
        desk.open(desk.asked[0])
        assert client.receive_packet()[0] == Ack(1)
    assert (tmp_path / "up").read_bytes() == b"all"


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_client_that_gives_up_before_the_file_is_open_ends_it_at_once(serve, tmp_path, desks, is_whole):
    served, desk = make(serve, tmp_path, desks)
    desk.may_open.clear()
    with Client(served.address) as client:
        peer = begin(client)
        client.send(build_data(1, b"x" * (5 if is_whole else 512)), peer)
        served.wait(lambda: desk.asked)
        client.send(build_error(0, "changed my mind"), peer)
        assert served.completion().outcome == Outcome.PEER_ERROR
        desk.open(desk.asked[0])  # comes too late, and changes nothing
    served.engine.stop()
    assert (tmp_path / "up").read_bytes() == b""


def test_the_limit_that_comes_with_the_file_counts_for_what_has_arrived(serve, tmp_path, desks):
    served, desk = make(serve, tmp_path, desks)
    desk.limit_bytes = 1000
    with Client(served.address) as client:
        client.put("up", b"x" * 1000)
        with pytest.raises(Refused) as refused:
            client.put("up", b"x" * 1001)
    assert refused.value.code == 3
    assert served.completion(total=2).error == errno.EFBIG


def test_a_file_that_is_never_opened_ends_the_upload_at_the_bound(serve, tmp_path, desks):
    served, desk = make(serve, tmp_path, desks, stalled_give_up_ns=500_000_000, **QUICK)
    desk.may_open.clear()
    with Client(served.address) as client:
        peer = begin(client)
        client.send(build_data(1, b"all"), peer)
        packet, _ = client.receive_packet(5)
    assert packet == Error(0, "Server busy, try again")
    completion = served.completion()
    assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, errno.ETIMEDOUT)
    assert served.counter("transfers_stalled") == 1


def test_stopping_while_files_are_being_opened_keeps_the_accounts(serve, tmp_path, desks):
    served, desk = make(serve, tmp_path, desks)
    desk.may_open.clear()
    clients = [Client(served.address) for _ in range(10)]
    for number, client in enumerate(clients):
        peer = begin(client)
        client.send(build_data(1, b"x" * (512 if number % 2 else 3)), peer)
    served.wait(lambda: len(desk.asked) == 10)
    served.engine.stop()
    served.completion(total=10)
    assert served.outcomes() == {"ABORTED": 10}
    for client in clients:
        client.close()


def test_a_descriptor_that_is_none_is_not_taken(serve, tmp_path, desks):
    served, _ = make(serve, tmp_path, desks)
    with pytest.raises(ValueError, match="descriptor"):
        served.engine.supply(1, -1)
