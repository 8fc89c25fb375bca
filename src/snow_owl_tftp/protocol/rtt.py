"""The round trip of one transfer: RFC 6298, in integer nanoseconds.

Knows round trips and limits, and nothing of packets. Which answers are samples is decided by the caller, who alone
knows what was sent twice (Karn's rule). `srtt_ns` is 0 until something was measured. The clock granularity G of
RFC 6298 section 2 is covered by the floor. The engine's `protocol/rtt.pxd` is the same in native code, bit by bit: that
is why the arithmetic is whole numbers.

How long to wait before something is sent again is more than this: see `patience`.
"""

from dataclasses import dataclass

__all__ = ["RetransmitPolicy", "RoundTrip"]


@dataclass(frozen=True, slots=True)
class RetransmitPolicy:
    """When to send again and when to give up; one for all transfers of an engine.

    Attributes:
        initial_ns: The wait before the first repetition (RFC 6298 (2.1): one second), for every client of which no loss
            is known, however fast its path (`patience`).
        floor_ns: The least that the measured timer exceeds the round trip by (G in RFC 6298 section 2): what a peer's
            scheduler may add to a round trip that never varied.
        ceiling_ns: Greatest RTO that back-off reaches.
        give_up_ns: Without progress for so long, a transfer with a proven peer ends.
        half_open_give_up_ns: The same for a peer that never answered.
        half_open_datagrams: First answers that the timer sends to an unproven peer, the first included: its address
            may be forged.
        min_retries: Retransmissions before giving up, however long they take.
    """

    initial_ns: int = 1_000_000_000
    floor_ns: int = 10_000_000
    ceiling_ns: int = 3_000_000_000
    give_up_ns: int = 30_000_000_000
    half_open_give_up_ns: int = 10_000_000_000
    half_open_datagrams: int = 3
    min_retries: int = 3


class RoundTrip:
    """What was measured, and the RTO that follows from it.

    Args:
        policy: Bounds of the RTO.
    """

    def __init__(self, policy: RetransmitPolicy) -> None:
        self._policy = policy
        self.srtt_ns = 0
        self.rttvar_ns = 0
        self.least_ns = 0

    def sample(self, rtt_ns: int) -> None:
        """Takes a measured round trip: RFC 6298 (2.2) and (2.3) with alpha 1/8, beta 1/4, K 4.

        More than twice the RTO counts as twice the RTO: where much is lost an answer may have waited for the timer of
        the peer, and a few of these would hold our own timer at theirs. A round trip that really grew is learned all
        the same, doubling with every sample.

        The first one replaces a longer round trip that was remembered, or that the answer to an OACK took: a client may
        think about the options for a while, so `forget_least` was called behind that.
        """
        is_first = self.least_ns == 0 and rtt_ns < self.srtt_ns
        self.least_ns = min(self.least_ns, rtt_ns) if self.least_ns else rtt_ns
        rtt_ns = min(rtt_ns, 2 * self.rto_ns) if self.srtt_ns else rtt_ns
        if self.srtt_ns == 0 or is_first:
            self.srtt_ns = max(rtt_ns, 1)
            self.rttvar_ns = rtt_ns // 2
        else:
            self.rttvar_ns = (3 * self.rttvar_ns + abs(self.srtt_ns - rtt_ns)) // 4
            self.srtt_ns = max((7 * self.srtt_ns + rtt_ns) // 8, 1)

    def forget_least(self) -> None:
        """What was measured may hold a pause of the client: no fact about the path."""
        self.least_ns = 0

    @property
    def rto_ns(self) -> int:
        """The RTO without any back-off; `initial_ns` before the first sample."""
        if not self.srtt_ns:
            return self._policy.initial_ns
        return min(self.srtt_ns + max(4 * self.rttvar_ns, self._policy.floor_ns), self._policy.ceiling_ns)

    @property
    def soonest_ns(self) -> int:
        """What is answered sooner than this is hardly answered to what was sent last: a little less than the least."""
        ns = self.least_ns or self.srtt_ns
        return ns - ns // 8

    def is_too_soon(self, ns: int) -> bool:
        """Whether an answer after `ns` answers something older, for certain."""
        return self.least_ns > 0 and ns < self.soonest_ns

    def is_about_one(self, ns: int) -> bool:
        """Whether an answer after `ns` took about a round trip: the shortest, twice, and a scheduler's hiccup."""
        return bool(self.srtt_ns) and ns <= 2 * (self.least_ns or self.srtt_ns) + self._policy.floor_ns
