"""What ICMP says is heard: it ends the transfer that it is about, and costs no other one a datagram."""

import contextlib
import socket

import pytest
from tests.engine.conftest import sockaddr, udp_socket
from tests.support.client import Client

from snow_owl_tftp.plan.transfer import Outcome, Role, TransferPlan
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Data, build_ack, build_data, build_request

LATE_NS = 3_000_000_000  # a timer that a busy machine does not reach
NEVER = {"give_up_ns": 600 * 10**9, "half_open_give_up_ns": 600 * 10**9, "half_open_datagrams": 100}


def make_file(tmp_path, blocks=10):
    content = b"".join(number.to_bytes(4, "big") * 128 for number in range(blocks)) + b"end"
    (tmp_path / "file").write_bytes(content)
    return content


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("tids", [4, 0])
@pytest.mark.parametrize("has_answered", [True, False])
def test_a_client_that_has_vanished_ends_its_transfer_at_its_next_repetition(serve, tmp_path, host, tids, has_answered):
    make_file(tmp_path)
    served = serve(host=host, tids=tids, initial_ns=50_000_000, **NEVER)
    with Client(served.address) as client:
        client.request("file")
        packet, tid = client.receive_packet()
        assert isinstance(packet, Data)
        if has_answered:
            client.send(build_ack(1), tid)
            assert client.receive_packet()[0].block == 2
    completion = served.completion()
    assert completion.outcome == Outcome.UNREACHABLE
    assert completion.text == b"nobody has the peer's port"
    # Its Completion comes first.
    served.wait(lambda: not served.counter("live_transfers") + served.counter("half_open_transfers"), "its end")
    assert served.counter("errors_heard") >= 1


def test_an_upload_whose_client_has_vanished_ends(serve):
    served = serve(initial_ns=50_000_000, **NEVER)
    with Client(served.address) as client:
        client.request("up", kind=Opcode.WRQ)
        packet, tid = client.receive_packet()
        assert packet == Ack(0)
        client.send(build_data(1, bytes(512)), tid)
        assert client.receive_packet()[0] == Ack(1)
    assert served.completion().outcome == Outcome.UNREACHABLE


@pytest.mark.parametrize("sendmmsg", [True, False])
@pytest.mark.parametrize("tids", [1, 0])
def test_those_who_vanish_cost_the_others_no_datagram(serve, tmp_path, tids, sendmmsg):
    """All share one socket; whatever fails on it for another's sake is done again, not left to a timer."""
    content = make_file(tmp_path, blocks=40)
    served = serve(tids=tids, sendmmsg=sendmmsg, initial_ns=LATE_NS, floor_ns=LATE_NS, **NEVER)
    with contextlib.ExitStack() as stack:
        stayers = [stack.enter_context(Client(served.address)) for _ in range(20)]
        got = dict.fromkeys(stayers, b"")
        for client in stayers:
            client.request("file")
        while any(len(payload) < len(content) for payload in got.values()):
            for client, payload in got.items():
                if len(payload) == len(content):
                    continue
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
                    # Its answer, DATA 1, meets a closed port: the error waits on the socket that all share.
                    gone.sendto(build_request(Opcode.RRQ, "file"), served.address)
                packet, tid = client.receive_packet(timeout_s=LATE_NS / 1e9 * 3)
                assert isinstance(packet, Data)
                assert packet.block == len(payload) // 512 + 1
                got[client] = payload + packet.payload
                client.send(build_ack(packet.block), tid)
    assert set(got.values()) == {content}
    served.wait(lambda: served.outcomes()["OK"] == 20, "all that stayed")
    assert sum(c.retransmits for c in served.completions if c.outcome == Outcome.OK) == 0
    # Not all: the kernel sends so many ICMP messages a second and no more (icmp_msgs_per_sec).
    served.wait(lambda: served.outcomes()["UNREACHABLE"] >= 20, "many of those that vanished")


def test_an_error_that_was_read_wakes_nobody_again(serve, tmp_path):
    make_file(tmp_path)
    served = serve(tids=1, initial_ns=50_000_000, **NEVER)
    with Client(served.address) as client:
        client.request("file")
        client.receive()
    served.completion()
    with Client(served.address) as client:
        before = served.counter("epoll_wait_calls")
        for _ in range(50):
            client.exchange(b"\0\1file\0mail\0")
        # Each exchange takes a few turns of the worker; a spinning one would take thousands.
        assert served.counter("epoll_wait_calls") - before < 50 * 8


def test_our_own_asking_ends_where_nobody_listens(serve):
    served = serve(initial_ns=LATE_NS, **NEVER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        nobody = bound.getsockname()
    request = build_request(Opcode.RRQ, "file")
    sink = served.sink(served.root / "got")
    plan = TransferPlan(0, Role.RECEIVER, sink, 0, first_packet=request, context=sink)
    served.engine.ask(plan, udp_socket().detach(), sockaddr(nobody))
    completion = served.completion()
    served.started[completion.transfer_id] += 1
    assert completion.outcome == Outcome.UNREACHABLE
