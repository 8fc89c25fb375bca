"""What is known of a machine, and the protocol by which it is asked for.

May know: who asks. Must not know where the knowledge comes from.
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

    def find(self, asker: Client, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """Return who asks; None: nobody that is known. Waits for nothing.

        Args:
            asker: Who asks.
            paths: What for: the name in its spellings, normalised. Empty: nothing can be claimed.
        """


class _NoMachines:
    """Knows nobody."""

    def find(self, asker: Client, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """See Machines.find."""
        return None


NO_MACHINES: Final[Machines] = _NoMachines()
