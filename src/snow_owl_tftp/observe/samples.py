"""What one system call carried of late: samples of the engine's counters, while datagrams flow.

May know: the counters' names. Must not log, or know why anybody wants to see a sample.

Invariants:
- Nothing runs while the server is idle: a timer is started by events only, and a look that finds no
  datagram since the last one starts no other.
- A sample covers all that happened since the one before it, so that nothing is left out between two.
- At most one sample in `SAMPLE_S`.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from snow_owl_tftp.events.event import BatchCalls

__all__ = ["SAMPLE_S", "CallSampler"]

SAMPLE_S: Final = 1.0
"""A person reads along; the counters are summed over all workers each time."""

_COUNTED: Final = (
    "recvmmsg_calls",
    "recvfrom_calls",
    "recvmmsg_empty",
    "recvfrom_empty",
    "sendmmsg_calls",
    "sendto_calls",
    "datagrams_received",
    "datagrams_sent",
)


class CallSampler:
    """Takes samples from the first sign of traffic until there is none."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read: Callable[[], Mapping[str, Any]],
        tell: Callable[[BatchCalls], None],
    ) -> None:
        """Start from what was counted so far.

        Args:
            loop: Whose timer is used.
            read: The engine's counters.
            tell: Takes a sample.
        """
        self._loop = loop
        self._read = read
        self._tell = tell
        self._last = self._counted()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Something happened: look in a while, unless that is planned already."""
        if self._timer is None:
            self._timer = self._loop.call_later(SAMPLE_S, self._on_time)

    def stop(self) -> None:
        """Tell what is left to tell and look no more; the next `wake` begins anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._look()

    def _on_time(self) -> None:
        self._timer = None
        if self._look():
            self.wake()

    def _look(self) -> bool:
        """Tell what moved; whether anything did."""
        counted = self._counted()
        moved = {name: counted[name] - self._last[name] for name in _COUNTED}
        if not moved["datagrams_received"] and not moved["datagrams_sent"]:
            return False
        self._last = counted
        self._tell(_sample(moved))
        return True

    def _counted(self) -> dict[str, int]:
        counters = self._read()
        return {name: counters[name] for name in _COUNTED}


def _sample(moved: Mapping[str, int]) -> BatchCalls:
    receive_calls = moved["recvmmsg_calls"] + moved["recvfrom_calls"]
    empty_calls = moved["recvmmsg_empty"] + moved["recvfrom_empty"]
    send_calls = moved["sendmmsg_calls"] + moved["sendto_calls"]
    return BatchCalls(
        receive_calls=receive_calls,
        datagrams_per_receive=_mean(moved["datagrams_received"], receive_calls - empty_calls),
        empty_calls=empty_calls,
        send_calls=send_calls,
        datagrams_per_send=_mean(moved["datagrams_sent"], send_calls),
    )


def _mean(datagrams: int, calls: int) -> float:
    # The counters are of slightly different moments (docs/engine-contract.md, section 11): calls may lag.
    return round(datagrams / calls, 2) if calls > 0 else 0.0
