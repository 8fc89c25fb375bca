"""Which machine it is that asks: known ones have rules of their own.

There is no list of machines yet, so `NO_MACHINES` knows none and every decision holds for everybody.
"""

from collections.abc import Mapping
from typing import Final, Literal, Protocol

from msgspec import Struct

__all__ = ["NO_MACHINES", "Client", "Machine", "Machines"]


class Client(Protocol):
    """Who asks, as far as machines go: an Asker, or whoever had asked."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and TID."""


class Machine(Struct, frozen=True, gc=False):
    """One machine that asks; every text is None where it is unknown.

    Attributes:
        name: As the inventory calls it, unique there. Never what a client says of itself.
        address: The client's own, without "::ffff:"; link-local ones with their zone ("fe80::1%2").
        mac: Lower case with colons.
        uuid: Lower case with dashes.
        serial: As the inventory spells it.
        arch: Of the inventory.
        group: Of the inventory.
        vars: Of the inventory; shared, so not to be changed.
        known_by: "address": the network proves it as far as it can; "name": the requested name claims it, which whoever
            can send a datagram may do.
        source: Which source knew it first: "inventory", "leases", "neighbours" or "name".
    """

    name: str | None = None
    address: str | None = None
    mac: str | None = None
    uuid: str | None = None
    serial: str | None = None
    arch: str | None = None
    group: str | None = None
    vars: Mapping[str, str] = {}
    known_by: Literal["address", "name"] = "address"
    source: str | None = None


class Machines(Protocol):
    """All that are known."""

    @property
    def tells_apart(self) -> bool:
        """Whether any asker is another machine than the rest: then what is decided for one holds for no other."""

    def find(self, asker: Client, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """Return who asks; None: nobody that is known. Waits for nothing.

        Args:
            asker: Who asks.
            paths: What for: the name in its spellings, normalised. Empty: nothing can be claimed.
        """


class _NoMachines:
    """Knows nobody."""

    tells_apart = False

    def find(self, asker: Client, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """See Machines.find."""
        return None


NO_MACHINES: Final[Machines] = _NoMachines()
