"""The asking side: the same engine with the roles turned round, against an engine that serves."""

import os
import random
import socket

import pytest
from tests.engine.conftest import sockaddr, udp_socket
from tests.support.relay import Relay, Weather

from snow_owl_tftp.plan.transfer import Outcome, Role, TransferPlan
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.oack import accept_oack_untrusted
from snow_owl_tftp.protocol.packets import Ack, build_ack, build_data, build_error, build_oack, build_request

CONTENT = random.Random(3).randbytes(200_001)
QUICK = {"initial_ns": 50_000_000, "floor_ns": 5_000_000, "give_up_ns": 500_000_000, "half_open_give_up_ns": 10**9}


class Asker:
    """What a client does around an engine: reads the OACK, resumes, keeps what came."""

    def __init__(self, served, folder):
        self.served = served
        self.folder = folder
        self.asked = 0
        self.contexts = []
        served.on_answer = self.answer

    def get(self, address, name, options=(), sock=None):
        sink = os.open(self.folder / f"got-{self.asked}", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._ask(Role.RECEIVER, Opcode.RRQ, sink, 0, address, name, options, sock)
        return self.folder / f"got-{self.asked}"

    def put(self, address, path, name, options=()):
        self._ask(Role.SENDER, Opcode.WRQ, os.open(path, os.O_RDONLY), path.stat().st_size, address, name, options)

    def _ask(self, role, kind, fd, size, address, name, options, sock=None):
        self.asked += 1
        self.contexts.append((role, fd, tuple(options)))
        plan = TransferPlan(
            transfer_id=0,
            role=role,
            fd=fd,
            size_bytes=size,
            first_packet=build_request(kind, name, options=options),
            context=self.contexts[-1],
        )
        self.served.engine.ask(plan, udp_socket().detach() if sock is None else sock, sockaddr(address))

    def answer(self, event):
        role, _, options = event.context
        agreed = accept_oack_untrusted(options, event.datagram)
        plan = TransferPlan(
            transfer_id=event.transfer_id,
            role=role,
            fd=-1,
            size_bytes=0,
            blksize_bytes=agreed.blksize_bytes,
            windowsize_blocks=agreed.windowsize_blocks,
            timeout_ns=(agreed.timeout_s or 0) * 10**9,
            context=event.context,
        )
        self.served.engine.resume(event.transfer_id, plan)

    def wait(self, total):
        completions = self.served.wait(lambda: len(self.served.completions) >= total and self.served.completions)
        for completion in completions:
            if completion.role == Role.RECEIVER:
                os.close(completion.context[1])
        # No Request started these: the fixture's account is theirs, too.
        self.served.started.update(completion.transfer_id for completion in completions)
        return completions


def make_asker(serve, tmp_path, timers):
    folder = tmp_path / "asker"
    folder.mkdir()
    return Asker(serve(folder, slot_bytes=8200, **timers), folder)


@pytest.fixture
def asker(serve, tmp_path):
    return make_asker(serve, tmp_path, QUICK)


OPTIONS = [
    (),
    (("blksize", "1428"),),
    (("blksize", "1428"), ("windowsize", "16")),
    (("blksize", "8192"), ("tsize", "0")),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 1428 * 16, len(CONTENT)])
def test_engine_gets_from_engine(serve, asker, tmp_path, options, size):
    served = serve()
    (tmp_path / "file").write_bytes(CONTENT[:size])
    got = asker.get(served.address, "file", options)
    (completion,) = asker.wait(1)
    assert (completion.outcome, completion.payload_bytes) == (Outcome.OK, size)
    assert got.parent.joinpath("got-0").read_bytes() == CONTENT[:size]
    assert served.completion().outcome == Outcome.OK


@pytest.mark.parametrize("options", OPTIONS[:3])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 1428 * 16, len(CONTENT)])
def test_engine_puts_to_engine(serve, asker, tmp_path, options, size):
    served = serve()
    (tmp_path / "source").write_bytes(CONTENT[:size])
    asker.put(served.address, tmp_path / "source", "up", options)
    (completion,) = asker.wait(1)
    assert (completion.outcome, completion.payload_bytes) == (Outcome.OK, size)
    assert (tmp_path / "up").read_bytes() == CONTENT[:size]
    served.completion()


@pytest.mark.parametrize("windowsize", ["1", "4", "64"])
def test_both_directions_through_a_rough_network(serve, tmp_path, windowsize):
    # Half a second without progress is a matter of luck here, three lost tries and a busy machine: nobody gives up.
    patient = QUICK | {"give_up_ns": 15 * 10**9, "half_open_give_up_ns": 15 * 10**9, "half_open_datagrams": 20}
    asker = make_asker(serve, tmp_path, patient)
    served = serve(**patient)
    (tmp_path / "file").write_bytes(CONTENT)
    options = (("blksize", "1428"), ("windowsize", windowsize))
    with Relay(served.address, Weather(loss=0.02, duplicate=0.02, late=0.02), windowsize) as relay:
        for i in range(4):
            asker.get(relay.address, "file", options)
            asker.put(relay.address, tmp_path / "file", f"up-{i}", options)
        completions = asker.wait(8)
    assert [(Outcome(c.outcome).name, c.text) for c in completions] == [("OK", b"")] * 8
    for i in range(4):
        assert (tmp_path / f"up-{i}").read_bytes() == CONTENT
        assert (asker.folder / f"got-{2 * i}").read_bytes() == CONTENT


