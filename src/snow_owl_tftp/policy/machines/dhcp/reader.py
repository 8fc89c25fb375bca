"""Which DHCP server has written a file, by its first line.

May know: all three readers.
"""

from collections.abc import Callable
from typing import Final, Protocol

from snow_owl_tftp.policy.machines.dhcp.dnsmasq import DnsmasqReader
from snow_owl_tftp.policy.machines.dhcp.isc import IscReader
from snow_owl_tftp.policy.machines.dhcp.kea import KeaReader
from snow_owl_tftp.policy.machines.leases import Lease

__all__ = ["LeaseReader", "reader_of"]


class LeaseReader(Protocol):
    """Reads one file of one server, from its beginning."""

    @property
    def server(self) -> str:
        """Whose format it is: "dnsmasq", "Kea" or "dhcpd"."""

    @property
    def is_rewritten_in_place(self) -> bool:
        """Whether every change may be one of the whole file."""

    @property
    def is_whole_when_renamed(self) -> bool:
        """Whether a new file of the name has everything that the old one had."""

    @property
    def skipped_total(self) -> int:
        """Records that were none."""

    def feed(self, chunk: bytes) -> list[Lease]:
        """Take what follows in the file, and return the records that are complete now."""


_ISC: Final = (
    b"#",
    b"lease ",
    b"authoring-byte-order",
    b"server-duid",
    b"default-duid",
    b"failover",
    b"host ",
    b"class ",
)
_READERS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[], LeaseReader]], ...]] = (
    (lambda line: line.startswith(b"address,"), KeaReader),
    (lambda line: line.startswith(_ISC), IscReader),
    (lambda line: line.startswith(b"duid ") or line.split(b" ", 1)[0].isdigit(), DnsmasqReader),
)


def reader_of(beginning: bytes) -> LeaseReader | None:
    """Return a reader for a file that begins so, or None where no line is complete yet.

    Raises:
        ValueError: No DHCP server that we know writes such a line.
    """
    line, end, _ = beginning.lstrip().partition(b"\n")
    if not end:
        return None
    for is_such, reader in _READERS:
        if is_such(line):
            return reader()
    raise ValueError("it is no lease file of dnsmasq, Kea or ISC dhcpd")
