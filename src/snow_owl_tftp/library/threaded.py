"""An event loop in a thread of its own, for programs that have none.

May know: asyncio, threads. Must not know what runs in it.
Invariant: when `close` returns, the thread has ended and nothing of the loop is left.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

_Result = TypeVar("_Result")


class LoopThread:
    """A running loop."""

    def __init__(self) -> None:
        """Start it."""
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that fails before `close` must not wait for it for ever.
        self._thread = threading.Thread(target=self._loop.run_forever, name="tftp-server", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine to its end.

        Args:
            coroutine: Any.

        Returns:
            What it returns; what it raises is raised.
        """
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """End the loop and the thread."""
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
