"""Patience: how long to wait before something is sent again.

A slow client is not a lossy path. A Raspberry Pi that erases its flash for 150 ms, or a boot loader that draws its
menu, answers late; to send it the same block again is at best in vain, and there are devices that count what arrives
instead of looking at the block number: one block twice, and they hang. A measured round trip does not tell such a pause
from a loss, so it must not drive the timer before the path has been seen to lose something:

1. Of a client of which nothing is known, nothing is sent again within `initial_ns`, a second.
2. Loss is believed when a repetition was answered once, in about a round trip. From then on the measured round trip
   drives this client's timer (RFC 6298), through all its transfers: the first loss may cost a second, the next
   does not.
3. A repetition that was answered twice was in vain: the client had only paused. Its patience grows to twice that
   pause, and the answer that came late is a sample of the round trip. Every loss that is proven later takes a
   quarter off. What it took for the OACK does not count: it thought about the options.

A negotiated `timeout` (RFC 2349) overrides all this: it is kept as asked. A loss that the peer *reports* needs no
timer.

One `Patience` belongs to a client's address and outlives its transfers; the engine keeps a bounded table of those that
have something to tell (`_engine/protocol/patience.pxd`, the same rules over a struct).
"""

from dataclasses import dataclass
from typing import Final

from snow_owl_tftp.protocol.rtt import RetransmitPolicy, RoundTrip

__all__ = ["Patience", "Trial"]

_MOST_DOUBLINGS: Final = 16
_ALL: Final = 256
_SELDOM: Final = 4
_MEMORY: Final = 16
_MOST_LEVEL: Final = 4


@dataclass(slots=True)
class Patience:
    """What is known of how one client answers.

    Attributes:
        loses: Its path was seen to lose datagrams: the measured round trip drives the timer.
        pause_ns: The least wait all the same, learned from pauses that were mistaken for losses.
        srtt_ns: With `loses` or a limit: the round trip of its last transfer, for the next one's first packet.
        rttvar_ns: Its variation.
        burst_blocks: How many blocks at once its path took, 0: no limit was met (`burst`).
        silence: Of 256 blocks in lock-step so many were met with silence, of late: what silence is worth.
    """

    loses: bool = False
    pause_ns: int = 0
    srtt_ns: int = 0
    rttvar_ns: int = 0
    burst_blocks: int = 0
    silence: int = 0

    def rto_ns(self, rtt: RoundTrip, policy: RetransmitPolicy, retries: int) -> int:
        """Returns the wait before the next repetition, doubled for each that was in vain: RFC 6298 (5.5).

        `retries` begins anew at every progress, so the back-off does too. RFC 6298 keeps it until there is a sample;
        but Karn's rule lets hardly any sample pass on a lossy path, and the timer would stand at its ceiling.
        """
        least_ns = self.pause_ns if self.loses else max(policy.initial_ns, self.pause_ns)
        return min(max(rtt.rto_ns, least_ns) << min(retries, _MOST_DOUBLINGS), policy.ceiling_ns)

    @property
    def level(self) -> int:
        """How many repetitions in vain are no news on this path, for the timer of a sender in lock-step.

        Where a third of all blocks are met with silence, three silences in a row happen every day, and a timer that
        doubles for them costs more than the losses do. It doubles when chance is less than one in 64.
        """
        level, chance = 0, self.silence
        while self.loses and chance > _SELDOM and level < _MOST_LEVEL:
            chance = chance * self.silence // _ALL
            level += 1
        return level

    def on_answer(self, repeats: int) -> None:
        """A block in lock-step was answered, after so many repetitions; before a loss is known they mean nothing."""
        if not self.loses:
            return
        if repeats:
            self.silence += (_ALL - self.silence) * min(repeats, _MOST_LEVEL) // _MEMORY
        else:
            self.silence -= self.silence // _MEMORY

    def on_loss(self, policy: RetransmitPolicy) -> None:
        """Something was lost: rule 2."""
        self.loses = True
        self.pause_ns = min(self.pause_ns - self.pause_ns // 4, policy.initial_ns)

    def on_pause(self, late_ns: int, policy: RetransmitPolicy) -> None:
        """Nothing was lost, the client took `late_ns` to answer: rule 3.

        A client whose path loses is not waited for longer than one of which nothing is known: where packets are doubled
        and delayed, and timers meet, much looks like a pause.
        """
        most_ns = policy.initial_ns if self.loses else policy.ceiling_ns
        self.pause_ns = max(self.pause_ns, min(2 * late_ns, most_ns))
        self.silence = 0


@dataclass(slots=True)
class Trial:
    """A packet that was sent again alone and answered, before it is known how many of its copies were.

    The second answer, if there is one, leaves the client before the answer to anything that is sent now: the next
    progress without it is the proof of a loss.

    Attributes:
        late_ns: From the first copy to the answer.
        answer_ns: From the last copy to the answer.
        repeats: How many copies there are beside the first; when as many more answers come, nothing was lost.
    """

    late_ns: int
    answer_ns: int
    repeats: int
