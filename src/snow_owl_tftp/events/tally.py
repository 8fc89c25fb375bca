"""How transfers ended and what requests were refused: counted whoever listens.

May know: outcomes and errors. Used by the event loop's thread alone.
"""

from collections import Counter
from typing import Final

from snow_owl_tftp.errors import BadPacket, RefusedError, TftpError
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["Tally"]

_NAMES: Final = [code.name.lower() for code in ErrorCode]


class Tally:
    """Counts since the server was made.

    Attributes:
        outcomes: Transfers by plan.transfer.Outcome; those that the engine began by itself too.
        refusals: Requests that were answered with an ERROR, by its code; "malformed" are those that are no packets,
            "internal" our own defects.
        limits: What the engine refused by itself, or held back, by the limit's name.
        dropped_total: Requests that waited until their clients had given up.
    """

    __slots__ = ("dropped_total", "limits", "outcomes", "refusals")

    def __init__(self) -> None:
        self.outcomes = [0] * len(Outcome)
        self.refusals = Counter[str]()
        self.limits = Counter[str]()
        self.dropped_total = 0

    @property
    def transfers_total(self) -> int:
        """All that have ended."""
        return sum(self.outcomes)

    def refused(self, cause: TftpError) -> None:
        """Count one request that was refused."""
        if isinstance(cause, RefusedError):
            self.refusals[_NAMES[cause.code]] += 1
        else:
            self.refusals["malformed" if isinstance(cause, BadPacket) else "internal"] += 1

    def figures(self) -> dict[str, str]:
        """Return what there is to tell, as fields of a line: "ok:12,timed_out:1"."""
        outcomes = {outcome.name.lower(): self.outcomes[outcome] for outcome in Outcome}
        refusals = {**self.refusals, "dropped": self.dropped_total}
        told = {"outcomes": _listed(outcomes), "refusals": _listed(refusals), "limits": _listed(self.limits)}
        return {name: text for name, text in told.items() if text}


def _listed(counts: dict[str, int]) -> str:
    return ",".join(f"{name}:{count}" for name, count in counts.items() if count)
