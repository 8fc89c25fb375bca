"""Threads for calls that may never return: a look-up on a file server that has died hangs in the kernel.

    submit_for(7, open, …) ─► queue of device 7 ─┐ each in turn, and at most `max_per_key` of one at a time,
    submit_for(9, open, …) ─► queue of device 9 ─┴► more only for those that take long, or hang

May know: functions and keys. Must not know what they do.
Invariants:
- What hangs holds the threads that its own key may have, and no other's: it is replaced, up to `max_spares` times a
  key; and when `max_threads` are at work in all, a key that has none still gets one.
- What hangs does not keep the process from ending: the threads are daemons, which nobody joins.
  ThreadPoolExecutor joins all of its threads when the interpreter ends, hence this one.
- Work that nobody waits for any more (cancelled) is dropped when the next of its key comes.
- Quick work of one key is done by one thread: who wakes eight for each of ten thousand look-ups a second, all of which
  want the GIL, takes both cores from everybody. One more of a key begins `help_after_s` after the last at the earliest.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

from snow_owl_tftp._engine.disk import apart

__all__ = ["PatientThreads"]

_Work: TypeAlias = tuple["Future[Any]", Callable[[], Any]]
_P = ParamSpec("_P")
_T = TypeVar("_T")

_NO_KEY: Final = None
_RESERVED: Final = 32
"""Threads beyond `max_threads`, for keys that have none: so many sick mounts cannot lock out one that is well."""
_IDLE_S: Final = 10.0
"""Then a thread ends, where others are idle too."""


class PatientThreads(Executor):
    """An Executor whose work has keys."""

    def __init__(
        self,
        max_threads: int,
        max_per_key: int,
        name: str,
        *,
        max_spares: int = 0,
        hang_s: float = 2.0,
        help_after_s: float = 0.0,
    ) -> None:
        """Start no thread yet.

        Args:
            max_threads: In all.
            max_per_key: That work of one key may hold; several keys can hang before all threads do.
            name: How the names of the threads begin.
            max_spares: How many more one key may have, one for each that hangs.
            hang_s: Work that takes longer hangs.
            help_after_s: Where a thread is at work for a key, when the next one may begin beside it; 0: at once.
        """
        self._help_after_s = help_after_s
        self._max_threads = max_threads
        self._max_per_key = max_per_key
        self._max_spares = max_spares
        self._hang_s = hang_s
        self._name = name
        lock = threading.RLock()  # guards all below
        self._changed = threading.Condition(lock)  # threads that have nothing to do wait for it ...
        self._done = threading.Condition(lock)  # ... and whoever wants to know when there is nothing left, for this
        self._waiting: OrderedDict[Hashable, deque[_Work]] = OrderedDict()
        self._begun: dict[Hashable, dict[int, float]] = {}  # when each thread that is at work began, by key and thread
        self._busy_total = self._threads_total = self._idle_total = self._starting_total = self._started_total = 0
        self._is_closed = False
        # A thread waits for the moment when one more may begin beside another: beside what hangs, ...
        self._is_watched = False
        self._is_watched_closely = False  # ... or beside what has just begun, which is much sooner

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """See Executor.submit; such work has a key of its own."""
        return self.submit_for(_NO_KEY, fn, *args, **kwargs)

    def submit_for(self, key: Hashable, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Have a function called in a thread.

        Args:
            key: Of what hangs together.
            fn: The function.
            args: What to call it with.
            kwargs: Likewise.

        Raises:
            RuntimeError: After `shutdown`, or the system has no thread for us and none could do the work later.
        """
        future: Future[_T] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("no work is taken after shutdown")
            self._waiting.setdefault(key, deque()).append((future, lambda: fn(*args, **kwargs)))
            self._drop_cancelled(key)
            self._grow()
            if not self._threads_total:
                del self._waiting[key]
                raise RuntimeError("can't start new thread")
            self._call_one()
        return future

    def of(self, key: Hashable) -> Executor:
        """Return an Executor all of whose work has this key."""
        return _OfOneKey(self, key)

    def waiting_for(self, key: Hashable) -> int:
        """How much work of one key waits or is being done."""
        with self._changed:
            self._drop_cancelled(key)
            return len(self._waiting.get(key, ())) + len(self._begun.get(key, ()))

    def is_stuck(self, key: Hashable) -> bool:
        """Every thread that one key may have hangs: more work would wait in vain."""
        with self._changed:
            return self._hung(key) >= self._max_per_key + self._max_spares

    @property
    def busy_total(self) -> int:
        """Threads that are at work now; after `shutdown` those that hang."""
        with self._changed:
            return self._busy_total

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Take no more work; what is being done is never waited for.

        Args:
            wait: Has no effect.
            cancel_futures: Drop what waits.
        """
        with self._changed:
            self._is_closed = True
            dropped = [work for queue in self._waiting.values() for work in queue] if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            self._changed.notify_all()
        for future, _ in dropped:
            future.cancel()

    def finish(self, timeout_s: float) -> bool:
        """Wait until nothing waits and nothing is being done.

        Args:
            timeout_s: At most so long.

        Returns:
            False: something hangs.
        """
        with self._changed:
            return self._done.wait_for(lambda: not self._waiting and not self._begun, timeout_s)

    def _hung(self, key: Hashable) -> int:
        begun = self._begun.get(key)
        if begun is None:
            return 0
        late = time.monotonic() - self._hang_s
        return sum(began < late for began in begun.values())

    def _drop_cancelled(self, key: Hashable) -> None:
        queue = self._waiting.get(key)
        while queue and queue[0][0].cancelled():
            queue.popleft()
        if queue is not None and not queue:
            del self._waiting[key]

    def _needs_one(self) -> bool:
        """Whether one more thread has something to do: work, or to watch for the moment when it may do some."""
        return bool(self._waiting) and (
            not self._is_watched or self._needs_close_watch() or any(map(self._may_run, self._waiting))
        )

    def _needs_close_watch(self) -> bool:
        return not self._is_watched_closely and any(map(self._is_early, self._waiting))

    def _call_one(self) -> None:
        if self._idle_total and self._needs_one():
            self._changed.notify()

    def _may_run(self, key: Hashable) -> bool:
        busy = len(self._begun.get(key, ()))
        if busy == 0:
            return True
        if self._is_early(key):
            return False
        if busy >= self._max_per_key:
            return self._busy_total < self._max_threads and busy < self._max_per_key + min(
                self._hung(key), self._max_spares
            )
        return self._busy_total < self._max_threads

    def _is_early(self, key: Hashable) -> bool:
        begun = self._begun.get(key)
        if not begun or not self._help_after_s:
            return False
        return time.monotonic() - max(begun.values()) < self._help_after_s

    def _grow(self) -> None:
        """Start a thread if work waits and nobody is idle: one looks what may run now, also where others hang."""
        is_full = self._threads_total >= self._max_threads + _RESERVED
        if not self._needs_one() or self._idle_total or self._starting_total or is_full:
            return
        name = f"{self._name}_{self._started_total + 1}"
        try:
            apart.start(threading.Thread(target=self._run, name=name, daemon=True))
        except RuntimeError:  # the system has no more; those that we have do the work later
            return
        self._threads_total += 1
        self._started_total += 1
        self._starting_total += 1

    def _run(self) -> None:
        with self._changed:
            self._starting_total -= 1
        while (taken := self._wait_for_work()) is not None:
            key, future, call = taken
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del taken, future, call  # a thread that waits holds nobody's arguments
            with self._changed:
                self._busy_total -= 1
                del self._begun[key][threading.get_ident()]
                if not self._begun[key]:
                    del self._begun[key]
                # This one goes on with the next. Who waits in `finish`, and at the end everybody, wants to hear of it.
                if not self._waiting:
                    self._done.notify_all()
                if self._is_closed:
                    self._changed.notify_all()

    def _wait_for_work(self) -> tuple[Hashable, "Future[Any]", Callable[[], Any]] | None:
        with self._changed:
            while (taken := self._take()) is None:
                if self._is_closed and not self._waiting:
                    self._threads_total -= 1
                    return None
                is_told = self._wait_idle()
                if not is_told and not self._waiting and self._idle_total:
                    self._threads_total -= 1
                    return None
            # For what else may run, now or soon.
            self._grow()
            self._call_one()
            return taken

    def _wait_idle(self) -> bool:
        """Wait to be called; returns whether that happened."""
        self._idle_total += 1
        # What waits for a key that hangs, or that another thread has just begun with, may run soon; nobody says so.
        is_close = self._needs_close_watch()
        is_watching = bool(self._waiting) and not self._is_watched
        timeout_s = _IDLE_S
        if is_watching:
            self._is_watched = True
            timeout_s = self._hang_s / 4
        if is_close:
            self._is_watched_closely = True
            timeout_s = min(timeout_s, self._help_after_s)
        is_told = self._changed.wait(timeout_s)
        self._is_watched &= not is_watching
        self._is_watched_closely &= not is_close
        self._idle_total -= 1
        return is_told

    def _take(self) -> tuple[Hashable, "Future[Any]", Callable[[], Any]] | None:
        """The oldest work of the key whose turn it is, among those that may have another thread."""
        for key, queue in self._waiting.items():
            if self._may_run(key):
                future, call = queue.popleft()
                self._waiting.move_to_end(key)
                if not queue:
                    del self._waiting[key]
                self._begun.setdefault(key, {})[threading.get_ident()] = time.monotonic()
                self._busy_total += 1
                return key, future, call
        return None


class _OfOneKey(Executor):
    def __init__(self, threads: PatientThreads, key: Hashable) -> None:
        self._threads = threads
        self._key = key

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        return self._threads.submit_for(self._key, fn, *args, **kwargs)
