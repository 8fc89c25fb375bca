"""Addresses that DHCP servers gave away: whose they are, and until when.

    chunk of a lease file ─reader─► [Lease] ─learn─► address → MAC, end

May know: leases. Must not know how they are written (`dhcp`), or files.

Invariants: as many as `max_size`, then newcomers are not known and counted; a lease that has ended is not believed,
and dropped at the next `drop_ended`. One thread at a time changes a table; any may look.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from snow_owl_tftp.policy.machines.sighting import Sighting

__all__ = ["MAX_LEASES", "Lease", "LeaseTable", "Leases"]

MAX_LEASES: Final = 200_000
"""Of one file; they take 65 MB."""


class Lease(NamedTuple):
    """What one record of a lease file says.

    Attributes:
        address: As `parse_address` spells it.
        mac: Lower case with colons; None: nobody has the address any more.
        ends_s: Seconds since 1970, UTC; infinite where it does not end.
    """

    address: str
    mac: str | None
    ends_s: float


class LeaseTable:
    """The leases of one file.

    Attributes:
        left_out_total: Leases for which there was no room.
    """

    def __init__(self, max_size: int = MAX_LEASES, clock: Callable[[], float] = time.time) -> None:
        """Know nobody yet; `clock` says how many seconds have passed since 1970."""
        self._max_size = max_size
        self._clock = clock
        self._known: dict[str, tuple[float, Sighting]] = {}
        self._anew: dict[str, tuple[float, Sighting]] | None = None
        self.left_out_total = 0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, address: str) -> Sighting | None:
        """Return whose an address is now."""
        known = self._known.get(address)
        return known[1] if known is not None and known[0] > self._clock() else None

    def begin_anew(self) -> None:
        """What is learned from here on is all there is; what was known is believed until `end_anew`."""
        self._anew = {}

    def end_anew(self) -> None:
        """Everything has been learned."""
        if self._anew is not None:
            self._known, self._anew = self._anew, None

    def learn(self, leases: Iterable[Lease]) -> None:
        """Take records in the order in which they were written: the last of an address counts."""
        table = self._known if self._anew is None else self._anew
        now_s = self._clock()
        for address, mac, ends_s in leases:
            if mac is None or ends_s <= now_s:
                table.pop(address, None)
            elif address not in table and len(table) >= self._max_size:
                self.left_out_total += 1
            else:
                table[address] = ends_s, Sighting(mac)

    def drop_ended(self) -> None:
        """Forget leases that have ended."""
        now_s = self._clock()
        for address in [address for address, (ends_s, _) in self._known.items() if ends_s <= now_s]:
            self._known.pop(address, None)


class Leases:
    """A Source: the first table that knows an address says whose it is."""

    name: Final = "leases"
    is_proof: Final = True

    def __init__(self, tables: Iterable[LeaseTable]) -> None:
        """Look into tables in this order."""
        self._tables = tuple(tables)

    def sight(self, host: str, paths: tuple[bytes, ...] = ()) -> Sighting | None:
        """See Source.sight."""
        for table in self._tables:
            if (found := table.find(host)) is not None:
                return found
        return None
