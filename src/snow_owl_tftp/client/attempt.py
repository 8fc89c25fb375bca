"""The ways in which a server may be asked, in order, and what earlier answers say about them.

    [A with options, B with options, A without, B without]        A and B: addresses of one server

May know: addresses. Must not: open sockets, call the engine, or know a transfer.
Invariants: the first attempt of a list is the one under way; nothing is remembered for ever, or of everybody.

Why without options: by RFC 2347 a server ignores options that it does not know, but older stacks (boot loaders of
switches, RTOS ports) silently drop the whole request. So after two unanswered tries the third carries none.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from snow_owl_tftp.client.address import ServerAddress
from snow_owl_tftp.client.settings import ClientSettings

__all__ = ["Attempt", "Remembered", "attempts_at", "patience_s"]

_NEXT_ADDRESS_S = 2.0
"""Long enough for one repetition. To time out takes half a minute: too long for a `localhost` that is ::1 first."""
_TRIES_WITH_OPTIONS = 2
"""One lost datagram is normal; two in a row are a sign."""
_MAX_REMEMBERED = 1024

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to ask.

    Attributes:
        address: Where the request goes.
        plain: It carries no options, as in RFC 1350.
    """

    address: ServerAddress
    plain: bool = False


class Remembered(Generic[_Value]):
    """What was learned of servers: each entry holds for a while, and the oldest go when there are too many.

    Args:
        for_s: How long an entry holds, in seconds.
        clock: Seconds, monotonic.
    """

    def __init__(self, for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._for_s = for_s
        self._clock = clock
        self._entries: dict[ServerAddress, tuple[float, _Value]] = {}

    def get(self, address: ServerAddress) -> _Value | None:
        until_s, value = self._entries.get(address, (0.0, None))
        return value if self._clock() < until_s else None

    def put(self, address: ServerAddress, value: _Value) -> None:
        self._entries.pop(address, None)
        self._entries[address] = self._clock() + self._for_s, value
        if len(self._entries) > _MAX_REMEMBERED:
            del self._entries[next(iter(self._entries))]


def attempts_at(
    addresses: Sequence[ServerAddress], answers_options: Remembered[bool], *, no_options: bool
) -> list[Attempt]:
    """All ways to ask a server, the best first.

    Args:
        addresses: Of the server, best first.
        answers_options: True: a request with options was answered there; False: only one without was.
        no_options: Never ask with options.
    """
    known = {address: False if no_options else answers_options.get(address) for address in addresses}
    first = [Attempt(address, plain=known[address] is False) for address in addresses]
    return first + [Attempt(address, plain=True) for address in addresses if known[address] is None]


def patience_s(attempts: Sequence[Attempt], settings: ClientSettings, *, spent_s: float) -> float:
    """How long the first of `attempts` may stay unanswered before the next one; the last has all the time there is.

    Args:
        attempts: At least one.
        settings: Of the client.
        spent_s: How long the server has been asked in other ways.
    """
    two_tries_s = settings.silence_s(min(_TRIES_WITH_OPTIONS, settings.retries + 1))
    if len(attempts) == 1:
        return max(settings.silence_s(settings.retries + 1) - spent_s, two_tries_s)
    if attempts[0].address != attempts[1].address:
        return max(_NEXT_ADDRESS_S, settings.timeout or 0)
    return two_tries_s
