"""Leases of Kea's memfile backend, IPv4 and IPv6: CSV, whose first line names the columns.

    address,hwaddr,client_id,valid_lifetime,expire,subnet_id,…,state,…
    10.0.0.5,52:54:00:12:34:56,,3600,1795680000,1,…,0,…

A later line about the same address replaces an earlier one; a lifetime of 0, or a state other than 0, means that it is
nobody's. A comma within a field is written as "&#x2c", so lines need no more than to be split.
"""

from typing import Final

from snow_owl_tftp.policy.machines.dhcp.lines import FOREVER_S, Lines, mac_of, mac_of_duid, number_of
from snow_owl_tftp.policy.machines.leases import Lease
from snow_owl_tftp.policy.machines.spellings import parse_address

__all__ = ["KeaReader"]

_INFINITE: Final = 0xFFFFFFFF
_HEADER: Final = "address,"
_NEEDED: Final = ("address", "valid_lifetime", "expire", "state")


class KeaReader:
    """See LeaseReader."""

    server: Final = "Kea"
    is_rewritten_in_place: Final = False
    is_whole_when_renamed: Final = False

    def __init__(self) -> None:
        self._lines = Lines()
        self._columns: dict[str, int] = {}
        self.skipped_total = 0

    def feed(self, chunk: bytes) -> list[Lease]:
        """See LeaseReader.feed."""
        leases = []
        for line in self._lines.feed(chunk):
            text = line.decode("latin-1").rstrip("\r")
            if text.startswith(_HEADER):
                columns = {name: place for place, name in enumerate(text.split(","))}
                self._columns = columns if all(name in columns for name in _NEEDED) else {}
            elif text:
                lease = self._lease_of(text.split(","))
                if lease is not None:
                    leases.append(lease)
                else:
                    self.skipped_total += 1
        return leases

    def _lease_of(self, cells: list[str]) -> Lease | None:
        """None: it is no lease of an address."""
        columns = self._columns
        # Rows of an older version have fewer cells, but those at the beginning. One with more holds a comma that nobody
        # has escaped, in a host name for one, which a client chooses: its cells are not what the header says.
        if not max(columns.get("expire", len(cells)), columns.get("valid_lifetime", 0)) < len(cells) <= len(columns):
            return None
        address = parse_address(cells[columns["address"]])
        lifetime_s, ends_s = number_of(cells[columns["valid_lifetime"]]), number_of(cells[columns["expire"]])
        if address is None or lifetime_s is None or ends_s is None:
            return None
        if self._cell(cells, "lease_type") not in ("", "0"):  # of a prefix, or of an address for a while (RFC 8981)
            return None
        if lifetime_s == 0 or self._cell(cells, "state") not in ("", "0"):
            return Lease(address, None, 0)
        mac = mac_of(self._cell(cells, "hwaddr")) or mac_of_duid(self._cell(cells, "duid"))
        return Lease(address, mac, FOREVER_S if lifetime_s == _INFINITE else ends_s)

    def _cell(self, cells: list[str], column: str) -> str:
        """Return what stands in a column, empty where the row or the file has none."""
        place = self._columns.get(column, len(cells))
        return cells[place] if place < len(cells) else ""
