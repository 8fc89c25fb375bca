"""What goes down to the engine in batches: refusals, and the wakings of workers that have plans to begin.

    refuse(), started() ──► … ──► flush() ──► engine.refuse_all(), engine.wake()

May know: the engine. Must not decide, count or tell what is refused.

Invariants:
- Every refusal reaches the engine, at the end of the batch of events at the latest, unless its run is over: then the
  engine has told the clients.
- No plan waits for its worker longer than a batch of events lasts.
"""

from typing import TYPE_CHECKING, Final

from snow_owl_tftp._engine.engine import Engine
from snow_owl_tftp.linux.remedies import with_remedy

if TYPE_CHECKING:
    from snow_owl_tftp.server.narrate import Report

__all__ = ["Replies"]

_REFUSALS_AT_ONCE: Final = 32
"""Half of what the engine has put by for when memory is short."""
_STARTS_AT_ONCE: Final = 32
"""A worker that is woken for each takes the core from who decides, and sends each first packet by a call of its own; a
third of a millisecond is nothing to a client."""


class Replies:
    """Gathers what one run of an engine is to be told."""

    def __init__(self, engine: Engine, report: "Report") -> None:
        self._engine = engine
        self._report = report
        self._refusals: list[tuple[int, bytes]] = []
        self._unwoken = 0
        self._is_closed = False

    def refuse(self, transfer_id: int, datagram: bytes) -> None:
        """Answer a request with an ERROR, or with silence (b"").

        A worker that is woken for each of a flood has no time for its transfers.
        """
        self._refusals.append((transfer_id, datagram))
        if len(self._refusals) >= _REFUSALS_AT_ONCE:
            self._send_refusals()

    def started(self) -> None:
        """The engine has a plan of which its worker does not know yet."""
        self._unwoken += 1
        if self._unwoken >= _STARTS_AT_ONCE:
            self._wake()

    def flush(self) -> None:
        """Tell what was gathered."""
        self._send_refusals()
        if self._unwoken:
            self._wake()

    def close(self) -> None:
        """Tell nothing any more."""
        self._is_closed = True

    def _send_refusals(self) -> None:
        refusals, self._refusals = self._refusals, []
        if refusals and not self._is_closed:
            try:
                self._engine.refuse_all(refusals)
            except MemoryError as error:  # who heard nothing asks again; the others' turn must not be lost with it
                self._report.log.error(with_remedy("some requests could not be refused", error))

    def _wake(self) -> None:
        self._unwoken = 0
        if not self._is_closed:
            self._engine.wake()
