"""The operator's list of machines: by address who asks, by MAC, UUID or serial what else is known of it.

    entries ──► four dictionaries; a changed file makes new ones, which are exchanged at once

Invariant: no key leads to two machines; a list in which one would is refused (see `entries`).
"""

from collections.abc import Sequence
from typing import Final

from snow_owl_tftp.policy.machines.entries import Entry
from snow_owl_tftp.policy.machines.sighting import Sighting

__all__ = ["Inventory"]


class Inventory:
    """A Source, and what completes the sightings of others."""

    name: Final = "inventory"
    is_proof: Final = True

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        """Index a list."""
        self.replace(entries)

    def replace(self, entries: Sequence[Entry]) -> None:
        """Know another list from now on; may be called in any thread, since what is looked up is exchanged whole."""
        seen = [(entry, Sighting(entry.macs[0] if len(entry.macs) == 1 else None, None, entry)) for entry in entries]
        by_address = {address: sighting for entry, sighting in seen for address in entry.addresses}
        by_mac = {mac: entry for entry in entries for mac in entry.macs}
        by_uuid = {uuid: entry for entry in entries for uuid in entry.uuids}
        by_serial = {serial.casefold(): entry for entry in entries for serial in entry.serials}
        self._by_address, self._by_mac, self._by_uuid, self._by_serial = by_address, by_mac, by_uuid, by_serial
        self.size = len(entries)

    @property
    def knows_serials(self) -> bool:
        """Whether any machine has one."""
        return bool(self._by_serial)

    def sight(self, host: str, paths: tuple[bytes, ...] = ()) -> Sighting | None:
        """See Source.sight."""
        return self._by_address.get(host)

    def of_mac(self, mac: str) -> Entry | None:
        """Return the machine that has a MAC, spelled as by `parse_mac`."""
        return self._by_mac.get(mac)

    def of_uuid(self, uuid: str) -> Entry | None:
        """Return the machine that has a UUID, spelled as by `parse_uuid`."""
        return self._by_uuid.get(uuid)

    def of_serial(self, serial: str) -> Entry | None:
        """Return the machine that has a serial number; case does not count."""
        return self._by_serial.get(serial.casefold())

    def of_address(self, address: str) -> Entry | None:
        """Return the machine that has an address, whoever asks."""
        sighting = self._by_address.get(address)
        return sighting.entry if sighting is not None else None
