"""Server: takes the engine's events in turn and carries out what was decided.

    async with Server(settings, decider, report) as server:
        print(server.addresses)          # requests are answered from here on
        await server.drain(timeout_s=10)

May know: the engine's events, the Decider protocol, the report. Must not know files, rules, log
formats, signals or the process around it; several servers live in one process, in any thread that
runs an event loop.

Invariants:
- Every Request is answered once, by start() or refuse_all(), whatever a Decider does: an exception in
  it becomes ERROR 0 and a traceback in the log, and the server lives on.
- Nothing here waits: one turn takes what poll() has, decides for a few milliseconds at most, and returns
  to the event loop. What is not decided then waits in `waiting`, where no address is behind another's flood, and where
  nearly all are refused the loop rests as long as it has decided.
- Every accepted plan reaches the engine or is discarded; no descriptor is left behind.
- What was decided before a reload is not repeated after it by the engine alone.
- Every FirstData and every Received is answered once: the last ACK leaves only when the upload's context says that the
  file is in its place.
- A stop that has begun ends, also where nobody waits for it any more: whoever asks again waits for the same one.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from snow_owl_tftp._engine.engine import (
    ClientClasses,
    Completion,
    Engine,
    FirstData,
    ModeChange,
    Received,
    Refusals,
    Released,
    Request,
    Retired,
)
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import EngineError, InternalError, RefusedError
from snow_owl_tftp.events.event import (
    BatchingChanged,
    LimitReached,
    RequestDropped,
    RequestRefused,
    StoredAfterFailure,
    TransferEnded,
    TransferStarted,
)
from snow_owl_tftp.events.probe import is_size_probe
from snow_owl_tftp.events.sink import BATCHING, STARTS, SUCCESSES, EventSink
from snow_owl_tftp.events.tally import Tally
from snow_owl_tftp.linux.remedies import with_remedy
from snow_owl_tftp.observe.samples import CallSampler
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.server.engine import hand_over, live_limits, make_engine, tuning
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.sockets import open_addresses
from snow_owl_tftp.server.verdict import (
    Accepted,
    CommitRefusal,
    Decider,
    Refused,
    Sink,
    UploadContext,
    Verdict,
    refuse,
)
from snow_owl_tftp.server.waiting import Waiting

if TYPE_CHECKING:
    from snow_owl_tftp._engine.engine import Event  # the stub's name for what poll() returns

__all__ = ["Server"]

_DRAIN_LOOK_S: Final = 0.02
"""How often a draining server looks whether it is done; no event says so, and nobody notices 20 ms at a shutdown."""

_DECIDE_NS: Final = 5_000_000
"""Then whatever else the event loop has to do gets its turn: signals, uploads, what the engine tells."""
_FLOOD: Final = 9
"""So many times more refusals than transfers begun: who asks for what is not there in such numbers is no boot storm,
and gets half of a core at most. Transfers that run need the other half: their next ACK waits for a core."""
_LATELY: Final = 2000
"""Verdicts; what is older counts for less and less."""
_REFUSALS_AT_ONCE: Final = 32
"""Half of what the engine has put by for when memory is short."""
_STARTS_AT_ONCE: Final = 32
"""A worker that is woken for each takes the core from who decides, and sends each first packet by a call of its own; a
third of a millisecond is nothing to a client."""
_SETTLE_S: Final = 1.0
"""A budget of lines is one for a second; what was left out is told behind it."""


class Server:
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
        self._events: EventSink = report
        self._given = given
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sampler: CallSampler | None = None
        self._reloads_total = 0
        self._classes: ClientClasses | None = None
        self._waiting = self._nobody_waits()
        self._refusals: list[tuple[int, bytes]] = []
        self._unwoken = 0
        self._goes_on: asyncio.Handle | None = None
        self._settles: asyncio.TimerHandle | None = None
        self.tally = Tally()
        self._deciding: set[asyncio.Future[Verdict]] = set()
        self._committing: set[asyncio.Future[Sink | CommitRefusal | None]] = set()
        self._stopping: asyncio.Future[None] | None = None
        self._left_behind = 0
        self._addresses: tuple[tuple[str, int], ...] = ()
        self._refused_lately = self._accepted_lately = 0
        self._is_resting = False
        self.rests_total = 0
        self.on_work: Callable[[], None] = _do_nothing
        """Called whenever the engine has said something, in the event loop; must be quick."""
        self.on_listening: Callable[[tuple[tuple[str, int], ...]], None] = lambda addresses: None
        """Told `addresses` before the first request comes up."""

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
        if self._engine is not None:
            raise RuntimeError("the server runs already; stop it before it is started anew")
        if self._stopping is not None:
            raise RuntimeError("the server is still being stopped; wait for stop() before it is started anew")
        given, self._given = self._given, ()
        addresses = open_addresses(self._settings, self._report.log.warning, given)
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
        self._engine = engine
        self._addresses = tuple((address.host, address.port) for address in addresses)
        self.on_listening(self._addresses)
        self._loop = asyncio.get_running_loop()
        self._sampler = self._make_sampler(self._loop, engine)
        self._loop.add_reader(engine.fileno(), self._on_events)
        self._report.log.debug("engine runs", workers=self._settings.worker_count, addresses=len(addresses))

    def reload(self, settings: Settings) -> None:
        """Batch by other settings from now on, and ask the decider about every following request.

        Call it in the event loop's thread, after decider and report have changed. Running transfers go on.

        Args:
            settings: `performance.platform.batch` and the live keys of `limits` are looked at; the rest is taken by
                another `start` only.
        """
        self._settings = settings
        self.forget_decisions()
        engine, loop = self._engine, self._loop
        if engine is None or loop is None:
            return
        engine.set_tuning(**tuning(settings))
        engine.set_limits(**live_limits(settings))
        # A new one: no sample mixes what was before with what is after.
        if self._sampler is not None:
            self._sampler.stop()
        self._sampler = self._make_sampler(loop, engine)

    def forget_decisions(self) -> None:
        """Ask the decider about every following request, also where the engine had repeated its answer by itself.

        Call it in the event loop's thread, after the decider has changed.
        """
        self._reloads_total += 1
        if self._engine is not None:
            self._engine.forget_flows()

    def set_classes(self, classes: ClientClasses | None) -> None:
        """Have the engine repeat a decision for clients of one class only, also by another engine after a `start`.

        Call it in the event loop's thread, together with the change of the decider that it belongs to: what was decided
        before is repeated for nobody any more.

        Args:
            classes: Whom the decider tells the same, where its decision offers a flow; None: everybody.

        Raises:
            MemoryError: Everything stays as it was.
        """
        if self._engine is not None:
            self._engine.set_classes(classes)
        self._classes = classes
        self._reloads_total += 1

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for the running transfers.

        Args:
            timeout_s: How long to wait at most.

        Returns:
            True when all have ended.
        """
        engine = self._engine
        if engine is None:
            return True
        engine.drain()
        self._report.log.info("draining", timeout_s=timeout_s)
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        quiet_looks = 0
        # Two looks: the workers count while we read, so one alone can miss a transfer that just began.
        while quiet_looks < 2:
            if asyncio.get_running_loop().time() > deadline_s:
                return False
            await asyncio.sleep(_DRAIN_LOOK_S)
            quiet_looks = quiet_looks + 1 if self._is_quiet(engine) else 0
        return True

    def abort(self, transfer_id: int, text: str) -> None:
        """End a started transfer with ERROR 0; in the event loop's thread."""
        if self._engine is not None:
            self._engine.abort(transfer_id, int(ErrorCode.NOT_DEFINED), text.encode())

    async def stop(self) -> None:
        """End what still runs, tell its peers, and release every socket and thread.

        May be called again at any time. If it is cancelled, the rest is done all the same while the loop runs.
        """
        if self._engine is not None and self._loop is not None:
            self._begin_stop(self._engine, self._loop)
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    def _begin_stop(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = None
        loop.remove_reader(engine.fileno())
        for handle in (self._goes_on, self._settles):
            if handle is not None:
                handle.cancel()
        self._goes_on = self._settles = None
        self._is_resting = False
        sampler, self._sampler = self._sampler, None  # it holds the engine
        if sampler is not None:
            sampler.stop()
        for future in list(self._deciding):
            future.cancel()
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
        ended.add_done_callback(lambda ended: self._on_stopped(engine, ended))

    def _on_stopped(self, engine: Engine, ended: "asyncio.Future[None]") -> None:
        stopping, self._stopping = self._stopping, None
        try:
            self._take(engine)
            self._left_behind = engine.hung_threads
            self._waiting = self._nobody_waits()
            self._events.flush(is_last=True)
        finally:
            error = _failure_of(ended)
            if stopping is not None and error is None:
                stopping.set_result(None)
            elif stopping is not None and error is not None:
                stopping.set_exception(error)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def counters(self) -> Mapping[str, object]:
        """What the engine counts (docs/engine-contract.md), summed over workers; empty while it does not run."""
        return self._engine.counters() if self._engine is not None else {}

    def is_sick(self, device: int) -> bool:
        """Whether so much hangs on a device (st_dev) that a file of it would be waited for in vain."""
        return self._engine is not None and self._engine.is_sick(device)

    @property
    def hung_threads(self) -> int:
        """Threads of the engine that hang, or were left behind by the last stop."""
        return self._engine.hung_threads if self._engine is not None else self._left_behind

    @property
    def live_transfers(self) -> int:
        """Requests being decided and transfers that have not ended."""
        if self._engine is None:
            return 0
        figures = self._engine.counters()
        # Not the engine's own `live_transfers`: a request stands in `_deciding` and there.
        return len(self._deciding) + figures["transfers_started"] - figures["transfers_ended"]

    def _make_sampler(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> CallSampler:
        return CallSampler(loop, engine.counters, self._events.emit)

    # ---- events

    def _on_events(self) -> None:
        if self._engine is not None:
            self._take(self._engine)
            if not self._is_resting:
                self._decide_waiting(self._engine)
            self._flush()
            self.on_work()
            if self._sampler is not None and self._events.wanted & BATCHING:
                self._sampler.wake()

    def _flush(self) -> None:
        self._send_refusals()
        if self._unwoken:
            self._wake_workers()
        self._events.flush()
        if self._report.owes_counts and self._settles is None and self._engine is not None and self._loop is not None:
            self._settles = self._loop.call_later(_SETTLE_S, self._settle)

    def _refuse(self, transfer_id: int, datagram: bytes) -> None:
        """A worker that is woken for each of a flood has no time for its transfers."""
        self._refusals.append((transfer_id, datagram))
        if len(self._refusals) >= _REFUSALS_AT_ONCE:
            self._send_refusals()

    def _send_refusals(self) -> None:
        refusals, self._refusals = self._refusals, []
        if refusals and self._engine is not None:
            try:
                self._engine.refuse_all(refusals)
            except MemoryError as error:  # who heard nothing asks again; the others' turn must not be lost with it
                self._report.log.error(with_remedy("some requests could not be refused", error))

    def _wake_workers(self) -> None:
        self._unwoken = 0
        if self._engine is not None:
            self._engine.wake()

    def _settle(self) -> None:
        self._settles = None
        self._flush()

    def _take(self, engine: Engine) -> None:
        for event in engine.poll():
            try:
                self._on_event(event)
            except Exception as error:  # the events behind it must not be lost with it
                self._report.log.error("internal error", exc_info=error)

    def _decide_waiting(self, engine: Engine) -> None:
        """Decide for a while; the rest has its turn when the event loop, and the engine, have had theirs."""
        now_ns = time.monotonic_ns()
        end_ns = now_ns + _DECIDE_NS
        while (late := self._waiting.drop(now_ns)) is not None:
            self._refuse(late.transfer_id, b"")  # in silence: its client has given up, or will ask again
            self.tally.dropped_total += 1
            self._events.emit(RequestDropped())
        while now_ns < end_ns and (incoming := self._waiting.take(now_ns)) is not None:
            try:
                self._on_request(incoming)
            except Exception as error:  # as above
                self._report.log.error("internal error", exc_info=error)
            now_ns = time.monotonic_ns()
        if self._waiting and self._goes_on is None and self._loop is not None:
            self._is_resting = self._is_flooded()
            self.rests_total += self._is_resting
            rest_s = _DECIDE_NS / 1e9 if self._is_resting else 0
            self._goes_on = self._loop.call_later(rest_s, self._go_on) if rest_s else self._loop.call_soon(self._go_on)

    def _is_flooded(self) -> bool:
        is_flooded = self._refused_lately > _FLOOD * self._accepted_lately
        if self._refused_lately + self._accepted_lately > _LATELY:
            self._refused_lately //= 2
            self._accepted_lately //= 2
        return is_flooded

    def _go_on(self) -> None:
        self._goes_on = None
        self._is_resting = False
        self._on_events()

    def _nobody_waits(self) -> Waiting[Request]:
        # Half of what the engine lets wait: the other half is for who comes meanwhile.
        return Waiting(self._settings.limits.max_pending_requests // 2)

    def _on_event(self, event: "Event") -> None:
        if isinstance(event, Completion):  # the most frequent first
            self._on_completion(event)
        elif isinstance(event, Request):
            self._waiting.add(event)
        elif isinstance(event, FirstData):
            self._on_first_data(event)
        elif isinstance(event, Received):
            self._on_received(event)
        elif isinstance(event, (Retired, Released)):
            event.context.retired()
        elif isinstance(event, Refusals):
            self.tally.limits[event.limit] += event.count
            self._events.emit(LimitReached(event))
        elif isinstance(event, ModeChange):
            self._events.emit(BatchingChanged(event))

    def _on_completion(self, completion: Completion) -> None:
        context, outcome = completion.context, completion.outcome
        self.tally.outcomes[outcome] += 1
        if context.found is not None:
            self.tally.found[context.found[1]] += 1
        try:
            try:
                context.ended(completion)
            finally:
                if completion.is_last:
                    context.retired()
        finally:
            self._tell_of_end(completion)

    def _tell_of_end(self, completion: Completion) -> None:
        context, outcome = completion.context, completion.outcome
        if outcome == Outcome.OK and not self._events.wanted & SUCCESSES:
            return
        event = TransferEnded(completion, context.request, context.size_bytes, context.found)
        if outcome == Outcome.PEER_ERROR and is_size_probe(event):
            self.tally.probes_total += 1
        self._events.emit(event)
        if outcome != Outcome.OK and isinstance(context, UploadContext):
            self._tell_of_stored(context)

    def _tell_of_stored(self, context: UploadContext) -> None:
        """Of a file that is in its place although its transfer failed: the client gave up in the last moment."""
        if context.is_stored and context.failed is not None:
            self._events.emit(StoredAfterFailure(*context.failed, context.request))

    def _on_first_data(self, event: FirstData) -> None:
        """An upload begins to arrive: open its file."""
        self._answer_later(event.transfer_id, event.context, event.context.open())

    def _on_received(self, received: Received) -> None:
        """Every byte of an upload is written: store it, then let the engine answer."""
        self._answer_later(received.transfer_id, received.context, received.context.commit(received.payload_bytes))

    def _answer_later(
        self, transfer_id: int, context: UploadContext, answer: Coroutine[Any, Any, Sink | CommitRefusal | None]
    ) -> None:
        future = asyncio.ensure_future(answer)
        self._committing.add(future)  # the loop itself holds no strong reference

        def on_done(done: asyncio.Future[Sink | CommitRefusal | None]) -> None:
            self._committing.discard(done)
            self._answer(transfer_id, done)
            self._tell_of_stored(context)

        future.add_done_callback(on_done)

    def _answer(self, transfer_id: int, done: "asyncio.Future[Sink | CommitRefusal | None]") -> None:
        engine = self._engine
        error = _failure_of(done)
        if error is not None:
            self._report.log.error("internal error", exc_info=error)
        if engine is None:
            return  # stopped meanwhile: the engine has told the client
        answer = None if error is not None else done.result()
        if error is not None:
            engine.commit(transfer_id, ErrorCode.NOT_DEFINED, b"Internal error")
        elif isinstance(answer, Sink):
            engine.supply(transfer_id, *answer)
        elif answer is not None:
            engine.commit(transfer_id, answer.code, answer.text.encode(), answer.error_number)
        else:
            engine.commit(transfer_id)

    def _on_request(self, incoming: Request) -> None:
        try:
            verdict = self._decider.decide(incoming)
        except Exception as error:  # a bug must cost one request, not the server
            verdict = _internal_error(error)
        if isinstance(verdict, (Accepted, Refused)):
            self._carry_out(incoming, verdict)
        else:
            self._carry_out_later(incoming, verdict)

    def _carry_out_later(self, incoming: Request, awaitable: Awaitable[Verdict]) -> None:
        future = asyncio.ensure_future(awaitable)
        self._deciding.add(future)
        reloads_before = self._reloads_total

        def on_done(done: asyncio.Future[Verdict]) -> None:
            self._deciding.discard(done)
            error = _failure_of(done)
            verdict = _internal_error(error) if error else done.result()
            if isinstance(verdict, Accepted) and self._reloads_total != reloads_before:
                verdict.flow = None  # decided by the old rules, perhaps: good for this once
            try:
                self._carry_out(incoming, verdict)
            except Exception as error:  # its refusal must leave all the same
                self._report.log.error("internal error", exc_info=error)
            self._flush()

        future.add_done_callback(on_done)

    def _carry_out(self, incoming: Request, verdict: Verdict) -> None:
        engine = self._engine
        if engine is None:
            verdict.discard()
        elif isinstance(verdict, Accepted):
            self._accepted_lately += 1
            self._start(engine, incoming, verdict)
        else:
            self._refused_lately += 1
            self._refuse(incoming.transfer_id, verdict.datagram)
            self.tally.refused(verdict.cause)
            self._events.emit(RequestRefused(incoming, verdict.request, verdict.cause))

    def _start(self, engine: Engine, incoming: Request, accepted: Accepted) -> None:
        try:
            engine.start(accepted.plan, accepted.flow, wake=False, limits=incoming.limits)
        except OSError as error:
            # The file shrank or grew since it was opened, or memory for its mapping is short, or so much hangs on its
            # device that nobody would read it. Its descriptor is the engine's all the same; what else the context
            # holds is ours.
            context = accepted.plan.context
            context.retired()
            self._carry_out(incoming, refuse(context.request, _refusal_of_start(error.errno)))
        except MemoryError:
            context = accepted.plan.context
            context.retired()
            refused = RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again")
            self._carry_out(incoming, refuse(context.request, refused))
        except ValueError as error:
            accepted.plan.context.retired()
            self._carry_out(incoming, _internal_error(error))
        else:
            self._unwoken += 1
            if self._unwoken >= _STARTS_AT_ONCE:
                self._wake_workers()
            context = accepted.plan.context
            context.begin()
            if self._events.wanted & STARTS:
                event = TransferStarted(incoming, accepted.plan, context.request, context.size_bytes, context.found)
                self._events.emit(event)

    def _is_quiet(self, engine: Engine) -> bool:
        """Nothing is being decided or transferred; a receiver that merely repeats its last ACK does not count."""
        figures = engine.counters()
        return (
            not self._deciding
            and figures["transfers_started"] == figures["transfers_ended"]
            and figures["half_open_transfers"] == 0
        )


def _do_nothing() -> None:
    pass


def _failure_of(done: "asyncio.Future[Any]") -> BaseException | None:
    """What it ended with; a CancelledError that it let out by itself is one failure more, and must be answered."""
    try:
        return done.exception()
    except asyncio.CancelledError as error:
        return error


def _refusal_of_start(error_number: int | None) -> RefusedError:
    if error_number == errno.EFBIG:
        return RefusedError(ErrorCode.ACCESS_VIOLATION, "File too large to serve")
    if error_number == errno.EBUSY:
        return RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again")
    return RefusedError(ErrorCode.NOT_DEFINED, "File is being changed, try again")


def _internal_error(cause: BaseException) -> Refused:
    error = InternalError("a request could not be decided")
    error.__cause__ = cause
    refused = refuse(None, RefusedError(ErrorCode.NOT_DEFINED, "Internal error"))
    return Refused(refused.datagram, error, None)
