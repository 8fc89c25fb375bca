"""An engine on loopback, with the plainest server around it, and the accounts that must balance after every test.

May know: the engine's contract, and the protocol package, which has its own tests. Must not: use snow_owl_tftp.server,
whose tests come after these.
Invariants, checked when a test ends: every thread has left, every figure of live_objects() is zero, each plan that
was started got exactly one Completion, and the counters account for every request.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import FLOWS
from tests.support.accounts import check_ended
from tests.support.priority import ahead_of_all

from snow_owl_tftp._engine import engine as native
from snow_owl_tftp.errors import BadPacket
from snow_owl_tftp.plan.transfer import Outcome, Role, TransferPlan
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.options import OptionLimits, negotiate
from snow_owl_tftp.protocol.packets import Request, build_error, parse_request_untrusted

PATIENCE_S = 20.0
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33


def udp_socket(buffer_bytes: int = 4 << 20, host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if not port:  # shared only afterwards, or the kernel might give out a port that others share
        one.bind((host, 0))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if port:
        one.bind((host, port))
    for privileged, ordinary in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            one.setsockopt(socket.SOL_SOCKET, privileged, buffer_bytes)
        except PermissionError:
            one.setsockopt(socket.SOL_SOCKET, ordinary, buffer_bytes)
    return one


def sockaddr(address: tuple[str, int]) -> bytes:
    """A sockaddr_in as the kernel lays it out."""
    return (
        socket.AF_INET.to_bytes(2, "little") + address[1].to_bytes(2, "big") + socket.inet_aton(address[0]) + bytes(8)
    )


class Served:
    """An Engine that serves the files below `root`, and keeps what is uploaded there.

    Args:
        root: What is served.
        tids: How many TID sockets a worker; 0: single-port mode.
        flows: Give the engine flows to repeat (the engine's own setting of this name decides whether it does). What
            `on_request` decides is never one: it may depend on the client. None: as SNOW_OWL_TEST_FLOWS says, else no.
        host: Where it listens.
        own_ports: Each worker listens on a port of its own, so that a test may choose which of them it asks.
        kind: Engine, or what a test has made of it.
        engine: Arguments of Engine.

    `drains`: stop() is preceded by drain(), as a server does it. `verdict` says what to do with a received upload,
    `limit_bytes` how long one may be, `sink` opens what it is written to; with `on_first_data` nothing is opened until
    that is called, which is to answer. `requests` counts what Python was asked.
    """

    def __init__(
        self,
        root: Path,
        *,
        tids: int = 4,
        flows: bool | None = None,
        host: str = "127.0.0.1",
        own_ports: bool = False,
        kind: type[native.Engine] = native.Engine,
        **engine: Any,
    ) -> None:
        self.root = root
        flows = bool(FLOWS) if flows is None else flows
        self.engine = kind(flows=flows, **engine)
        self.gives_flows = flows
        self.completions: list[native.Completion] = []
        self.mode_changes: list[native.ModeChange] = []
        self.refusals: list[native.Refusals] = []
        self.requests = 0
        self.started: Counter[int] = Counter()
        self.limit_bytes = 0
        self.drains = True
        self.verdict: Callable[[native.Received], tuple[Any, ...]] = lambda received: ()
        self.sink: Callable[[Path], int] = lambda path: os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.released: list[native.Released] = []
        self.retired: list[native.Retired] = []
        self.on_first_data: Callable[[native.FirstData], None] | None = None
        self.on_answer: Callable[[native.Answer], None] | None = None
        self.progress: list[native.Progress] = []
        self.on_request: Callable[[native.Request, Request], TransferPlan | None] | None = None
        self._root_fd = os.open(root, os.O_RDONLY)
        self.tid_ports: list[int] = []
        self.addresses: list[tuple[str, int]] = []
        for worker in range(engine.get("workers", 1)):
            port = self.addresses[0][1] if self.addresses and not own_ports else 0
            self.addresses.append(self._open_worker(worker, tids, host, port))
        self.address = self.addresses[0]
        self._changed = threading.Condition()
        self._stop_read, self._stop_write = socket.socketpair()
        self._error: BaseException | None = None
        self.engine.run()
        self._thread = threading.Thread(target=self._run, name="decides")
        self._thread.start()

    def _open_worker(self, worker: int, tids: int, host: str, port: int) -> tuple[str, int]:
        listener = udp_socket(host=host, port=port)
        address = (host, listener.getsockname()[1])
        self.engine.add_listener(worker, 0, listener.detach())
        for _ in range(tids):
            tid = udp_socket(host=host)
            self.tid_ports.append(tid.getsockname()[1])
            self.engine.add_tid(worker, 0, tid.detach())
        return address

    # --- what tests ask

    def wait(self, condition: Callable[[], Any], what: str = "the condition", patience_s: float = PATIENCE_S) -> Any:
        """Until `condition` is true: it is asked after every event, and now and then."""
        deadline = time.monotonic() + patience_s
        with self._changed:
            while not (result := condition()):
                assert self._error is None, self._error
                assert time.monotonic() < deadline, f"{what} did not happen in {patience_s} s"
                self._changed.wait(0.005)
        return result

    def completion(self, number: int = -1, total: int = 1) -> native.Completion:
        """The `number`-th Completion, once there are at least `total`."""
        self.wait(lambda: len(self.completions) >= total, f"completion {total}")
        return self.completions[number]

    def counter(self, name: str) -> int:
        return int(self.engine.counters()[name])

    def outcomes(self) -> Counter[str]:
        return Counter(Outcome(completion.outcome).name for completion in self.completions)

    # --- deciding

    def _run(self) -> None:
        try:
            with select.epoll() as poll:
                poll.register(self.engine.fileno(), select.EPOLLIN)
                poll.register(self._stop_read.fileno(), select.EPOLLIN)
                while self._stop_read.fileno() not in {fd for fd, _ in poll.poll()}:
                    self._take_events()
        except BaseException as error:
            self._error = error

    def _take_events(self) -> None:
        for event in self.engine.poll():
            with self._changed:
                self._on_event(event)
                self._changed.notify_all()

    def _on_event(self, event: Any) -> None:
        if isinstance(event, native.Request):
            self.requests += 1
            self._decide(event)
        elif isinstance(event, native.FirstData):
            assert self.on_first_data is not None
            self.on_first_data(event)
        elif isinstance(event, native.Received):
            self.engine.commit(event.transfer_id, *self.verdict(event))
        elif isinstance(event, native.Completion):
            self.completions.append(event)
            if event.role == Role.RECEIVER and isinstance(event.context, int) and event.context >= 0:
                os.close(event.context)
        elif isinstance(event, native.Released):
            self.released.append(event)
        elif isinstance(event, native.Retired):
            self.retired.append(event)
        elif isinstance(event, native.Refusals):
            self.refusals.append(event)
        elif isinstance(event, native.ModeChange):
            self.mode_changes.append(event)
        elif isinstance(event, native.Progress):
            self.progress.append(event)
        elif isinstance(event, native.Answer) and self.on_answer is not None:
            self.on_answer(event)

    def _decide(self, event: native.Request) -> None:
        try:
            request = parse_request_untrusted(event.datagram)
            if self.on_request is not None:
                plan = self.on_request(event, request)
            elif request.kind == Opcode.RRQ:
                plan = self.send_plan(event, request)
            else:
                plan = self.receive_plan(event, request)
        except BadPacket as bad:
            self.engine.refuse(event.transfer_id, build_error(4, bad.reason))
        except OSError:
            self.engine.refuse(event.transfer_id, build_error(1, "no such file"))
        else:
            if plan is not None:
                self.start(plan, (self._root_fd, request.filename.encode(), event.datagram))

    def start(self, plan: TransferPlan, flow: tuple[int, bytes, bytes] | None = None) -> None:
        gives_flow = self.gives_flows and plan.role == Role.SENDER and self.on_request is None
        self.engine.start(plan, flow if gives_flow else None)
        self.started[plan.transfer_id] += 1

    def send_plan(self, event: native.Request, request: Request) -> TransferPlan:
        fd = os.open(self.root / request.filename, os.O_RDONLY)
        size = os.fstat(fd).st_size
        agreed = negotiate(request, size_bytes=size, limits=OptionLimits(max_window_bytes=1 << 32))
        return TransferPlan(
            transfer_id=event.transfer_id,
            role=Role.SENDER,
            fd=fd,
            size_bytes=size,
            blksize_bytes=agreed.blksize_bytes,
            windowsize_blocks=agreed.windowsize_blocks,
            timeout_ns=(agreed.timeout_s or 0) * 10**9,
            first_packet=agreed.oack,
            context=request.filename,
        )

    def receive_plan(self, event: native.Request, request: Request) -> TransferPlan:
        agreed = negotiate(request, size_bytes=None, limits=OptionLimits(max_window_bytes=1 << 32))
        fd = self.sink(self.root / request.filename) if self.on_first_data is None else -1
        return TransferPlan(
            transfer_id=event.transfer_id,
            role=Role.RECEIVER,
            fd=fd,
            size_bytes=self.limit_bytes,
            blksize_bytes=agreed.blksize_bytes,
            windowsize_blocks=agreed.windowsize_blocks,
            timeout_ns=(agreed.timeout_s or 0) * 10**9,
            first_packet=agreed.oack,
            declared_bytes=agreed.tsize,
            context=fd,
        )

    # --- the end

    def stop(self) -> None:
        self._stop_write.send(b"x")
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self.drains:
            self.engine.drain()
        try:
            self.engine.stop()
            self._take_events()
        finally:
            for one in (self._stop_read, self._stop_write):
                one.close()
            os.close(self._root_fd)

    def check_accounts(self) -> None:
        assert self._error is None, self._error
        assert not any(self.engine.live_objects().values()), self.engine.live_objects()
        ended = Counter(c.transfer_id for c in self.completions if not c.flow_hit)
        assert ended == self.started, "each started plan gets exactly one Completion"
        assert max(Counter(c.transfer_id for c in self.completions).values(), default=1) == 1
        check_ended(
            self.engine.counters(),
            requests=self.requests,
            begun=sum(completion.peer != ("", 0) for completion in self.completions),
            flow_hits=sum(completion.flow_hit for completion in self.completions),
        )


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Makes engines that serve `tmp_path`; stops them and checks their accounts when the test ends."""
    with contextlib.ExitStack() as running:

        def make(root: Path = tmp_path, **options: Any) -> Served:
            served = Served(root, **options)
            running.callback(served.check_accounts)
            running.callback(served.stop)
            return served

        yield make


@pytest.fixture
def ahead() -> Iterator[None]:
    """For tests in which a thread that waits for a core is late: theirs come first, where the system allows it."""
    with ahead_of_all():
        yield
