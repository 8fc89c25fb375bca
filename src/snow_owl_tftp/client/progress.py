"""Progress callbacks: what they are called with, and where.

May know: asyncio. Must not know: transfers, or who calls.
Invariant: a callback of asyncio code runs in its event loop; what it raises is raised to whoever calls next.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

__all__ = ["InLoop", "ProgressCallback", "SilenceAware", "in_loop"]

ProgressCallback: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes so far and the size, None where the server does not tell it. See SilenceAware too."""


@runtime_checkable
class SilenceAware(Protocol):
    """A progress callback that is told, instead of no progress, that a server has not answered yet."""

    def __call__(self, done_bytes: int, size_bytes: int | None, /) -> None:
        """As any ProgressCallback."""

    def unanswered(self, server: str, asked: int) -> None:
        """Nothing came from `server` (`host:port`), though the request was sent `asked` times, elsewhere included."""


class InLoop:
    """A progress callback, called where asyncio code expects to run.

    Attributes:
        error: What it raised; the next call raises it, so that it ends the transfer as a plain callback does.
    """

    def __init__(self, progress: ProgressCallback) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self.error: BaseException | None = None

    def __call__(self, done_bytes: int, size_bytes: int | None) -> None:
        self._pass_on(self._progress, done_bytes, size_bytes)

    def _pass_on(self, callback: Callable[..., None], *arguments: Any) -> None:
        if self.error is not None:
            raise self.error
        self._loop.call_soon_threadsafe(self._call, callback, arguments)

    def _call(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self.error is not None:
            return
        try:
            callback(*arguments)
        except Exception as error:  # anything that a caller's code raises
            self.error = error


class _InLoopWithSilence(InLoop):
    """A callback that is also told of silence."""

    def __init__(self, progress: SilenceAware) -> None:
        super().__init__(progress)
        self._silence_aware = progress

    def unanswered(self, server: str, asked: int) -> None:
        self._pass_on(self._silence_aware.unanswered, server, asked)


def in_loop(progress: ProgressCallback | None) -> InLoop | None:
    """The same callback for the running event loop."""
    if progress is None:
        return None
    return _InLoopWithSilence(progress) if isinstance(progress, SilenceAware) else InLoop(progress)
