"""Who hears of events, and which of them are worth making.

May know: the events. Must not know what becomes of them.
"""

from typing import Final, Protocol

from snow_owl_tftp.events.event import Event

__all__ = ["BATCHING", "STARTS", "SUCCESSES", "EventSink"]

# Bits of a mask of plain numbers: it is looked at for every transfer, and an IntFlag would cost as much as the event.
STARTS: Final = 1
"""TransferStarted."""
SUCCESSES: Final = 2
"""TransferEnded of transfers that ended well."""
BATCHING: Final = 4
"""BatchingChanged and BatchCalls."""


class EventSink(Protocol):
    """Hears of events, in the event loop; must not wait.

    Failures, refusals, limits and what was lost are always told; the rest where the mask says so.
    """

    @property
    def wanted(self) -> int:
        """STARTS, SUCCESSES and BATCHING, as far as anybody wants to hear of them; may change at a reload."""

    def emit(self, event: Event) -> None:
        """Take one event; what is not wanted may come all the same."""

    def flush(self, *, is_last: bool = False) -> None:
        """One batch of events is over.

        Args:
            is_last: No other one follows.
        """
