"""Server, driven by deciders of the tests' own: at once, later, wrongly, and as part of another program."""

import asyncio
import gc
import os
import re
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.boot import BOOT
from tests.support.client import Client, Refused
from tests.support.descriptors import open_descriptors, settled_descriptors
from tests.support.server import make_server, serve_in_thread, wait_for
from tests.support.uploads import make_root as make_upload_root
from tests.support.uploads import serve_uploads

from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.source import LATER, Named, NotHere
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.plan.transfer import Role, TransferPlan
from snow_owl_tftp.protocol.options import OptionLimits, negotiate
from snow_owl_tftp.protocol.packets import Error, parse_request_untrusted
from snow_owl_tftp.server import waiting
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.verdict import Accepted, IncomingRequest, TransferContext, Verdict, refuse
from snow_owl_tftp.server.writes import UploadAnswerer


def accept(asked: IncomingRequest, payload: bytes, *, size_bytes: int | None = None) -> Accepted:
    """Serve bytes that lie in no file."""
    request = parse_request_untrusted(asked.datagram)
    fd = os.memfd_create("test")
    os.write(fd, payload)
    negotiated = negotiate(request, size_bytes=len(payload), limits=OptionLimits())
    plan = TransferPlan(
        transfer_id=asked.transfer_id,
        role=Role.SENDER,
        fd=fd,
        size_bytes=len(payload) if size_bytes is None else size_bytes,
        blksize_bytes=negotiated.blksize_bytes,
        windowsize_blocks=negotiated.windowsize_blocks,
        first_packet=negotiated.oack,
        context=TransferContext(request, len(payload), negotiated),
    )
    return Accepted(plan, None)


