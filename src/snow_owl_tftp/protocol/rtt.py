"""The retransmission timer of one transfer: RFC 6298, in integer nanoseconds.

Knows round trips and limits, and nothing of packets. Karn's rule (no sample from a packet that was sent twice) is kept
by the caller, who alone knows what was sent. `srtt_ns` is 0 until something was measured. The clock granularity G of
RFC 6298 section 2 is covered by the floor. The engine's `_engine/rtt.pxd` is the same in native code, bit by bit:
that is why the arithmetic is whole numbers.
"""

from dataclasses import dataclass

__all__ = ["RetransmitPolicy", "RoundTrip"]


@dataclass(frozen=True, slots=True)
class RetransmitPolicy:
    """When to send again and when to give up; one for all transfers of an engine.

    Attributes:
        initial_ns: RTO before the first sample (RFC 6298 (2.1): one second).
        floor_ns: The least that the RTO exceeds the round trip by (G in RFC 6298 section 2): what a peer's
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
        fixed_ns: The negotiated `timeout` (RFC 2349), honoured as asked: it neither follows the measurement nor
            backs off. 0: none.
    """

    def __init__(self, policy: RetransmitPolicy, fixed_ns: int = 0) -> None:
        self._policy = policy
        self.fixed_ns = fixed_ns
        self.srtt_ns = 0
        self.rttvar_ns = 0
        self.least_ns = 0
        self._is_forgiven = False
        self.rto_ns = fixed_ns or policy.initial_ns

    def sample(self, rtt_ns: int) -> None:
        """Takes a measured round trip: RFC 6298 (2.2) and (2.3) with alpha 1/8, beta 1/4, K 4."""
        self.least_ns = min(self.least_ns, rtt_ns) if self.least_ns else rtt_ns
        if self.srtt_ns == 0:
            self.srtt_ns = max(rtt_ns, 1)
            self.rttvar_ns = rtt_ns // 2
        else:
            self.rttvar_ns = (3 * self.rttvar_ns + abs(self.srtt_ns - rtt_ns)) // 4
            self.srtt_ns = max((7 * self.srtt_ns + rtt_ns) // 8, 1)
        self._is_forgiven = False
        self._settle()

    def forgive(self) -> None:
        """Progress after a timeout, but no sample (Karn's rule).

        RFC 6298 keeps a backed-off RTO until there is a sample, so that a round trip that grew is learned. On a lossy
        path samples are rare, and two or three back-offs in a row cost seconds. So the back-off is forgotten once; a
        second one stays until there is a sample.
        """
        if not self._is_forgiven:
            self._is_forgiven = True
            self._settle()

    def _settle(self) -> None:
        if self.srtt_ns and not self.fixed_ns:
            margin_ns = max(4 * self.rttvar_ns, self._policy.floor_ns)
            self.rto_ns = min(self.srtt_ns + margin_ns, self._policy.ceiling_ns)

    def back_off(self) -> None:
        """Doubles the RTO after a timeout: RFC 6298 (5.5)."""
        if not self.fixed_ns:
            self.rto_ns = min(2 * self.rto_ns, self._policy.ceiling_ns)
