"""Uploads as they arrive: their file is opened when the first data is here, and stored when the last is.

    FirstData ──► context.open()   ──► engine.supply(), or commit() with an ERROR
    Received  ──► context.commit() ──► engine.commit(): the last ACK, or an ERROR

May know: the engine, upload contexts. Must not know where a file lies, or wait.

Invariants:
- Every FirstData and every Received is answered once, whatever the context does: the last ACK leaves only when it says
  that the file is in its place.
- An answer that comes when the run is over goes nowhere: the engine has told the client.
"""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from snow_owl_tftp._engine.engine import Engine, FirstData, Received
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.server.bookkeeping import Bookkeeper
from snow_owl_tftp.server.futures import failure_of
from snow_owl_tftp.server.verdict import CommitRefusal, Sink, UploadContext

if TYPE_CHECKING:
    from snow_owl_tftp.server.narrate import Report

__all__ = ["Answering", "Arrivals"]

Answering: TypeAlias = "asyncio.Future[Sink | CommitRefusal | None]"
"""A context at work: on its way to a Sink, to None (stored), or to the reason why not."""


class Arrivals:
    """Asks the contexts of uploads, and answers the engine."""

    def __init__(self, engine: Engine, books: Bookkeeper, report: "Report", under_way: set[Answering]) -> None:
        """Begin.

        Args:
            engine: Told each answer.
            books: Told of files that are stored although their transfer failed.
            report: Whose log takes tracebacks.
            under_way: Holds what contexts are at work on, so that somebody can wait for it when the run is over.
        """
        self._engine = engine
        self._books = books
        self._report = report
        self._under_way = under_way  # the event loop itself holds no strong reference
        self._is_closed = False

    def first_data(self, event: FirstData) -> None:
        """An upload begins to arrive: open its file."""
        self._answer_later(event.transfer_id, event.context, event.context.open())

    def received(self, event: Received) -> None:
        """Every byte of an upload is written: store it, then let the engine answer."""
        self._answer_later(event.transfer_id, event.context, event.context.commit(event.payload_bytes))

    def close(self) -> None:
        """Answer the engine no more."""
        self._is_closed = True

    def _answer_later(
        self, transfer_id: int, context: UploadContext, answer: Coroutine[Any, Any, Sink | CommitRefusal | None]
    ) -> None:
        future = asyncio.ensure_future(answer)
        self._under_way.add(future)

        def on_done(done: Answering) -> None:
            self._under_way.discard(done)
            self._answer(transfer_id, done)
            self._books.tell_stored(context)

        future.add_done_callback(on_done)

    def _answer(self, transfer_id: int, done: Answering) -> None:
        error = failure_of(done)
        if error is not None:
            self._report.log.error("internal error", exc_info=error)
        if self._is_closed:
            return
        answer = None if error is not None else done.result()
        if error is not None:
            self._engine.commit(transfer_id, ErrorCode.NOT_DEFINED, b"Internal error")
        elif isinstance(answer, Sink):
            self._engine.supply(transfer_id, *answer)
        elif answer is not None:
            self._engine.commit(transfer_id, answer.code, answer.text.encode(), answer.error_number)
        else:
            self._engine.commit(transfer_id)