class Answering:
    """A decider made of one function."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def decide(self, asked: IncomingRequest) -> Verdict | Awaitable[Verdict]:
        verdict: Verdict | Awaitable[Verdict] = self.answer(asked)
        return verdict


@pytest.fixture(autouse=True)
def _no_garbage() -> None:
    """A server that an earlier test left in a cycle closes its descriptors now, not while they are counted."""
    gc.collect()


def test_decider_may_answer_at_once(root: Path) -> None:
    def greet(asked: IncomingRequest) -> Verdict:
        host, port = asked.peer
        return accept(asked, f"hello {host}:{port}".encode())

    with serve_in_thread(root, decider=Answering(greet)) as server, Client(server.address) as client:
        assert client.get("anything").payload == f"hello 127.0.0.1:{client.port}".encode()


def test_decider_may_be_a_coroutine(root: Path) -> None:
    async def decide_after_others(asked: IncomingRequest) -> Verdict:
        await asyncio.sleep(0)
        return accept(asked, b"later")

    with serve_in_thread(root, decider=Answering(decide_after_others)) as server, Client(server.address) as client:
        assert client.get("anything").payload == b"later"


def test_slow_decision_does_not_hold_up_the_others(root: Path) -> None:
    release = threading.Event()

    async def slow(asked: IncomingRequest) -> Verdict:
        await asyncio.to_thread(release.wait, 10)
        return accept(asked, b"slow")

    def decide(asked: IncomingRequest) -> Verdict | Awaitable[Verdict]:
        return slow(asked) if b"slow" in asked.datagram else accept(asked, b"fast")

    with (
        serve_in_thread(root, decider=Answering(decide)) as server,
        Client(server.address) as one,
        Client(server.address) as two,
    ):
        one.request("slow")
        assert two.get("fast").payload == b"fast"
        assert not one.has_heard()
        release.set()
        assert one.get("slow").payload == b"slow"


@pytest.mark.parametrize("is_later", [False, True])
def test_bug_in_a_decider_is_error_0_and_a_traceback_and_the_server_lives(root: Path, is_later: bool) -> None:
    def fail(asked: IncomingRequest) -> Verdict:
        if b"boom" in asked.datagram:
            raise ZeroDivisionError("secret detail")
        return accept(asked, b"fine")

    async def fail_later(asked: IncomingRequest) -> Verdict:
        return fail(asked)

    decider = Answering(fail_later if is_later else fail)
    with serve_in_thread(root, decider=decider) as server, Client(server.address) as client:
        with pytest.raises(Refused) as refused:
            client.get("boom")
        assert (refused.value.code, refused.value.text) == (0, "Internal error")
        assert client.get("good").payload == b"fine"
        wait_for(lambda: "ZeroDivisionError" in server.log, "the traceback in the log")
        assert "ERROR" in server.log


@pytest.mark.parametrize("is_later", [False, True])
def test_refusal_leaves_although_telling_of_it_fails(
    root: Path, monkeypatch: pytest.MonkeyPatch, is_later: bool
) -> None:
    def deny(asked: IncomingRequest) -> Verdict:
        return refuse(parse_request_untrusted(asked.datagram), RefusedError(7, "who are you"))

    async def deny_later(asked: IncomingRequest) -> Verdict:
        return deny(asked)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Report, "_refused", fail)
    with (
        serve_in_thread(root, decider=Answering(deny_later if is_later else deny)) as server,
        Client(server.address, give_up_s=3) as client,
    ):
        with pytest.raises(Refused, match="who are you"):
            client.get("anything")
        wait_for(lambda: "ZeroDivisionError" in server.log, "the traceback in the log")


def test_decision_that_ends_in_a_cancellation_of_its_own_is_answered(root: Path) -> None:
    async def wait_for_the_cancelled(asked: IncomingRequest) -> Verdict:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task
        raise AssertionError("unreachable")

    with (
        serve_in_thread(root, decider=Answering(wait_for_the_cancelled)) as server,
        Client(server.address, give_up_s=3) as client,
    ):
        with pytest.raises(Refused, match="Internal error"):
            client.get("anything")
        wait_for(lambda: "wait_for_the_cancelled" in server.log, "the traceback in the log")


@pytest.mark.parametrize("failure", [ZeroDivisionError, asyncio.CancelledError])
def test_commit_that_fails_in_any_way_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    async def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(UploadAnswerer, "commit", fail)
    with serve_uploads(make_upload_root(tmp_path)) as server, Client(server.address, give_up_s=3) as client:
        with pytest.raises(Refused, match="Internal error"):
            client.put("up/x", b"payload")
        wait_for(lambda: failure.__name__ in server.log, "the traceback in the log")


def test_decider_may_refuse_with_any_code(root: Path) -> None:
    decider = Answering(lambda asked: refuse(parse_request_untrusted(asked.datagram), RefusedError(7, "who are you")))
    with (
        serve_in_thread(root, decider=decider) as server,
        Client(server.address) as client,
        pytest.raises(Refused) as refused,
    ):
        client.get("anything")
    assert (refused.value.code, refused.value.text) == (7, "who are you")


def test_file_that_changed_since_it_was_opened_is_refused(root: Path) -> None:
    decider = Answering(lambda asked: accept(asked, b"four", size_bytes=5))
    with (
        serve_in_thread(root, decider=decider) as server,
        Client(server.address) as client,
        pytest.raises(Refused, match="being changed") as refused,
    ):
        client.get("anything")
    assert refused.value.code == 0


def test_file_of_holes_that_no_process_can_map_is_refused(root: Path) -> None:
    """On tmpfs a file may have 8 EiB, and needs no byte of memory for that."""

    def answer(asked: IncomingRequest) -> Accepted:
        accepted = accept(asked, b"", size_bytes=1 << 51)
        os.ftruncate(accepted.plan.fd, 1 << 51)
        return accepted

    with (
        serve_in_thread(root, decider=Answering(answer)) as server,
        Client(server.address) as client,
        pytest.raises(Refused, match="too large") as refused,
    ):
        client.get("anything")
    assert refused.value.code == 2


def test_decision_that_comes_after_the_end_leaves_no_descriptor(root: Path) -> None:
    before = settled_descriptors()
    waiting = threading.Event()

    async def never(asked: IncomingRequest) -> Verdict:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    with serve_in_thread(root, decider=Answering(never)) as server, Client(server.address) as client:
        client.request("anything")
        assert waiting.wait(20)
    assert settled_descriptors() == before


def test_server_leaves_nothing_behind(root: Path) -> None:
    before, threads = settled_descriptors(), threading.active_count()
    with serve_in_thread(root, {"workers": 2}) as server:
        with Client(server.address) as client:
            client.get("boot.img", options={"windowsize": 8})
            client.get("unix.txt", "netascii")
        with Client(server.address) as client:
            client.request("boot.img")
            client.receive()
        engine = server.server._engine
    assert engine is not None
    assert engine.live_objects() == {"transfers": 0, "recipes": 0, "sinks": 0, "sources": 0, "accounts": 0}
    del engine
    assert settled_descriptors() == before
    # The pool that opens files is told to end, not waited for: one of its threads may hang on a disk.
    wait_for(lambda: threading.active_count() == threads, "the end of every thread")


async def test_server_is_a_context_of_any_program(root: Path) -> None:
    """In the loop of the caller, with its own client in a thread: how an embedding program uses it."""
    server, close = make_server(root, {"bind_addr": "127.0.0.1:0"})
    try:
        async with server:
            (address,) = server.addresses

            def get() -> bytes:
                with Client(address) as client:
                    return client.get("boot.img").payload

            assert await asyncio.to_thread(get) == BOOT
            assert await server.drain(timeout_s=1)
        assert server.tally.transfers_total == 1
        assert server.counters() == {}
        await server.stop()  # a second time is harmless
    finally:
        close()


def test_what_the_kernel_has_not_cached_is_opened_in_a_thread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_by: list[str] = []
    open_file = FileTree.open

    def note(self: FileTree, named: Named) -> Any:
        opened_by.append(threading.current_thread().name)
        return open_file(self, named)

    monkeypatch.setattr(FileTree, "open_now", lambda self, named: LATER)
    monkeypatch.setattr(FileTree, "open", note)
    with serve_in_thread(root) as server, Client(server.address) as client:
        assert client.get("boot.img").payload == BOOT
        assert client.get("unix.txt", "netascii").payload == b"one\r\ntwo\r\0three\r\0\r\n"
        with pytest.raises(Refused) as refused:
            client.get("missing")
        assert refused.value.code == 1
    assert [name.rpartition("_")[0] for name in opened_by] == ["tftp-open", "tftp-text", "tftp-open"]


def test_file_opened_after_the_end_is_closed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, release = threading.Event(), threading.Event()
    open_file = FileTree.open
    before = settled_descriptors()

    def wait(self: FileTree, named: Named) -> Any:
        file = open_file(self, named)
        opening.set()
        release.wait(30)
        return file

    monkeypatch.setattr(FileTree, "open_now", lambda self, named: LATER)
    monkeypatch.setattr(FileTree, "open", wait)
    with serve_in_thread(root) as server, Client(server.address) as client:
        client.request("boot.img")
        assert opening.wait(20)
    release.set()
    wait_for(lambda: open_descriptors() == before, "the end of every descriptor")


def test_more_slow_opens_than_may_wait_are_told_that_the_server_is_busy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def wait(self: FileTree, named: Named) -> Any:
        release.wait(30)
        return NotHere(RefusedError(1, "File not found"))

    monkeypatch.setattr(FileTree, "open_now", lambda self, named: LATER)
    monkeypatch.setattr(FileTree, "open", wait)
    monkeypatch.setattr("snow_owl_tftp.server.reads._MAX_SLOW_OPENS", 6)  # and half of them of one device
    with serve_in_thread(root) as server:
        waiting = [Client(server.address) for _ in range(3)]
        for client in waiting:
            client.request("stuck")
        with Client(server.address) as client:
            answer, _ = client.exchange(b"\0\1one more\0octet\0")
            assert isinstance(answer, Error)
            assert (answer.code, answer.text) == (0, "Server busy, try again")
        assert server.server._decider.turned_away()["opens_busy"] == 1
        release.set()
        for client in waiting:
            answer, _ = client.receive_packet()
            assert isinstance(answer, Error)
            assert answer.code == 1
            client.close()


# ---- more requests than can be decided


class Held:
    """A decider whose first decision lasts until the test lets it go on; the others wait behind it."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.hosts: list[str] = []

    def decide(self, asked: IncomingRequest) -> Verdict:
        self.hosts.append(asked.peer[0])
        assert self.goes_on.wait(20)
        return accept(asked, b"decided")


