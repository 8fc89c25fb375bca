"""All that is known of who asks: the sources in the operator's order, completed by the inventory.

    for each source, in order:   the first sighting counts; later ones only add a MAC that is missing
    then the inventory:          the entry of that MAC, or UUID, adds name, group, arch and vars

Invariants:
- Where an address proves a machine, no claim adds to it; where a claim came first, nothing is added by address.
- Sources that contradict the first are not heard: two MACs are two machines.
- Nothing here waits, or remembers a client.
"""

from collections.abc import Sequence
from typing import Literal

from snow_owl_tftp.policy.machines.entries import Entry
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.machine import Client, Machine
from snow_owl_tftp.policy.machines.sighting import Sighting, Source
from snow_owl_tftp.policy.machines.spellings import plain_host

__all__ = ["KnownMachines"]


class KnownMachines:
    """See Machines."""

    def __init__(self, sources: Sequence[Source], inventory: Inventory) -> None:
        """Take sources in the order in which they are asked, and what completes their sightings."""
        self._sources = tuple((source, source.sight, source.is_proof) for source in sources)
        self._inventory = inventory

    def behind(self, source: Source) -> "KnownMachines":
        """Return the same, with a source that is asked before all others."""
        return KnownMachines([source, *(known for known, _, _ in self._sources)], self._inventory)

    def find(self, asker: Client, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """See Machines.find."""
        host = asker.peer[0]
        if host.startswith("::"):
            host = plain_host(host)
        first: Source | None = None
        mac: str | None = None
        uuid: str | None = None
        entry: Entry | None = None
        for source, sight, is_proof in self._sources:
            if first is not None and not is_proof:
                continue
            sighting = sight(host, paths)
            if sighting is None:
                continue
            if first is None:
                first, mac, uuid = source, sighting.mac, sighting.uuid
                entry = sighting.entry or self._entry_of(sighting)
                if not is_proof:
                    break
            elif mac is None:
                mac = self._mac_of_both(entry, sighting)
            elif entry is None and sighting.entry is not None and not sighting.entry.macs:
                entry = sighting.entry  # of that address, and of no other MAC
            if mac is not None and entry is not None:
                break
        return None if first is None else _machine(host, mac, uuid, entry, first)

    def _entry_of(self, sighting: Sighting) -> Entry | None:
        if sighting.mac is not None:
            return self._inventory.of_mac(sighting.mac)
        return self._inventory.of_uuid(sighting.uuid) if sighting.uuid is not None else None

    def _mac_of_both(self, entry: Entry | None, sighting: Sighting) -> str | None:
        """The MAC that a later source adds to a machine of which the first one knew none."""
        mac = sighting.mac
        if mac is None or entry is None:
            return mac
        owner = self._inventory.of_mac(mac)
        return mac if owner is entry or (owner is None and not entry.macs) else None


def _machine(host: str, mac: str | None, uuid: str | None, entry: Entry | None, source: Source) -> Machine:
    known_by: Literal["address", "name"] = "address" if source.is_proof else "name"
    if entry is None:
        return Machine(None, host, mac, uuid, None, None, None, {}, known_by, source.name)
    macs, serials, uuids = entry.macs, entry.serials, entry.uuids
    return Machine(
        entry.name,
        host,
        mac or (macs[0] if len(macs) == 1 else None),
        uuid or (uuids[0] if uuids else None),
        serials[0] if serials else None,
        entry.arch,
        entry.group,
        entry.vars,
        known_by,
        source.name,
    )
