"""One run of an engine: its events are taken in turn, its requests decided, and what was decided is carried out.

    engine.poll() ─► Request      ─► Turns ─► Decider ─► Verdict ─► engine.start(), or Replies
                   ─► FirstData, Received ─► Arrivals
                   ─► Completion, Refusals, … ─► contexts, Bookkeeper

May know: the engine's events, the Decider protocol, the report. Must not know files, rules or log formats, or how a
server begins and ends (`loop`).

Invariants:
- Every Request is answered once, by start() or refuse_all(), whatever a Decider does: an exception in it becomes
  ERROR 0 and a traceback in the log, and the server lives on.
- Nothing here waits: one turn takes what poll() has, decides for a while (`turns`), and returns to the event loop.
- Every accepted plan reaches the engine or is discarded; no descriptor is left behind.
- What was decided before a reload is not repeated after it by the engine alone.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from snow_owl_tftp._engine.engine import (
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
from snow_owl_tftp.errors import InternalError, RefusedError
from snow_owl_tftp.events.sink import BATCHING
from snow_owl_tftp.events.tally import Tally
from snow_owl_tftp.observe.samples import CallSampler
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.server.arrivals import Answering, Arrivals
from snow_owl_tftp.server.bookkeeping import Bookkeeper
from snow_owl_tftp.server.futures import failure_of
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.replies import Replies
from snow_owl_tftp.server.turns import Turns
from snow_owl_tftp.server.verdict import Accepted, Decider, Refused, Verdict, refuse

if TYPE_CHECKING:
    from snow_owl_tftp._engine.engine import Event  # the stub's name for what poll() returns

__all__ = ["Serving"]

_SETTLE_S: Final = 1.0
"""A budget of lines is one for a second; what was left out is told behind it."""


class Serving:
    """What happens between the start of an engine and its stop."""

    def __init__(
        self,
        engine: Engine,
        decider: Decider,
        report: Report,
        tally: Tally,
        *,
        crowd: int,
        under_way: set[Answering],
        on_work: Callable[[], None],
    ) -> None:
        """Take an engine's events from now on; in the event loop that runs.

        Args:
            engine: It runs.
            decider: Answers requests.
            report: Told what happens.
            tally: Counts it.
            crowd: Where more requests than so many wait those that are late are dropped.
            under_way: See Arrivals.
            on_work: Called whenever the engine has said something.
        """
        self.engine = engine
        self._decider = decider
        self._report = report
        self._on_work = on_work
        self._loop = asyncio.get_running_loop()
        self._books = Bookkeeper(tally, report)
        self._replies = Replies(engine, report)
        self._arrivals = Arrivals(engine, self._books, report, under_way)
        self._turns = Turns(crowd, self._books.rested)
        self._goes_on: asyncio.Handle | None = None
        self._deciding: set[asyncio.Future[Verdict]] = set()
        self._changes_total = 0
        self._settles: asyncio.TimerHandle | None = None
        self._is_over = False
        self._sampler = self._make_sampler()
        self._loop.add_reader(engine.fileno(), self._on_events)

    @property
    def waiting_total(self) -> int:
        """Requests whose turn has not come."""
        return len(self._turns)

    @property
    def live_transfers(self) -> int:
        """Requests being decided and transfers that have not ended."""
        figures = self.engine.counters()
        # Not the engine's own `live_transfers`: a request stands in `_deciding` and there.
        return len(self._deciding) + figures["transfers_started"] - figures["transfers_ended"]

    @property
    def is_quiet(self) -> bool:
        """Nothing is being decided or transferred; a receiver that merely repeats its last ACK does not count."""
        figures = self.engine.counters()
        return (
            not self._deciding
            and figures["transfers_started"] == figures["transfers_ended"]
            and figures["half_open_transfers"] == 0
        )

    def forget_decisions(self) -> None:
        """What is being decided at this moment is good for once only: the engine must not repeat it."""
        self._changes_total += 1

    def sample_anew(self) -> None:
        """Begin a new sample of calls: none mixes what was before a change with what is after."""
        self._sampler.stop()
        self._sampler = self._make_sampler()

    def close(self) -> None:
        """Take no more events, decide nothing more; in the event loop, before the engine is stopped."""
        self._is_over = True
        self._loop.remove_reader(self.engine.fileno())
        for handle in (self._goes_on, self._settles):
            if handle is not None:
                handle.cancel()
        self._goes_on = self._settles = None
        self._sampler.stop()
        self._replies.close()
        self._arrivals.close()
        for future in list(self._deciding):
            future.cancel()

    def take(self) -> None:
        """Take what the engine has to say; when it was stopped, its last words."""
        for event in self.engine.poll():
            try:
                self._on_event(event)
            except Exception as error:  # the events behind it must not be lost with it
                self._log_internal_error(error)

    def _make_sampler(self) -> CallSampler:
        return CallSampler(self._loop, self.engine.counters, self._report.emit)

    def _log_internal_error(self, error: BaseException) -> None:
        self._report.log.error("internal error", exc_info=error)

    # ---- events

    def _on_events(self) -> None:
        if self._is_over:
            return
        self.take()
        next_s = self._turns.go(self._decide, self._drop)
        if next_s is not None:
            go_on = self._go_on
            self._goes_on = self._loop.call_later(next_s, go_on) if next_s else self._loop.call_soon(go_on)
        self._flush()
        self._on_work()
        if self._report.wanted & BATCHING:
            self._sampler.wake()

    def _go_on(self) -> None:
        self._goes_on = None
        self._turns.come()
        self._on_events()

    def _flush(self) -> None:
        self._replies.flush()
        self._report.flush()
        if self._report.owes_counts and self._settles is None and not self._is_over:
            self._settles = self._loop.call_later(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._settles = None
        self._flush()

    def _on_event(self, event: "Event") -> None:
        if isinstance(event, Completion):  # the most frequent first
            self._on_completion(event)
        elif isinstance(event, Request):
            self._turns.add(event)
        elif isinstance(event, FirstData):
            self._arrivals.first_data(event)
        elif isinstance(event, Received):
            self._arrivals.received(event)
        elif isinstance(event, (Retired, Released)):
            event.context.retired()
        elif isinstance(event, Refusals):
            self._books.limited(event)
        elif isinstance(event, ModeChange):
            self._books.batching_changed(event)

    def _on_completion(self, completion: Completion) -> None:
        context = completion.context
        self._books.ended(completion)
        try:
            try:
                context.ended(completion)
            finally:
                if completion.is_last:
                    context.retired()
        finally:
            self._books.tell_end(completion)

    # ---- requests

    def _drop(self, late: Request) -> None:
        """In silence: its client has given up, or will ask again."""
        self._replies.refuse(late.transfer_id, b"")
        self._books.dropped()

    def _decide(self, incoming: Request) -> None:
        try:
            try:
                verdict = self._decider.decide(incoming)
            except Exception as error:  # a bug must cost one request, not the server
                verdict = _internal_error(error)
            if isinstance(verdict, (Accepted, Refused)):
                self._carry_out(incoming, verdict)
            else:
                self._carry_out_later(incoming, verdict)
        except Exception as error:  # those that wait must not lose their turn with it
            self._log_internal_error(error)

    def _carry_out_later(self, incoming: Request, awaitable: Awaitable[Verdict]) -> None:
        future = asyncio.ensure_future(awaitable)
        self._deciding.add(future)
        changes_before = self._changes_total

        def on_done(done: asyncio.Future[Verdict]) -> None:
            self._deciding.discard(done)
            error = failure_of(done)
            verdict = _internal_error(error) if error else done.result()
            if isinstance(verdict, Accepted) and self._changes_total != changes_before:
                verdict.flow = None  # decided by the old rules, perhaps: good for this once
            try:
                self._carry_out(incoming, verdict)
            except Exception as error:  # its refusal must leave all the same
                self._log_internal_error(error)
            self._flush()

        future.add_done_callback(on_done)

    def _carry_out(self, incoming: Request, verdict: Verdict) -> None:
        if self._is_over:
            verdict.discard()
        elif isinstance(verdict, Accepted):
            self._turns.accepted()
            self._start(incoming, verdict)
        else:
            self._turns.refused()
            self._replies.refuse(incoming.transfer_id, verdict.datagram)
            self._books.refused(incoming, verdict)

    def _start(self, incoming: Request, accepted: Accepted) -> None:
        context = accepted.plan.context
        try:
            self.engine.start(accepted.plan, accepted.flow, wake=False, limits=incoming.limits)
        except OSError as error:
            # The file shrank or grew since it was opened, or memory for its mapping is short, or so much hangs on its
            # device that nobody would read it. Its descriptor is the engine's all the same; what else the context
            # holds is ours.
            context.retired()
            self._carry_out(incoming, refuse(context.request, _refusal_of_start(error.errno)))
        except MemoryError:
            context.retired()
            refused = RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again")
            self._carry_out(incoming, refuse(context.request, refused))
        except ValueError as error:
            context.retired()
            self._carry_out(incoming, _internal_error(error))
        else:
            self._replies.started()
            context.begin()
            self._books.started(incoming, accepted)


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