def test_a_refusal_is_a_completion_with_the_servers_words(serve, asker):
    served = serve()
    asker.get(served.address, "missing")
    (completion,) = asker.wait(1)
    assert (completion.outcome, completion.error, completion.text) == (Outcome.PEER_ERROR, 1, b"no such file")


def test_a_server_that_is_not_there_times_out(asker):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asker.get(silent.getsockname(), "file")
        (completion,) = asker.wait(1)
    assert completion.outcome == Outcome.TIMED_OUT
    assert completion.retransmits >= 3


def test_progress_tells_silence_from_an_answer_without_payload(asker, tmp_path):
    """ACK 0 moves no byte, but whoever sent it is there: a caller that asked somebody else now would be wrong."""
    (tmp_path / "source").write_bytes(CONTENT)

    def told(context):
        asker.served.progress.clear()
        asker.served.engine.ask_progress(context)
        return asker.served.wait(lambda: asker.served.progress)[0]

    with udp_socket() as server:
        server.setblocking(True)
        server.settimeout(5)
        asker.put(server.getsockname(), tmp_path / "source", "up")
        request, client = server.recvfrom(2000)
        assert server.recv(2000) == request
        context = asker.contexts[-1]
        silence = told(context)
        assert (silence.datagrams_in, silence.payload_bytes) == (0, 0)
        assert silence.datagrams_out >= 2
        server.sendto(build_ack(0), client)
        while server.recv(2000)[:2] != b"\0\3":
            pass
        assert (told(context).datagrams_in, told(context).payload_bytes) == (1, 0)
        server.sendto(build_error(0, "enough"), client)
        asker.wait(1)


def test_the_first_answer_fixes_the_servers_tid(asker):
    """RFC 1350 section 4: the second answer to a doubled request is a stranger's, and gets ERROR 5."""
    with udp_socket() as listener, udp_socket() as first, udp_socket() as second:
        for one in (listener, first, second):
            one.setblocking(True)
            one.settimeout(5)
        asker.get(listener.getsockname(), "file", (("blksize", "1000"),))
        _, client = listener.recvfrom(2000)
        first.sendto(build_oack([("blksize", "1000")]), client)
        assert first.recv(2000) == build_ack(0)
        second.sendto(build_oack([("blksize", "1000")]), client)
        assert second.recv(2000)[:4] == b"\0\5\0\5"
        first.sendto(build_oack([("blksize", "1000")]), client)  # our ACK 0 was lost, it believes
        assert first.recv(2000) == build_ack(0)
        second.sendto(build_data(1, b"forged"), client)
        first.sendto(build_data(1, b"true"), client)
        (received,) = [first.recv(2000)]
        assert received == build_ack(1)
    asker.wait(1)
    assert (asker.folder / "got-0").read_bytes() == b"true"


def test_an_error_while_our_request_is_in_flight_ends_it(asker):
    with udp_socket() as listener:
        listener.setblocking(True)
        asker.get(listener.getsockname(), "file")
        _, client = listener.recvfrom(2000)
        listener.sendto(build_error(2, "not for you"), client)
        (completion,) = asker.wait(1)
    assert (completion.error, completion.text) == (2, b"not for you")


@pytest.mark.parametrize("end", [build_error(1, "no"), build_data(1, bytes(513))])
def test_what_comes_behind_the_end_of_a_transfer_is_not_answered(asker, end):
    """Its socket is closed: what would be sent from it would leave through whoever has the number by now."""
    with udp_socket() as server, udp_socket() as mine:
        behind = [end, build_data(1, b"late"), build_data(2, b"late"), build_ack(3)]
        for datagram in behind:  # they wait in the socket before the engine has it, so it takes all at once
            server.sendto(datagram, mine.getsockname())
        asker.get(server.getsockname(), "file", sock=mine.detach())
        asker.wait(1)
        # Counted as strays once they were looked at; as received before that.
        asker.served.wait(lambda: asker.served.counter("strays") == len(behind) - 1, "all of them")
    counts = {name: asker.served.counter(name) for name in ("strays", "strays_answered", "send_errors")}
    assert counts == {"strays": len(behind) - 1, "strays_answered": 0, "send_errors": 0}


def test_an_answer_that_is_refused_tells_the_server(asker):
    asker.served.on_answer = lambda event: asker.served.engine.abort(event.transfer_id, 8, b"not asked for")
    with udp_socket() as listener:
        listener.setblocking(True)
        listener.settimeout(5)
        asker.get(listener.getsockname(), "file", (("blksize", "1000"),))
        _, client = listener.recvfrom(2000)
        listener.sendto(build_oack([("blksize", "2000")]), client)
        assert listener.recv(2000) == build_error(8, "not asked for")
        (completion,) = asker.wait(1)
    assert completion.outcome == Outcome.ABORTED


def test_bytes_for_nobody_harm_nobody(asker):
    with udp_socket() as listener:
        listener.setblocking(True)
        listener.settimeout(5)
        asker.get(listener.getsockname(), "file")
        _, client = listener.recvfrom(2000)
        for junk in (b"", b"\0", b"\0\3", b"\0\3\0", b"\0\7\0\1", b"\xff" * 600, build_ack(1)):
            listener.sendto(junk, client)
        listener.sendto(build_data(1, b"good"), client)
        assert listener.recv(2000) == build_ack(1)
        assert Ack(1)
    asker.wait(1)
    assert (asker.folder / "got-0").read_bytes() == b"good"
