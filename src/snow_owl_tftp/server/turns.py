"""How long the loop decides before others have their turn, and when it rests.

    add() ──► Waiting ──go()──► decide(request), drop(request)
                           └──► when the next turn is to come, where some still wait

May know: the time, and how many requests were refused of late. Must not know what a decision is, or an event loop.

Invariants:
- One turn decides for a few milliseconds at most. What is not decided then waits, where no address is behind another's
  flood (`waiting`).
- Where nearly all are refused, the next turn comes only when as much time has passed as this one took.
"""

import time
from collections.abc import Callable
from typing import Final

from snow_owl_tftp._engine.engine import Request
from snow_owl_tftp.server.waiting import Waiting

__all__ = ["Turns"]

_DECIDE_NS: Final = 5_000_000
"""Then whatever else the event loop has to do gets its turn: signals, uploads, what the engine tells."""
_FLOOD: Final = 9
"""So many times more refusals than transfers begun: who asks for what is not there in such numbers is no boot storm,
and gets half of a core at most. Transfers that run need the other half: their next ACK waits for a core."""
_LATELY: Final = 2000
"""Verdicts; what is older counts for less and less."""


class Turns:
    """Has waiting requests decided, a few milliseconds at a time."""

    def __init__(self, crowd: int, on_rest: Callable[[], None]) -> None:
        """Begin with nothing that waits.

        Args:
            crowd: See Waiting.
            on_rest: Told when a rest begins.
        """
        self._waiting: Waiting[Request] = Waiting(crowd)
        self._on_rest = on_rest
        self._is_planned = self._is_resting = False
        self._refused_lately = self._accepted_lately = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, request: Request) -> None:
        """Let a request wait for its turn."""
        self._waiting.add(request)

    def accepted(self) -> None:
        """One more of those that were decided becomes a transfer."""
        self._accepted_lately += 1

    def refused(self) -> None:
        """One more of those that were decided is refused."""
        self._refused_lately += 1

    def go(self, decide: Callable[[Request], None], drop: Callable[[Request], None]) -> float | None:
        """Decide for a while; nothing in a rest.

        Args:
            decide: Decides about a request whose turn it is; must not raise.
            drop: Told of a request that has waited in vain.

        Returns:
            In how many seconds another turn is to come, announced by `come`; None: that is not needed, or planned.
        """
        if self._is_resting:
            return None
        now_ns = time.monotonic_ns()
        end_ns = now_ns + _DECIDE_NS
        while (late := self._waiting.drop(now_ns)) is not None:
            drop(late)
        while now_ns < end_ns and (incoming := self._waiting.take(now_ns)) is not None:
            decide(incoming)
            now_ns = time.monotonic_ns()
        return self._plan() if self._waiting and not self._is_planned else None

    def come(self) -> None:
        """The turn that was planned has come."""
        self._is_planned = self._is_resting = False

    def _plan(self) -> float:
        self._is_planned = True
        self._is_resting = self._is_flooded()
        if not self._is_resting:
            return 0.0
        self._on_rest()
        return _DECIDE_NS / 1e9

    def _is_flooded(self) -> bool:
        is_flooded = self._refused_lately > _FLOOD * self._accepted_lately
        if self._refused_lately + self._accepted_lately > _LATELY:
            self._refused_lately //= 2
            self._accepted_lately //= 2
        return is_flooded
