"""What has become of a server's requests and transfers, as a program may ask at any time.

    Tally (the event loop's, still counting) ──counts_of──► Counts (frozen, the caller's)

May know: the tally. Must not count anything itself.
Invariant:
- Each part is copied in one step that holds the GIL, so any thread may ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from snow_owl_tftp.events.tally import Tally
from snow_owl_tftp.plan.transfer import Outcome

__all__ = ["Counts", "counts_of"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What has become of requests and transfers since the server was made. Stopping and starting resets nothing.

    Attributes:
        transfers: Transfers that have ended, by outcome, named as in Completion. Every outcome is there, also with 0.
        refusals: Requests that were refused, by reason; those that have not occurred are missing. Reasons are the
            ERROR sent ('file_not_found', 'access_violation', 'not_defined', …), 'malformed' (the datagram was no
            request), 'internal' (a handler failed, or the server did), and 'dropped' (it waited until its client
            must have given up, and was left without an answer).
        limits: Requests that a limit kept from a handler, or transfers that one slowed down, by the limit's name
            (Refusals in docs/engine-contract.md, section 10).
    """

    transfers: Mapping[str, int]
    refusals: Mapping[str, int]
    limits: Mapping[str, int]


def counts_of(tally: Tally) -> Counts:
    """Copy what was counted so far."""
    probes_total = tally.probes_total  # first: each of them is among the outcomes already
    outcomes = list(tally.outcomes)
    transfers = {outcome.name.lower(): outcomes[outcome] for outcome in Outcome}
    transfers["peer_error"] -= probes_total
    transfers["size_probe"] = probes_total
    refusals = dict(tally.refusals)
    if tally.dropped_total:
        refusals["dropped"] = tally.dropped_total
    return Counts(MappingProxyType(transfers), MappingProxyType(refusals), MappingProxyType(dict(tally.limits)))
