"""TransferServer: how a TFTP server begins, changes and ends.

    async with TransferServer(settings, decider, report) as server:
        print(server.addresses)          # requests are answered from here on
        await server.drain(timeout_s=10)

What happens between start and stop is one `Serving`; a server that is started anew has another one.

    start() ──► sockets ──► engine ──► Serving ──stop()──► its last words, in `_on_stopped`

May know: settings, sockets, the engine, the Decider protocol, the report. Must not know files, rules, log formats,
signals or the process around it; several servers live in one process, in any thread that runs an event loop.

Invariants:
- Nothing here waits for a disk or for a thread: the engine is stopped by a thread of its own.
- A stop that has begun ends, also where nobody waits for it any more: whoever asks again waits for the same one.
- What was decided before a reload is not repeated after it by the engine alone.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from snow_owl_tftp._engine.engine import ClientClasses, Engine
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import EngineError
from snow_owl_tftp.events.tally import Tally
from snow_owl_tftp.linux.remedies import with_remedy
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.server.arrivals import Answering
from snow_owl_tftp.server.engine import hand_over, live_limits, make_engine, tuning
from snow_owl_tftp.server.futures import failure_of
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.serving import Serving
from snow_owl_tftp.server.sockets import BoundAddress, open_addresses
from snow_owl_tftp.server.verdict import Decider

__all__ = ["TransferServer"]

_DRAIN_LOOK_S: Final = 0.02
"""How often a draining server looks whether it is done; no event says so, and nobody notices 20 ms at a shutdown."""


class TransferServer:
    """One TFTP server: its sockets, its engine, and the loop that serves them."""

    def __init__(
        self, settings: Settings, decider: Decider, report: Report, given: Sequence[socket.socket] = ()
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            settings: Addresses, limits, batching. `root_dir` is not looked at: content is the decider's affair.
            decider: Answers requests; stays the caller's.
            report: Told what happens; stays the caller's.
            given: Bound sockets to listen on instead of `bind_addr`, for the first `start`; taken over then.
        """
        self._settings = settings
        self._decider = decider
        self._report = report
        self._given = given
        self._serving: Serving | None = None
        self._classes: ClientClasses | None = None
        self._under_way: set[Answering] = set()
        self._stopping: asyncio.Future[None] | None = None
        self._left_behind = 0
        self._addresses: tuple[tuple[str, int], ...] = ()
        self.tally = Tally()
        self.on_work: Callable[[], None] = _do_nothing
        """Called whenever the engine has said something, in the event loop; must be quick."""
        self.on_listening: Callable[[tuple[tuple[str, int], ...]], None] = lambda addresses: None
        """Told `addresses` before the first request comes up."""
        self.on_stopped: Callable[[], None] = _do_nothing
        """Called at the end of a stop, in the event loop, whatever it met."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of every bound address, with the real port where 0 was asked; empty before start."""
        return self._addresses

    async def start(self) -> None:
        """Bind, start the engine's threads and answer requests.

        Raises:
            ConfigError: The settings name what this machine does not have.
            EngineError: The operating system refused a socket, memory or a thread.
            RuntimeError: It runs already.
        """
        if self._serving is not None:
            raise RuntimeError("the server runs already; stop it before it is started anew")
        if self._stopping is not None:
            raise RuntimeError("the server is still being stopped; wait for stop() before it is started anew")
        given, self._given = self._given, ()
        addresses = open_addresses(self._settings, self._report.log.warning, given)
        engine = self._run_engine(addresses)
        self._addresses = tuple((address.host, address.port) for address in addresses)
        try:
            self.on_listening(self._addresses)
            self._serving = self._serve(engine)
        except BaseException:
            engine.stop()  # nobody else knows of it
            raise
        self._report.log.debug("engine runs", workers=self._settings.worker_count, addresses=len(addresses))

    def _serve(self, engine: Engine) -> Serving:
        return Serving(
            engine,
            self._decider,
            self._report,
            self.tally,
            # Half of what the engine lets wait: the other half is for who comes meanwhile.
            crowd=self._settings.limits.max_pending_requests // 2,
            under_way=self._under_way,
            on_work=lambda: self.on_work(),
        )

    def _run_engine(self, addresses: list[BoundAddress]) -> Engine:
        try:
            engine = make_engine(self._settings)
            hand_over(engine, addresses)
            engine.set_classes(self._classes)
            engine.run()
        except OSError as error:
            raise EngineError(error.errno, with_remedy("the engine cannot start", error)) from error
        except MemoryError as error:
            raise EngineError(errno.ENOMEM, with_remedy("the engine cannot start", error)) from error
        finally:
            for address in addresses:
                address.close()
        return engine

    def reload(self, settings: Settings) -> None:
        """Batch by other settings from now on, and ask the decider about every following request.

        Call it in the event loop's thread, after decider and report have changed. Running transfers go on.

        Args:
            settings: `performance.platform.batch` and the live keys of `limits` are looked at; the rest is taken by
                another `start` only.
        """
        self._settings = settings
        self.forget_decisions()
        if self._serving is not None:
            self._serving.engine.set_tuning(**tuning(settings))
            self._serving.engine.set_limits(**live_limits(settings))
            self._serving.sample_anew()

    def forget_decisions(self) -> None:
        """Ask the decider about every following request, also where the engine had repeated its answer by itself.

        Call it in the event loop's thread, after the decider has changed.
        """
        if self._serving is not None:
            self._serving.forget_decisions()
            self._serving.engine.forget_flows()

    def set_classes(self, classes: ClientClasses | None) -> None:
        """Have the engine repeat a decision for clients of one class only, also by another engine after a `start`.

        Call it in the event loop's thread, together with the change of the decider that it belongs to: what was decided
        before is repeated for nobody any more.

        Args:
            classes: Whom the decider tells the same, where its decision offers a flow; None: everybody.

        Raises:
            MemoryError: Everything stays as it was.
        """
        if self._serving is not None:
            self._serving.engine.set_classes(classes)
            self._serving.forget_decisions()
        self._classes = classes

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for the running transfers.

        Args:
            timeout_s: How long to wait at most.

        Returns:
            True when all have ended.
        """
        serving = self._serving
        if serving is None:
            return True
        serving.engine.drain()
        self._report.log.info("draining", timeout_s=timeout_s)
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        quiet_looks = 0
        # Two looks: the workers count while we read, so one alone can miss a transfer that just began.
        while quiet_looks < 2:
            if asyncio.get_running_loop().time() > deadline_s:
                return False
            await asyncio.sleep(_DRAIN_LOOK_S)
            quiet_looks = quiet_looks + 1 if serving.is_quiet else 0
        return True

    def abort(self, transfer_id: int, text: str) -> None:
        """End a started transfer with ERROR 0; in the event loop's thread."""
        if self._serving is not None:
            self._serving.engine.abort(transfer_id, int(ErrorCode.NOT_DEFINED), text.encode())

    async def stop(self) -> None:
        """End what still runs, tell its peers, and release every socket and thread.

        May be called again at any time. If it is cancelled, the rest is done all the same while the loop runs.
        """
        if self._serving is not None:
            self._begin_stop(self._serving)
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    async def wait_committed(self) -> None:
        """Wait until no upload is being opened or stored any more; a stop leaves them to themselves."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _begin_stop(self, serving: Serving) -> None:
        self._serving = None
        serving.close()
        loop, engine = asyncio.get_running_loop(), serving.engine
        # No request may begin behind the one that was aborted last.
        engine.drain()
        # In a thread: it waits for the I/O threads, and those for a disk. What follows is a callback and no task:
        # nobody can cancel that, a loop that ends included.
        try:
            ended = loop.run_in_executor(None, engine.stop)
        except RuntimeError:  # no thread is to be had: better late than never
            engine.stop()
            ended = loop.create_future()
            ended.set_result(None)
        self._stopping = loop.create_future()
        ended.add_done_callback(lambda ended: self._on_stopped(serving, ended))

    def _on_stopped(self, serving: Serving, ended: "asyncio.Future[None]") -> None:
        stopping, self._stopping = self._stopping, None
        try:
            serving.take()
            self._left_behind = serving.engine.hung_threads
            self._report.flush(is_last=True)
        finally:
            error = failure_of(ended)
            if stopping is not None and error is None:
                stopping.set_result(None)
            elif stopping is not None and error is not None:
                stopping.set_exception(error)
            self.on_stopped()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # ---- what can be asked

    def counters(self) -> Mapping[str, object]:
        """What the engine counts (docs/engine-contract.md), summed over workers; empty while it does not run."""
        return self._serving.engine.counters() if self._serving is not None else {}

    def is_sick(self, device: int) -> bool:
        """Whether so much hangs on a device (st_dev) that a file of it would be waited for in vain."""
        return self._serving is not None and self._serving.engine.is_sick(device)

    @property
    def hung_threads(self) -> int:
        """Threads of the engine that hang, or were left behind by the last stop."""
        return self._serving.engine.hung_threads if self._serving is not None else self._left_behind

    @property
    def live_transfers(self) -> int:
        """Requests being decided and transfers that have not ended."""
        return self._serving.live_transfers if self._serving is not None else 0

    @property
    def rests_total(self) -> int:
        """How often the event loop has rested from a flood of refusals."""
        return self.tally.rests_total


def _do_nothing() -> None:
    pass
