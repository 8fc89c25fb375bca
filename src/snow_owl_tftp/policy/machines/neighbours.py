"""What the kernel has heard: the MAC of every machine on our own links that has spoken with us.

May know: addresses and MACs. Must not know netlink: whoever reads it says what is there and what is gone.

Invariants: as many as `max_size`, then newcomers are not known and counted; asking again never waits. Machines behind
a router are never here, only the router is.
"""

from collections.abc import Callable
from typing import Final

from snow_owl_tftp.policy.machines.sighting import Sighting
from snow_owl_tftp.policy.machines.spellings import is_station

__all__ = ["MAX_NEIGHBOURS", "NeighbourTable"]

MAX_NEIGHBOURS: Final = 65_536
"""The kernel keeps 1,024 unless it is told otherwise (gc_thresh3)."""


class NeighbourTable:
    """A Source.

    Attributes:
        look: Called where somebody is not known: what the kernel has said meanwhile may tell; must not wait.
        left_out_total: Machines for which there was no room.
    """

    name: Final = "neighbours"
    is_proof: Final = True

    def __init__(self, max_size: int = MAX_NEIGHBOURS) -> None:
        """Know nobody yet."""
        self._max_size = max_size
        self._macs: dict[str, Sighting] = {}
        self.look: Callable[[], object] = lambda: None
        self.left_out_total = 0

    def __len__(self) -> int:
        return len(self._macs)

    def sight(self, host: str, paths: tuple[bytes, ...] = ()) -> Sighting | None:
        """See Source.sight."""
        found = self._macs.get(host)
        if found is None:
            self.look()
            found = self._macs.get(host)
        return found

    def seen(self, address: str, mac: str) -> None:
        """Note that an address, spelled as by `plain_host`, is a MAC's from now on."""
        known = self._macs.get(address)
        if known is not None and known.mac == mac:
            return
        if not is_station(mac):
            return
        if known is None and len(self._macs) >= self._max_size:
            self.left_out_total += 1
            return
        self._macs[address] = Sighting(mac)

    def gone(self, address: str) -> None:
        """Note that nobody knows any more whose an address is."""
        self._macs.pop(address, None)

    def keep_only(self, addresses: set[str]) -> None:
        """Forget whoever is not among these: the kernel has just named them all."""
        for address in [address for address in self._macs if address not in addresses]:
            self.gone(address)