@contextmanager
def flooded(root: Path, requests: int) -> Iterator[tuple[Any, Held, ExitStack]]:
    """A server that has received so many requests of one address, of which it decides the first."""
    held = Held()
    with serve_in_thread(root, {"logging.level": "error"}, decider=held) as server, ExitStack() as clients:
        for _ in range(requests):
            clients.enter_context(Client(server.address, source="127.0.0.2")).request("x")
        wait_for(lambda: server.counters()["requests"] == requests, "all are received")
        try:
            yield server, held, clients
        finally:
            held.goes_on.set()


def test_who_asks_once_does_not_wait_for_who_asks_a_thousand_times(root: Path) -> None:
    with flooded(root, 900) as (server, held, clients):
        client = clients.enter_context(Client(server.address))
        client.request("x")
        wait_for(lambda: server.counters()["requests"] == 901, "one more is received")
        held.goes_on.set()
        assert client.receive_packet()[0].payload == b"decided"
        wait_for(lambda: len(held.hosts) == 901, "all are decided")
    assert held.hosts.index("127.0.0.1") < 450, "before most of those that came before it"


def test_what_waits_longer_than_clients_do_is_dropped_and_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_NS", 300_000_000)
    with flooded(root, 100) as (server, held, clients):
        began_ns = time.monotonic_ns()
        wait_for(lambda: time.monotonic_ns() - began_ns > waiting.PATIENCE_NS, "nobody waits any more")
        held.goes_on.set()
        wait_for(lambda: server.server.tally.dropped_total + len(held.hosts) == 100, "all are decided or dropped")
        assert server.server.tally.dropped_total > 0
        wait_for(lambda: server.counters()["half_open_transfers"] == len(held.hosts), "those that were decided")
        client = clients.enter_context(Client(server.address))
        assert client.get("x").payload == b"decided", "whoever asks now is answered"


