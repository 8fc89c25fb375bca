"""Who asks for a second stage before anybody knows that it has the first: told no only after a second look.

    worker 1: the last ACK of shim ──────────► its end, to Python ──┐ may come behind the request,
    worker 2:                       RRQ grubx64.efi, to Python ─────┘ since workers are threads

May know: verdicts. Must not know names or files: it is told how to look again.

Invariants:
- Only a miss waits, for `_END_S`, and at most `_MAX_WAITING` do; the others are answered at once.
- What was found is carried out or discarded, also where nobody waits for it any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.server.verdict import Refused, Verdict

__all__ = ["EarlyAskers"]

_END_S: Final = 0.03
"""A worker of a busy machine waits some milliseconds for its core; no client notices this at a missing file."""
_MAX_WAITING: Final = 1024
"""Whoever floods us with such names is answered at once."""

_Answer: TypeAlias = Verdict | Awaitable[Verdict]


class EarlyAskers:
    """Looks twice."""

    def __init__(self) -> None:
        """Nobody waits."""
        self.waiting_total = 0

    def answer(self, first: _Answer, has_ended: Callable[[], bool], look: Callable[[], _Answer]) -> _Answer:
        """Answer by what was found first; where that is nothing, by what is found once a transfer may have ended.

        Args:
            first: What was found, or is being looked for.
            has_ended: Whether it has.
            look: Looks again.
        """
        if self.waiting_total >= _MAX_WAITING or (not isinstance(first, Awaitable) and not _is_missing(first)):
            return first
        return self._look_twice(first, has_ended, look)

    async def _look_twice(self, first: _Answer, has_ended: Callable[[], bool], look: Callable[[], _Answer]) -> Verdict:
        self.waiting_total += 1
        try:
            verdict = await _found(first)
            if not _is_missing(verdict):
                return verdict
            await asyncio.sleep(_END_S)
            return await _found(look()) if has_ended() else verdict
        finally:
            self.waiting_total -= 1


async def _found(answer: _Answer) -> Verdict:
    if not isinstance(answer, Awaitable):
        return answer
    looking = asyncio.ensure_future(answer)
    try:
        return await looking
    except asyncio.CancelledError:
        if looking.done() and not looking.cancelled() and looking.exception() is None:
            looking.result().discard()  # it was found in the moment in which we were ended
        raise


def _is_missing(verdict: Verdict) -> bool:
    cause = verdict.cause if isinstance(verdict, Refused) else None
    return isinstance(cause, RefusedError) and cause.code == ErrorCode.FILE_NOT_FOUND
