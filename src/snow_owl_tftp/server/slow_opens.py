"""Verdicts that only a thread can find, since a file system has to be asked; and what is said when it does not answer.

    decide(device 7, call) ─► a thread of 7: call(7) ─► Verdict ─────────────────────────────► found ─► the loop, once
                                              └► Elsewhere(9) ─► a thread of 9: call(9) ─► …          for all of them
                              nothing for OPEN_PATIENCE_S ─► "Server busy, try again"

May know: threads, devices and verdicts. Must not know names, files or rules.

Invariants:
- What is asked for waits in the queue of the device that has to be asked, and holds no thread of another's.
- Every one is answered: by what was found, or in time by a refusal; what is found later is discarded.
- The event loop is woken once for whatever was found by then, and one timer serves all that wait: a flood of names
  that nobody has looked up before pays for each of them.
- At most `max_waiting` wait, and half of them for one device; whoever would wait for a device of which
  every thread hangs is told at once.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

from snow_owl_tftp.server.patient import PatientThreads

__all__ = ["OPEN_PATIENCE_S", "Elsewhere", "SlowOpens"]

OPEN_PATIENCE_S: Final = 10.0
"""What a disk needs to spin up, twice; clients ask every one to five seconds and give up after 5 to 30."""
_MAX_MOVES: Final = 8
"""From device to device on the way to one name."""


class _Discardable(Protocol):
    def discard(self) -> None:
        """Nobody will use it."""


_V = TypeVar("_V", bound=_Discardable)


class Elsewhere(Exception):  # noqa: N818 - no error
    """Another device has to be asked first, and this is not the thread that may wait for it."""

    def __init__(self, device: int) -> None:
        self.device = device


class _Wait(Generic[_V]):
    """One that waits for a thread.

    Attributes:
        answer: What the event loop waits for.
        call: See SlowOpens.decide.
        refuse_busy: Likewise.
        due_s: When nobody waits for it any more, by the loop's clock.
        last: What a thread is asked, or was asked last.
        moves_left: To other devices.
    """

    __slots__ = ("answer", "call", "due_s", "last", "moves_left", "refuse_busy")

    def __init__(
        self, answer: "asyncio.Future[_V]", call: Callable[[int | None], _V], refuse_busy: Callable[[], _V]
    ) -> None:
        self.answer = answer
        self.call = call
        self.refuse_busy = refuse_busy
        self.due_s = answer.get_loop().time() + OPEN_PATIENCE_S
        self.last: Future[_V]
        self.moves_left = _MAX_MOVES - 1

    def on_done(self) -> None:
        """Discard what is found, whenever that is, unless it is what was decided."""
        answer, last = self.answer, self.last
        decided = None if answer.cancelled() or answer.exception() else answer.result()

        def on_found(found: "Future[_V]") -> None:
            if not found.cancelled() and found.exception() is None and found.result() is not decided:
                found.result().discard()

        last.cancel()
        last.add_done_callback(on_found)


class _Loop:
    """What waits in one event loop. Threads append to `found`, and tell the loop if nobody has; all else is its own."""

    __slots__ = ("found", "is_told", "loop", "timer", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.found: deque[_Wait[Any]] = deque()
        self.is_told = False
        self.waiting: OrderedDict[_Wait[Any], None] = OrderedDict()
        """The oldest first, so that whose time is up stands first."""
        self.timer: asyncio.TimerHandle | None = None


class SlowOpens:
    """Has threads find verdicts.

    Attributes:
        busy_total: How many were told to come again because a file system did not answer.
        is_sick: Asked whether so much hangs on a device that its files cannot be sent: the engine's own look.
    """

    def __init__(self, threads: PatientThreads, max_waiting: int) -> None:
        """Take threads, which stay the caller's, and how many may wait for them."""
        self._threads = threads
        self._max_waiting = max_waiting
        self._waiting_total = 0
        self._of: _Loop | None = None
        self.busy_total = 0
        self.is_sick: Callable[[int], bool] = lambda device: False

    def decide(
        self, device: int, call: Callable[[int | None], _V], refuse_busy: Callable[[], _V]
    ) -> "_V | asyncio.Future[_V]":
        """Have a verdict found.

        Args:
            device: That has to be asked first.
            call: Finds it, in a thread: given the device that it may wait for, it raises Elsewhere where another one
                has to be asked; given None it may wait for any.
            refuse_busy: Makes the verdict that stands for none.
        """
        if (
            self._waiting_total >= self._max_waiting
            or self._threads.waiting_for(device) >= self._max_waiting // 2
            or self._would_wait_in_vain(device)
        ):
            self.busy_total += 1
            return refuse_busy()
        of = self._here()
        wait = _Wait(of.loop.create_future(), call, refuse_busy)
        try:
            self._ask(of, wait, device, device)
        except RuntimeError:  # no thread is to be had
            self.busy_total += 1
            return refuse_busy()
        self._waiting_total += 1
        of.waiting[wait] = None
        wait.answer.add_done_callback(lambda _: self._on_done(of, wait))
        if of.timer is None:
            of.timer = of.loop.call_at(wait.due_s, self._give_up_those_due, of)
        return wait.answer

    def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        if self._of is None or self._of.loop is not loop:
            self._of = _Loop(loop)
        return self._of

    def _would_wait_in_vain(self, device: int) -> bool:
        return self._threads.is_stuck(device) or self.is_sick(device)

    def _ask(self, of: _Loop, wait: _Wait[_V], device: int, may_wait_on: int | None) -> None:
        """Raises: RuntimeError: No thread is to be had."""
        wait.last = self._threads.submit_for(device, wait.call, may_wait_on)
        wait.last.add_done_callback(lambda _: self._tell(of, wait))

    def _tell(self, of: _Loop, wait: _Wait[Any]) -> None:
        """In the thread that has found it, or given it up."""
        of.found.append(wait)
        if of.is_told:
            return  # whoever hears of the others takes this one, too
        of.is_told = True
        with suppress(RuntimeError):  # the loop has ended; whoever waited there has gone
            of.loop.call_soon_threadsafe(self._take_found, of)

    def _take_found(self, of: _Loop) -> None:
        of.is_told = False  # before the look: what comes behind it is told anew
        while of.found:
            self._go_on(of, of.found.popleft())

    def _go_on(self, of: _Loop, wait: _Wait[Any]) -> None:
        answer, last = wait.answer, wait.last
        if answer.done() or not last.done():
            return  # nobody waits any more; or this was told of what it was asked before
        if last.cancelled():
            answer.cancel()
            return
        error = last.exception()
        if error is None:
            answer.set_result(last.result())
        elif isinstance(error, Elsewhere):
            self._move(of, wait, error.device)
        elif isinstance(
            error, (TimeoutError, RuntimeError)
        ):  # the file system's own patience, or no thread is to be had
            self._give_up(wait)
        else:
            answer.set_exception(error)

    def _move(self, of: _Loop, wait: _Wait[Any], device: int) -> None:
        if wait.moves_left == 0 or self._would_wait_in_vain(device):
            self._give_up(wait)
            return
        wait.moves_left -= 1
        try:
            self._ask(of, wait, device, device if wait.moves_left else None)
        except RuntimeError:
            self._give_up(wait)

    def _give_up(self, wait: _Wait[Any]) -> None:
        self.busy_total += 1
        wait.answer.set_result(wait.refuse_busy())

    def _give_up_those_due(self, of: _Loop) -> None:
        of.timer = None
        now_s = of.loop.time()
        for wait in list(of.waiting):
            if wait.due_s > now_s:
                of.timer = of.loop.call_at(wait.due_s, self._give_up_those_due, of)
                break
            if not wait.answer.done():
                self._give_up(wait)

    def _on_done(self, of: _Loop, wait: _Wait[Any]) -> None:
        self._waiting_total -= 1
        del of.waiting[wait]
        wait.on_done()
