"""Verdicts that only a thread can find, since a file system has to be asked; and what is said when it does not answer.

    decide(device 7, call) ─► a thread of 7: call(7) ─► Verdict
                                              └► Elsewhere(9) ─► a thread of 9: call(9) ─► …
                              nothing for OPEN_PATIENCE_S ─► "Server busy, try again"

May know: threads, devices and verdicts. Must not know names, files or rules.

Invariants:
- What is asked for waits in the queue of the device that has to be asked, and holds no thread of another's.
- Every one is answered: by what was found, or in time by a refusal; what is found later is discarded.
- At most `max_waiting` wait, and half of them for one device; whoever would wait for a device of which
  every thread hangs is told at once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol, TypeVar

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
        self.busy_total = 0
        self.is_sick: Callable[[int], bool] = lambda device: False

    def decide(
        self, device: int, call: Callable[[int | None], _V], refuse_busy: Callable[[], _V]
    ) -> "_V | asyncio.Task[_V]":
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
        try:
            last = [self._threads.submit_for(device, call, device)]
        except RuntimeError:  # no thread is to be had
            self.busy_total += 1
            return refuse_busy()
        self._waiting_total += 1
        task = asyncio.get_running_loop().create_task(self._wait(last, call, refuse_busy))
        task.add_done_callback(lambda done: self._on_done(done, last))
        return task

    def _would_wait_in_vain(self, device: int) -> bool:
        return self._threads.is_stuck(device) or self.is_sick(device)

    async def _wait(
        self, last: "list[Future[_V]]", call: Callable[[int | None], _V], refuse_busy: Callable[[], _V]
    ) -> _V:
        try:
            async with asyncio.timeout(OPEN_PATIENCE_S):
                for moves_left in reversed(range(_MAX_MOVES)):
                    try:
                        return await asyncio.wrap_future(last[0])
                    except Elsewhere as other:
                        if self._would_wait_in_vain(other.device):
                            break
                        may_wait_on = other.device if moves_left > 1 else None
                        last[0] = self._threads.submit_for(other.device, call, may_wait_on)
        except (TimeoutError, RuntimeError):  # or no thread is to be had
            pass
        self.busy_total += 1
        return refuse_busy()

    def _on_done(self, done: "asyncio.Task[_V]", last: "list[Future[_V]]") -> None:
        """Discard what was found, whenever that is, unless it is what was decided."""
        self._waiting_total -= 1
        decided = None if done.cancelled() or done.exception() else done.result()

        def on_found(found: "Future[_V]") -> None:
            if not found.cancelled() and found.exception() is None and found.result() is not decided:
                found.result().discard()

        last[0].cancel()
        last[0].add_done_callback(on_found)
