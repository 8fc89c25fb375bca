"""Bursts: how much of a window may leave at once.

A window is what the receiver agreed to acknowledge together; nobody asked the path, nor the receiver's socket, whether
they hold it. A socket with Linux' usual buffer holds 92 datagrams of 1428 bytes, a switch port perhaps 20; where a
window is larger its tail is lost in every round, always at the same place. A path that reorders is worse: receivers of
RFC 7440 discard what is out of order, so of 64 blocks two arrive. To wait longer cures neither. To send less at once
does:

- `now` blocks leave at once; then, in place of an ACK that the receiver does not owe before its window is full, the
  sender waits for as long as an ACK takes longer than the path, and sends the next ones.
- Behind a loss `now` is small: twice what arrived, and a few. What is sent behind the next loss is in vain. It doubles
  with each burst that left or arrived, up to the `limit`: a path that loses at random pays a pause or two.
- Where a timeout had to find out about the loss of much of a burst, its end was lost: less at once is what that place
  takes, and it counts twice.
- The limit is what is learned. Losses that fall anywhere teach nothing, for less at once would lose as many. It
  becomes the place where losses fall again and again; it is halved when blocks are seen to overtake one another, and
  from then on with every loss.
- Every burst of that size that arrived whole raises it a little.

Before anything was lost the limit is what the usual socket buffer holds, and grows with every burst that it does not
hold up. It is remembered for the client's next transfer only where it was learned (`is_learned`).

The engine's `protocol/burst.pxd` is the same over a struct; whole numbers, in 1/256 of a block.
"""

from typing import Final

__all__ = ["Burst", "blocks_of_a_usual_buffer"]

_USUAL_BUFFER_BYTES: Final = 212_992
"""net.core.rmem_default of Linux; measured with datagrams of 516 and 1432 bytes: it holds 166 and 92."""

_FRAME_BYTES: Final = 1480
"""IP payload of an Ethernet frame: a larger datagram comes in fragments, and is charged for each."""

_SMALL_BYTES: Final = 640
_SMALL_COST_BYTES: Final = 1_280
_FRAME_COST_BYTES: Final = 2_304
"""What a frame is charged in the receiver's buffer (skb->truesize), whatever is in it."""

_ONE: Final = 256
_LEAST_PAUSE_NS: Final = 1_000_000
_SAME_PLACE: Final = 3
_SMALL_PLACE: Final = 4
_LARGE: Final = 4
"""Of a larger burst at the limit the second half is its end, of a smaller one the last eighth."""
_FEW: Final = 8
_FEW_LEARNED: Final = 2
"""Behind a loss so many more leave than twice those that arrived; fewer where the path is known to have a limit."""

_UNHEEDING: Final = 4
_CAREFUL: Final = 64
_WARY: Final = 256
"""The limit grows by such a part of itself: before anything was lost; after losses at the same place, which is where
the path's own limit is; after a failure that cost a timeout."""


def blocks_of_a_usual_buffer(blksize_bytes: int) -> int:
    """Returns how many blocks are safe to send at once to a client with the usual buffer: three quarters of it."""
    if blksize_bytes < _SMALL_BYTES:
        cost_bytes = _SMALL_COST_BYTES
    else:
        cost_bytes = -(-(blksize_bytes + 12) // _FRAME_BYTES) * _FRAME_COST_BYTES
    return max(_USUAL_BUFFER_BYTES * 3 // 4 // cost_bytes, 1)


class Burst:
    """The limit, and what it was learned from.

    `now` is how many blocks may leave at once; `fence` the limit in 1/256.

    Args:
        windowsize_blocks: The greatest limit.
        blksize_bytes: For the limit before anything is known.
        remembered_blocks: The limit of this client's last transfer, 0: none was met.
    """

    def __init__(self, windowsize_blocks: int, blksize_bytes: int, remembered_blocks: int = 0) -> None:
        self._most = windowsize_blocks * _ONE
        self._remembered = remembered_blocks
        self._start = remembered_blocks or blocks_of_a_usual_buffer(blksize_bytes)
        self.least_pause_ns = 0
        self.forget()

    def forget(self) -> None:
        """As it was before this transfer: what was taken for losses was none."""
        self.fence = min(self._start * _ONE, self._most)
        self._growth = _CAREFUL if self._remembered else _UNHEEDING
        self.is_learned = self._remembered > 0
        self.overtakes = False
        self.now = self.limit
        self._place = 0
        self._times = 0

    @property
    def limit(self) -> int:
        """How many blocks may leave at once: at least one."""
        return self.fence // _ONE

    def lost(self, arrived_blocks: int, is_silent: bool = False) -> None:
        """So many blocks of a burst arrived before the first that did not.

        `is_silent`: nobody reported it before a timeout. Whoever takes a block behind a gap reports that, so the whole
        rest is lost, as where a queue is full.
        """
        is_silent = is_silent and arrived_blocks >= _FEW
        is_same = abs(arrived_blocks - self._place) <= self._place // 8
        self._times = (self._times if is_same else 0) + 1 + is_silent
        self._place = arrived_blocks
        if self._is_at_end(arrived_blocks) or self._times >= _SAME_PLACE + (arrived_blocks < _SMALL_PLACE):
            self.is_learned = True
            self._growth = _CAREFUL
            self.fence = max(min(arrived_blocks * _ONE, self.fence), _ONE)
        elif self.overtakes:
            self.fence = max(min(arrived_blocks * _ONE, self.fence), self.fence // 2, _ONE)
        self.now = min(arrived_blocks, self.limit) if is_silent else self.after(arrived_blocks)

    def after(self, blocks: int) -> int:
        """How many blocks may leave at once behind so many that arrived, or that have just left."""
        return min(2 * blocks + (_FEW_LEARNED if self.is_learned else _FEW), self.limit)

    def _is_at_end(self, arrived_blocks: int) -> bool:
        """Whether only the end was lost: of a larger burst than before, or of one on a path that has a limit."""
        if self.is_learned:
            return arrived_blocks >= self.limit - self.limit // (2 if self.limit > _LARGE else 8)
        return arrived_blocks >= self._start

    def lost_behind_pause(self, arrived_blocks: int, pause_ns: int, most_ns: int) -> None:
        """The burst before arrived whole, this one did not: after `pause_ns` the path was not ready for it."""
        if self.is_learned:
            self.least_pause_ns = min(pause_ns + pause_ns // 4 + _LEAST_PAUSE_NS, most_ns)
        self.now = self.after(arrived_blocks)

    def whole_behind_pause(self) -> None:
        """This one arrived whole too: perhaps it need not have waited so long."""
        self.least_pause_ns -= self.least_pause_ns // 4

    def shrink(self, blindly: bool) -> None:
        """Blocks overtook one another; or (`blindly`) something is lost all the time, and nobody says what."""
        self.is_learned = True
        self._growth = _WARY if blindly else _CAREFUL
        self.overtakes |= not blindly
        self.fence = max(min(self.fence, self.now * _ONE) // 2, _ONE)
        self.now = min(self.now, self.limit)

    def whole(self) -> None:
        """A burst arrived whole: try a little more.

        The whole window only when all but one block of it went well: the loss of its end is not reported by anybody.
        """
        if self.fence < self._most:
            most = self._most if self.fence >= self._most - _ONE else self._most - _ONE
            self.fence = min(self.fence + self.fence // self._growth + 1, most)
