"""What a flood of requests costs the others, counted: how often somebody is woken, how many requests a turn takes."""

import resource
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.engine.conftest import udp_socket
from tests.support.client import Client
from tests.support.server import wait_for

from snow_owl_tftp._engine import engine as native
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import build_error, build_request

BATCH = 64
REQUESTS = 16 * BATCH
DEADLINE_S = 20


@pytest.fixture
def flooded(request: pytest.FixtureRequest) -> Iterator[native.Engine]:
    """An engine that does not run yet, with requests from as many addresses in the queue of its listener."""
    tids = getattr(request, "param", 2)
    engine = native.Engine(max_batch=BATCH)
    listener = udp_socket()
    port = listener.getsockname()[1]
    for number in range(REQUESTS):
        with Client(("127.0.0.1", port), source=f"127.1.{number >> 8}.{number & 255}") as client:
            client.request(f"missing-{number}")
    engine.add_listener(0, 0, listener.detach())
    for _ in range(tids):
        engine.add_tid(0, 0, udp_socket().detach())
    yield engine
    engine.stop()
    engine.poll()
    assert not any(engine.live_objects().values())


def events_of(engine: native.Engine) -> list[native.Request]:
    with select.epoll() as poll:
        poll.register(engine.fileno(), select.EPOLLIN)
        assert poll.poll(DEADLINE_S)
    return engine.poll()


def take(engine: native.Engine) -> list[native.Request]:
    asked: list[native.Request] = []
    while len(asked) < REQUESTS:
        asked += events_of(engine)
    assert len(asked) == REQUESTS
    return asked


def test_python_is_woken_once_for_a_batch_of_requests(flooded: native.Engine) -> None:
    flooded.run()
    assert len(events_of(flooded)) >= BATCH, "or Python and the worker wake one another for each of a flood"


@pytest.mark.parametrize("flooded", [2, 0], ids=["TIDs", "single port"], indirect=True)
def test_requests_leave_a_turn_to_transfers(flooded: native.Engine) -> None:
    """Two batches of requests a turn: ACKs are read before the next two."""
    flooded.run()
    take(flooded)
    turns = flooded.counters()["epoll_wait_calls"]
    assert REQUESTS // (2 * BATCH) <= turns <= REQUESTS // (2 * BATCH) + 3


def test_refusals_of_a_batch_wake_the_worker_once(flooded: native.Engine) -> None:
    flooded.run()
    asked = take(flooded)
    before = flooded.counters()["epoll_wait_calls"]
    flooded.refuse_all([(request.transfer_id, b"") for request in asked])
    wait_for(lambda: flooded.counters()["half_open_transfers"] == 0, "all to be refused")
    assert flooded.counters()["epoll_wait_calls"] <= before + 3


def test_each_of_several_that_are_refused_hears_of_its_own_error(serve) -> None:
    served = serve(workers=2, own_ports=True)
    waiting: list[int] = []
    served.on_request = lambda event, request: waiting.append(event.transfer_id)
    clients = [Client(served.addresses[number % 2]) for number in range(10)]
    for number, client in enumerate(clients):
        client.send(build_request(Opcode.RRQ, f"missing-{number}"), client.server)
        served.wait(lambda: len(waiting) == number + 1)  # noqa: B023
    served.engine.refuse_all([(of, build_error(1, f"no {number}")) for number, of in enumerate(waiting)])
    assert [client.receive_packet()[0].text for client in clients] == [f"no {number}" for number in range(10)]
    for client in clients:
        client.close()


def test_what_was_said_before_a_wrong_answer_is_carried_out(serve) -> None:
    served = serve()
    waiting: list[int] = []
    served.on_request = lambda event, request: waiting.append(event.transfer_id)
    with Client(served.address) as client:
        client.request("missing")
        served.wait(lambda: waiting)
        with pytest.raises(ValueError, match="no such transfer"):
            served.engine.refuse_all([(waiting[0], build_error(1, "no")), (0xFF << 56, b"")])
        assert client.receive_packet()[0].text == "no"


def wait_for_requests(served, clients: list[Client]) -> list[int]:
    """The ids of one request of each client, in their order."""
    waiting: list[int] = []
    served.on_request = lambda event, request: waiting.append(event.transfer_id)
    for number, client in enumerate(clients):
        client.request("missing")
        served.wait(lambda: len(waiting) == number + 1)  # noqa: B023
    return waiting


def test_who_comes_behind_a_wrong_answer_is_refused_all_the_same(serve) -> None:
    served = serve()
    with Client(served.address) as one, Client(served.address) as two:
        first, second = wait_for_requests(served, [one, two])
        answers = [(first, build_error(1, "one")), (0xFF << 56, b""), (second, build_error(1, "two"))]
        with pytest.raises(ValueError, match="no such transfer"):
            served.engine.refuse_all(answers)
        assert [client.receive_packet()[0].text for client in (one, two)] == ["one", "two"]


@contextmanager
def no_room_for(size_bytes: int) -> Iterator[None]:
    """Nobody in this process gets so much memory at once."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size_bytes // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.once
def test_who_comes_behind_one_for_whom_there_is_no_memory_is_refused_all_the_same(serve) -> None:
    """The sanitizers' memory has no such limit."""
    served = serve()
    with Client(served.address) as one, Client(served.address) as two, Client(served.address) as three:
        first, second, third = wait_for_requests(served, [one, two, three])
        large = bytes(256 << 20)
        answers = [(first, build_error(1, "one")), (second, large), (third, build_error(1, "three"))]
        with no_room_for(len(large)), pytest.raises(MemoryError):
            served.engine.refuse_all(answers)
        assert [client.receive_packet()[0].text for client in (one, three)] == ["one", "three"]
        served.engine.refuse(second, build_error(1, "two"))
        assert two.receive_packet()[0].text == "two"


def test_nothing_is_refused_after_the_end(flooded: native.Engine) -> None:
    flooded.run()
    asked = take(flooded)
    flooded.stop()
    with pytest.raises(ValueError, match="stopped"):
        flooded.refuse_all([(asked[0].transfer_id, b"")])
