"""Leases of dnsmasq (dhcp-leasefile), IPv4 and IPv6.

    1795680000 52:54:00:12:34:56 10.0.0.5 lathe 01:52:54:00:12:34:56
    duid 00:01:00:01:2e:…                                              the server's own; IPv6 leases follow
    1795680000 305419896 fd00::5 lathe 00:03:00:01:52:54:00:12:34:56

What comes first is the end of the lease, 0 where it has none. A dnsmasq for machines without a clock
(HAVE_BROKEN_RTC, OpenWrt's for one) writes how long the lease is instead; then it is believed while it stands there.
"""

from typing import Final

from snow_owl_tftp.policy.machines.dhcp.lines import FOREVER_S, Lines, mac_of, mac_of_duid, number_of
from snow_owl_tftp.policy.machines.leases import Lease
from snow_owl_tftp.policy.machines.spellings import parse_address

__all__ = ["DnsmasqReader"]

_FIRST_TIME_S: Final = 1_000_000_000
"""2001: what is less is no time of day, but a length."""


class DnsmasqReader:
    """See LeaseReader."""

    server: Final = "dnsmasq"
    is_rewritten_in_place: Final = True
    is_whole_when_renamed: Final = True

    def __init__(self) -> None:
        self._lines = Lines()
        self.skipped_total = 0

    def feed(self, chunk: bytes) -> list[Lease]:
        """See LeaseReader.feed."""
        leases = []
        for line in self._lines.feed(chunk):
            words = line.decode("latin-1").split()
            if not words or words[0] == "duid":
                continue
            lease = _lease_of(words)
            if lease is not None:
                leases.append(lease)
            else:
                self.skipped_total += 1
        return leases


def _lease_of(words: list[str]) -> Lease | None:
    """None: nothing says whose it is."""
    if len(words) < 4:
        return None
    ends_s, address = number_of(words[0]), parse_address(words[2])
    if ends_s is None or address is None:
        return None
    # Of a card that is no Ethernet its type comes first, "06-…", and it has no MAC for us.
    mac = mac_of(words[1]) if "." in address else mac_of_duid(words[4]) if len(words) > 4 else None
    if mac is None:
        return None
    return Lease(address, mac, ends_s if ends_s >= _FIRST_TIME_S else FOREVER_S)
