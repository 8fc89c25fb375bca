"""Client classes: whom the prefixes of rules do not tell apart.

    10.0.0.0/8 of rules 1 and 3, 10.1.0.0/16 and 10.2.0.0/16 of rule 2
        ─►  10.0.0.0/8 is class 1, 10.1.0.0/16 and 10.2.0.0/16 are class 2, everybody else is class 0

May know: prefixes. Must not know rules, or who repeats answers for a class.

Invariants: an address is of the class of the longest prefix that holds it. Two prefixes are of one class only if what
holds the one is said of what holds the other. There are no more classes than prefixes, and class 0.
"""

from collections.abc import Mapping
from typing import TypeAlias

from snow_owl_tftp.config.rules import Network

__all__ = ["ClassedPrefix", "classes_of", "divide"]

ClassedPrefix: TypeAlias = tuple[bytes, int, int]
"""Network (4 or 16 bytes), length in bits, class from 1: as ClientClasses of the engine takes it."""


def classes_of(said: Mapping[Network, int]) -> list[ClassedPrefix]:
    """Divide addresses by the prefixes that hold them.

    Args:
        said: Prefixes, each with a number; those with the same number mean the same to whoever they hold.
    """
    return divide(said)[0]


def divide(said: Mapping[Network, int]) -> tuple[list[ClassedPrefix], list[frozenset[int]]]:
    """The same, and by class what is said of its clients: of those of class 0 nothing is."""
    classes: dict[frozenset[int], int] = {frozenset(): 0}
    listed: list[ClassedPrefix] = []
    # Where each prefix around this one ends, and what is said of it and of those around it; the innermost last.
    around: list[tuple[tuple[int, int], frozenset[int]]] = []
    for network in sorted(said, key=lambda one: (one.version, int(one.network_address), one.prefixlen)):
        first = int(network.network_address)
        while around and around[-1][0] <= (network.version, first):
            around.pop()
        chain = (around[-1][1] if around else frozenset()) | {said[network]}
        around.append(((network.version, first + network.num_addresses), chain))
        number = classes.setdefault(chain, len(classes))
        listed.append((network.network_address.packed, network.prefixlen, number))
    return listed, list(classes)