@pytest.mark.parametrize("kind", ["refused", "served"])
def test_a_flood_of_refusals_has_half_of_the_time_and_a_storm_of_transfers_all(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_NS", 10**12)
    spent_s, all_are_there = 0.002, threading.Event()

    def decide(asked: IncomingRequest) -> Verdict:
        assert all_are_there.wait(20)
        ended_s = time.monotonic() + spent_s
        while time.monotonic() < ended_s:
            pass
        if kind == "served":
            return accept(asked, b"decided")
        return refuse(parse_request_untrusted(asked.datagram), RefusedError(1, "File not found"))

    decider = Answering(decide)
    with serve_in_thread(root, {"logging.level": "error"}, decider=decider) as server, ExitStack() as clients:
        for number in range(200):
            clients.enter_context(Client(server.address, source=f"127.0.3.{number + 1}")).request("x")
        wait_for(lambda: server.counters()["requests"] == 200, "all are received")
        began_s = time.monotonic()
        all_are_there.set()

        def is_over() -> bool:
            counts = server.counters()
            decided = counts["half_open_transfers"] == 0 if kind == "refused" else counts["transfers_started"] == 200
            return not server.server._waiting and decided

        wait_for(is_over, "all to be decided", 100)
        took_s = time.monotonic() - began_s
        rests = server.server.rests_total
        assert server.server.tally.dropped_total == 0
        with Client(server.address) as client:  # and then nobody waits for the rest of a flood that is over
            assert client.exchange(b"\0\1x\0octet\0")
    if kind == "served":
        assert rests == 0
    else:
        assert rests >= 20, "one for each three decisions, while others wait"
        assert took_s > 200 * spent_s + rests * 0.004


def test_what_a_flood_of_refusals_left_out_of_the_log_is_told_when_it_is_over(root: Path, tmp_path: Path) -> None:
    def deny(asked: IncomingRequest) -> Verdict:
        return refuse(parse_request_untrusted(asked.datagram), RefusedError(2, "Access violation"))

    settings = {"logging.level": "warning"}
    running = serve_in_thread(root, settings, decider=Answering(deny), log_path=tmp_path / "log")
    with running as server, ExitStack() as clients:
        for _ in range(500):
            clients.enter_context(Client(server.address)).request("x")
        told = r'not logged one by one +what="refused requests" count=(\d+)'

        def accounts_for_all() -> bool:
            left_out = sum(int(count) for count in re.findall(told, server.log))
            return bool(left_out) and left_out + server.log.count("request refused") == 500

        wait_for(accounts_for_all, "a line, or a count, for each")
