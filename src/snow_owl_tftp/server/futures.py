"""What became of a future, whichever way it ended.

May know: asyncio. Must not log or answer.
"""

import asyncio
from typing import Any

__all__ = ["failure_of"]


def failure_of(done: "asyncio.Future[Any]") -> BaseException | None:
    """Return what a finished future failed with; None: it has a result.

    A CancelledError that it let out by itself is one failure more: whoever waits must be answered all the same.
    """
    try:
        return done.exception()
    except asyncio.CancelledError as error:
        # Without this frame, which leads to the caller's: that holds the error, and so itself and all it knows.
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
