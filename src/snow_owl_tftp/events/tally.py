"""How transfers ended and what requests were refused: counted whoever listens.

May know: outcomes and errors. Used by the event loop's thread alone.
"""

from collections import Counter
from typing import Final

from snow_owl_tftp.errors import BadPacket, OptionalMissingError, RefusedError, TftpError
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["Tally"]

_MAX_RULES_TOLD: Final = 20
"""In one line, those that refused the most."""
_NAMES: Final = [code.name.lower() for code in ErrorCode]


class Tally:
    """Counts since the server was made.

    Attributes:
        outcomes: Transfers by plan.transfer.Outcome; those that the engine began by itself too.
        probes_total: Of those that ended by the client's ERROR: who wanted the size only, and has it (see `probe`).
        refusals: Requests that were answered with an ERROR, by its code; "optional_missing" are those that nobody
            misses, "malformed" those that are no packets, "internal" our own defects, "ignored" those that a rule
            leaves without an answer.
        limits: What the engine refused by itself, or held back, by the limit's name; what a rule's limit refused too.
        by_rule: Those that a rule refused, or left without an answer, by its number; a reload may give another rule
            that number.
        found: Transfers of files that nobody asked for by their path, by the way in which they were found.
        dropped_total: Requests that waited until their clients had given up.
        rests_total: How often the event loop rested from a flood of refusals; `figures` leaves it out, since it is no
            request.
    """

    __slots__ = ("by_rule", "dropped_total", "found", "limits", "outcomes", "probes_total", "refusals", "rests_total")

    def __init__(self) -> None:
        self.outcomes = [0] * len(Outcome)
        self.refusals = Counter[str]()
        self.by_rule = Counter[int]()
        self.found = Counter[str]()
        self.limits = Counter[str]()
        self.dropped_total = 0
        self.rests_total = 0
        self.probes_total = 0

    @property
    def transfers_total(self) -> int:
        """All that have ended."""
        return sum(self.outcomes)

    def refused(self, cause: TftpError) -> None:
        """Count one request that was refused."""
        if isinstance(cause, OptionalMissingError):
            self.refusals["optional_missing"] += 1
        elif isinstance(cause, RefusedError):
            self.refusals["ignored" if cause.is_silent else _NAMES[cause.code]] += 1
            if cause.rule:
                self.by_rule[cause.rule] += 1
            if cause.limit:
                self.limits[cause.limit] += 1
        else:
            self.refusals["malformed" if isinstance(cause, BadPacket) else "internal"] += 1

    def figures(self) -> dict[str, str]:
        """Return what there is to tell, as fields of a line: "ok:12,timed_out:1"."""
        outcomes = {outcome.name.lower(): self.outcomes[outcome] for outcome in Outcome}
        outcomes["peer_error"] -= self.probes_total
        outcomes["probe"] = self.probes_total
        refusals = {**self.refusals, "dropped": self.dropped_total}
        busiest = {f"rule {number}": count for number, count in self.by_rule.most_common(_MAX_RULES_TOLD)}
        told = {
            "outcomes": _listed(outcomes),
            "found": _listed(self.found),
            "refusals": _listed(refusals),
            "refused_by": _listed(busiest),
            "limits": _listed(self.limits),
        }
        return {name: text for name, text in told.items() if text}


def _listed(counts: dict[str, int]) -> str:
    return ",".join(f"{name}:{count}" for name, count in counts.items() if count)
