"""What one client has of what a rule lets it have: requests a second, and transfers at a time.

    request ──ask──► it may, or which limit it is beyond
    transfer ──open──► one more ──prove──► its client has answered ──close──► one less ──rejoin──► one more after all

A transfer that its client has not answered may be forged, so it keeps nobody out: where all places are taken the
newcomer gets one, and whoever asks sees to it that the oldest of these gives way.

Invariants: 0 <= unproven <= live. With one asker at a time, and as long as each CROWDED is followed by a close, live is
no more than `transfers`.

The engine's `base/accounts.pxd` is the same in a table with a bound.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from snow_owl_tftp.protocol.bucket import Bucket

__all__ = ["Account", "Grant"]


class Grant(IntEnum):
    """What is answered; the numbers are the engine's."""

    GRANTS = 0
    REQUESTS = 1
    """No token is left."""
    TRANSFERS = 2
    """All places are taken by transfers that the client has answered."""
    CROWDED = 3
    """It may, and one that it has not answered should give way."""


@dataclass(slots=True)
class Account:
    """Of one client by one rule.

    Attributes:
        requests: One token each.
        live: Transfers.
        unproven: Of these: those that the client has not answered.
    """

    requests: Bucket = field(default_factory=Bucket)
    live: int = 0
    unproven: int = 0

    def ask(self, requests_per_s: int, transfers: int, now_ns: int) -> Grant:
        """Take a token for one more request, if it may be asked.

        Args:
            requests_per_s: 0: no limit.
            transfers: At a time; 0: no limit.
            now_ns: The time, of a clock that never goes back.
        """
        if requests_per_s:
            if self.requests.wait_ns(1, requests_per_s, now_ns):
                return Grant.REQUESTS
            self.requests.take(1, requests_per_s, now_ns)
        return Grant.TRANSFERS if transfers and self.live - self.unproven >= transfers else Grant.GRANTS

    def open(self, transfers: int) -> Grant:
        """Count one more transfer, unless it is one too many; `transfers` is more than 0."""
        if self.live - self.unproven >= transfers:
            return Grant.TRANSFERS
        self.live += 1
        self.unproven += 1
        return Grant.CROWDED if self.live > transfers else Grant.GRANTS

    def prove(self) -> int:
        """One of them has been answered, or is over without that; returns how many have been now."""
        self.unproven -= 1
        return self.live - self.unproven

    def rejoin(self, transfers: int) -> bool:
        """Count one again that was closed and goes on after all, answered; False: there is no place for it."""
        if self.live - self.unproven >= transfers:
            return False
        self.live += 1
        return True

    def close(self) -> None:
        """One that was proven is over."""
        self.live -= 1
