"""Prefixes of clients: which of them hold an address, found by one search however many there are.

    10.0.0.0/8, 10.1.0.0/16   ─►   10.0.0.0 … 10.0.255.255  held by /8
                                   10.1.0.0 … 10.1.255.255  held by /16 and /8        disjoint, in order: bisect
                                   10.2.0.0 … 10.255.255.255  held by /8

May know: addresses and prefixes. Must not know what is decided by them.

Invariants: every address lies in exactly one interval of its family; a chain has at most 33 or 129 prefixes, as many
as there are lengths.
"""

import socket
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Generic, TypeVar

from snow_owl_tftp.config.rules import Network

__all__ = ["PrefixTable", "number_of"]

_T = TypeVar("_T")
_REMEMBERED: Final = 4096
"""Addresses: one that boots asks for dozens of files."""
_MAPPED: Final = 0xFFFF << 32
"""::ffff:0:0/96: IPv4 that came by an IPv6 socket."""


def number_of(host: str) -> tuple[int, int]:
    """Return (4 or 6, the address as a number); raises OSError where it is none."""
    if ":" not in host:
        return 4, int.from_bytes(socket.inet_pton(socket.AF_INET, host))
    number = int.from_bytes(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))
    return (4, number & 0xFFFFFFFF) if number >> 32 << 32 == _MAPPED else (6, number)


class PrefixTable(Generic[_T]):
    """What is said of prefixes, found by address."""

    def __init__(self, said: Iterable[tuple[Network, _T]]) -> None:
        """Sort them.

        Args:
            said: A prefix, once at most, and what is said of it.
        """
        self._starts: dict[int, list[int]] = {}
        self._chains: dict[int, list[tuple[_T, ...]]] = {}
        by_version: dict[int, list[tuple[int, int, _T]]] = {4: [], 6: []}
        for network, what in said:
            first = int(network.network_address)
            by_version[network.version].append((first, first + network.num_addresses, what))
        for version, spans in by_version.items():
            self._starts[version], self._chains[version] = _disjoint(spans)
        self.holding = lru_cache(maxsize=_REMEMBERED)(self._holding)
        """Returns what is said of the prefixes that hold an address, the longest first."""

    def _holding(self, host: str) -> tuple[_T, ...]:
        try:
            version, number = number_of(host)
        except OSError:
            return ()
        return self._chains[version][bisect_right(self._starts[version], number) - 1]


def _disjoint(spans: list[tuple[int, int, _T]]) -> tuple[list[int], list[tuple[_T, ...]]]:
    """Cut nested spans [first, end) where they begin and end; prefixes are nested or apart, never crossed."""
    starts, chains = [0], [()]  # type: tuple[list[int], list[tuple[_T, ...]]]
    open_spans: list[tuple[int, tuple[_T, ...]]] = []  # where each ends, and the chain within it; the innermost last

    def begin(at: int) -> None:
        chain = open_spans[-1][1] if open_spans else ()
        if starts[-1] == at:
            chains[-1] = chain
        else:
            starts.append(at)
            chains.append(chain)

    for first, end, what in sorted(spans, key=lambda span: (span[0], -span[1])):
        while open_spans and open_spans[-1][0] <= first:
            ended = open_spans.pop()[0]
            begin(ended)
        open_spans.append((end, (what, *(open_spans[-1][1] if open_spans else ()))))
        begin(first)
    while open_spans:
        begin(open_spans.pop()[0])
    return starts, chains
