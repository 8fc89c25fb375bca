"""What becomes of requests and transfers: each is counted, and made an event where somebody wants to hear of it.

    Serving, Turns, Arrivals ──► Bookkeeper ──► Tally       always
                                            └─► EventSink   refusals, failures and losses; the rest as its mask says

May know: verdicts, completions, the tally, the sink. Must not know what an event becomes, or touch the engine.

Invariants:
- Everything is counted whether or not anybody listens.
- What no mask asks for is not made: 40,000 transfers a second pass here.
"""

from snow_owl_tftp._engine.engine import Completion, ModeChange, Refusals, Request
from snow_owl_tftp.events.event import (
    BatchingChanged,
    LimitReached,
    RequestDropped,
    RequestRefused,
    StoredAfterFailure,
    TransferEnded,
    TransferStarted,
)
from snow_owl_tftp.events.probe import is_size_probe
from snow_owl_tftp.events.sink import STARTS, SUCCESSES, EventSink
from snow_owl_tftp.events.tally import Tally
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.server.verdict import Accepted, Refused, UploadContext

__all__ = ["Bookkeeper"]


class Bookkeeper:
    """Counts into a tally, and tells a sink."""

    def __init__(self, tally: Tally, events: EventSink) -> None:
        self._tally = tally
        self._events = events

    def started(self, incoming: Request, accepted: Accepted) -> None:
        """A request has become a transfer."""
        if self._events.wanted & STARTS:
            context = accepted.plan.context
            event = TransferStarted(incoming, accepted.plan, context.request, context.size_bytes, context.found)
            self._events.emit(event)

    def refused(self, incoming: Request, refused: Refused) -> None:
        """A request was refused, or left without an answer by a rule."""
        self._tally.refused(refused.cause)
        self._events.emit(RequestRefused(incoming, refused.request, refused.cause))

    def dropped(self) -> None:
        """A request has waited until its client had given up."""
        self._tally.dropped_total += 1
        self._events.emit(RequestDropped())

    def rested(self) -> None:
        """The event loop rests from a flood of refusals."""
        self._tally.rests_total += 1

    def limited(self, refusals: Refusals) -> None:
        """The engine has refused, or held back, by itself."""
        self._tally.limits[refusals.limit] += refusals.count
        self._events.emit(LimitReached(refusals))

    def batching_changed(self, change: ModeChange) -> None:
        """A worker batches otherwise from now on."""
        self._events.emit(BatchingChanged(change))

    def ended(self, completion: Completion) -> None:
        """Count a transfer that has ended; before its context hears of it."""
        self._tally.outcomes[completion.outcome] += 1
        found = completion.context.found
        if found is not None:
            self._tally.found[found[1]] += 1

    def tell_end(self, completion: Completion) -> None:
        """Tell of a transfer that has ended; after its context has heard of it."""
        context, outcome = completion.context, completion.outcome
        if outcome == Outcome.OK and not self._events.wanted & SUCCESSES:
            return
        event = TransferEnded(completion, context.request, context.size_bytes, context.found)
        if outcome == Outcome.PEER_ERROR and is_size_probe(event):
            self._tally.probes_total += 1
        self._events.emit(event)
        if outcome != Outcome.OK and isinstance(context, UploadContext):
            self.tell_stored(context)

    def tell_stored(self, context: UploadContext) -> None:
        """Tell of a file that is in its place although its transfer failed: the client gave up in the last moment."""
        if context.is_stored and context.failed is not None:
            self._events.emit(StoredAfterFailure(*context.failed, context.request))
