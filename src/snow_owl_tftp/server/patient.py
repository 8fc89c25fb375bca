"""Threads for calls that may never return: a look-up on a file server that has died hangs in the kernel.

    submit_for(b"nfs", open, …) ─► queue of "nfs"   ─┐ each in turn, and at most `max_per_key` of one at a time
    submit_for(b"boot", open, …) ─► queue of "boot" ─┴► one of `max_threads`, started when it is needed

May know: functions and keys. Must not know what they do.
Invariants:
- What hangs holds the threads that its own key may have, and no other's.
- What hangs does not keep the process from ending: the threads are daemons, which nobody joins.
  ThreadPoolExecutor joins all of its threads when the interpreter ends, hence this one.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

__all__ = ["PatientThreads"]

_Work: TypeAlias = tuple["Future[Any]", Callable[[], Any]]
_P = ParamSpec("_P")
_T = TypeVar("_T")

_NO_KEY: Final = b""


class PatientThreads(Executor):
    """An Executor whose work has keys."""

    def __init__(self, max_threads: int, max_per_key: int, name: str) -> None:
        """Start no thread yet.

        Args:
            max_threads: In all.
            max_per_key: That work of one key may hold; several keys can hang before all threads do.
            name: How the names of the threads begin.
        """
        self._max_threads = max_threads
        self._max_per_key = max_per_key
        self._name = name
        self._changed = threading.Condition()  # guards all below
        self._waiting: OrderedDict[bytes, deque[_Work]] = OrderedDict()
        self._waiting_total = 0
        self._busy = Counter[bytes]()
        self._threads_total = self._idle_total = 0
        self._is_closed = False

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """See Executor.submit; such work has a key of its own."""
        return self.submit_for(_NO_KEY, fn, *args, **kwargs)

    def submit_for(self, key: bytes, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Have a function called in a thread.

        Args:
            key: Of what hangs together.
            fn: The function.
            args: What to call it with.
            kwargs: Likewise.

        Raises:
            RuntimeError: After `shutdown`; or no thread can be started, and there is none yet. Nothing waits then.
        """
        future: Future[_T] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("no work is taken after shutdown")
            if self._waiting_total >= self._idle_total and self._threads_total < self._max_threads:
                self._start_thread()
            self._waiting.setdefault(key, deque()).append((future, lambda: fn(*args, **kwargs)))
            self._waiting_total += 1
            self._changed.notify()
        return future

    def _start_thread(self) -> None:
        """Raises: RuntimeError, where the system has no thread for us and none could do the work later."""
        thread = threading.Thread(target=self._run, name=f"{self._name}_{self._threads_total + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads_total:
                raise
        else:
            self._threads_total += 1

    def waiting_for(self, key: bytes) -> int:
        """How much work of one key waits or is being done."""
        with self._changed:
            return len(self._waiting.get(key, ())) + self._busy[key]

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
                self._waiting_total = 0
            self._changed.notify_all()
        for future, _ in dropped:
            future.cancel()

    def _run(self) -> None:
        while (taken := self._wait_for_work()) is not None:
            key, future, call = taken
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del taken, future, call  # a thread that waits holds nobody's arguments
            with self._changed:
                self._busy[key] -= 1
                if not self._busy[key]:
                    del self._busy[key]
                self._changed.notify()  # what waits for a thread of this key

    def _wait_for_work(self) -> tuple[bytes, "Future[Any]", Callable[[], Any]] | None:
        with self._changed:
            while (taken := self._take()) is None:
                if self._is_closed:
                    return None
                self._idle_total += 1
                self._changed.wait()
                self._idle_total -= 1
            return taken

    def _take(self) -> tuple[bytes, "Future[Any]", Callable[[], Any]] | None:
        """The oldest work of the key whose turn it is, among those that may have another thread."""
        for key, queue in self._waiting.items():
            if self._busy[key] < self._max_per_key:
                future, call = queue.popleft()
                self._waiting_total -= 1
                self._waiting.move_to_end(key)
                if not queue:
                    del self._waiting[key]
                self._busy[key] += 1
                return key, future, call
        return None
