"""A token bucket: how often, or how fast, somebody may be served.

    request ──allows──► answered ──take──► the bucket          requests: refused where it is empty
    blocks  ──reserve──► wait so long, then send               bytes: held, first come first served

A bucket fills with `rate` tokens a second and holds one second's worth. It is remembered as one number, the moment at
which it is full again: whatever lies in the past is a full bucket, so nothing has to fill it, an entry of a table that
is full is an unused one, and another rate after a reload finds a state that it understands.

Whoever reserves is told how long to wait until its tokens are there, and has taken them: those who come later wait
behind. So many who share a bucket take turns, and nobody looks in vain.

Invariants: in any span of time no more is let through than its tokens and those of one second, but for what alone is
more than that, which waits for a full bucket; each take may be a nanosecond too soon.

A rate of 0 means no limit: such a bucket is never asked.

The engine's `protocol/bucket.pxd` is the same over one integer.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["NS_PER_S", "Bucket", "cost_ns"]

NS_PER_S: Final = 1_000_000_000


def cost_ns(amount: int, rate: int) -> int:
    """Returns how long the bucket takes to fill by so much, rounded down, or it would not hold a second's worth.

    Args:
        amount: Tokens, 0..2**32 - 1.
        rate: Tokens a second, 1..10**10.
    """
    return amount * NS_PER_S // rate


@dataclass(slots=True)
class Bucket:
    """One bucket.

    Attributes:
        full_ns: When it is full again; may lie in the past.
    """

    full_ns: int = 0

    def wait_ns(self, amount: int, rate: int, now_ns: int) -> int:
        """Returns how long until so many tokens are there; 0: they are. More than a second's: until it is full.

        Args:
            amount: Tokens.
            rate: Tokens a second, more than 0.
            now_ns: The time, of a clock that never goes back.
        """
        return max(max(self.full_ns, now_ns) + min(cost_ns(amount, rate), NS_PER_S) - NS_PER_S - now_ns, 0)

    def take(self, amount: int, rate: int, now_ns: int) -> None:
        """Take them, whether they are there or not; arguments as for `wait_ns`."""
        self.full_ns = max(self.full_ns, now_ns) + cost_ns(amount, rate)

    def reserve(self, amount: int, rate: int, now_ns: int) -> int:
        """Take them and return how long to wait before they may be used; arguments as for `wait_ns`."""
        wait_ns = self.wait_ns(amount, rate, now_ns)
        self.take(amount, rate, now_ns)
        return wait_ns
