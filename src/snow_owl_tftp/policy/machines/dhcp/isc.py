"""Leases of ISC dhcpd (dhcpd.leases(5)), IPv4.

    lease 10.0.0.5 {
      starts 4 2026/11/26 06:00:00;
      ends 4 2026/11/26 18:00:00;            UTC; or "never", or "epoch 1795716000;"
      binding state active;
      hardware ethernet 52:54:00:12:34:56;
    }

A later block about the same address replaces an earlier one. dhcpd writes a block's first and last line without
indentation and no line end within a text, so nothing has to be taken apart to find where it ends.
"""

import re
from calendar import timegm
from typing import Final

from snow_owl_tftp.policy.machines.dhcp.lines import FOREVER_S, MAX_WAITING_BYTES, mac_of
from snow_owl_tftp.policy.machines.leases import Lease
from snow_owl_tftp.policy.machines.spellings import parse_address

__all__ = ["IscReader"]

_BEGIN = re.compile(r"^lease (\S{1,64}) \{\n", re.MULTILINE)
_END: Final = "\n}\n"
# Blanks in front are those of one line, and few, or a file of blanks would be searched for an hour.
_STATE = re.compile(r"^[ \t]{0,16}binding state (\w+)", re.MULTILINE)
_MAC = re.compile(r"^[ \t]{0,16}hardware ethernet ([0-9a-fA-F:]+);", re.MULTILINE)
_ENDS = re.compile(
    r"^[ \t]{0,16}ends (?:(never)|epoch (\d{1,12})|\d (\d{4})/(\d\d?)/(\d\d?) (\d\d?):(\d\d?):(\d\d?))", re.MULTILINE
)


class IscReader:
    """See LeaseReader."""

    server: Final = "dhcpd"
    is_rewritten_in_place: Final = False
    is_whole_when_renamed: Final = True

    def __init__(self) -> None:
        self._rest = ""
        self.skipped_total = 0

    def feed(self, chunk: bytes) -> list[Lease]:
        """See LeaseReader.feed."""
        text = self._rest + chunk.decode("latin-1")
        leases, end = [], 0
        while (block := _next_block(text, end)) is not None:
            address_text, body, end = block
            lease = _lease_of(address_text, body)
            if lease is not None:
                leases.append(lease)
            else:
                self.skipped_total += 1
        self._rest = text[end:]
        if len(self._rest) > MAX_WAITING_BYTES:  # what else there is: failover peers, IPv6
            self._rest = self._rest[-MAX_WAITING_BYTES // 4 :]
        return leases


def _next_block(text: str, at: int) -> tuple[str, str, int] | None:
    """Return the address, the body and the end of the next block that is complete; each character is looked at once."""
    begin = _BEGIN.search(text, at)
    if begin is None or (last := text.find(_END, begin.end() - 1)) < 0:
        return None
    # A block that was never finished, of a server that was killed, says nothing; what follows is not its body.
    while (later := _BEGIN.search(text, begin.end(), last + 1)) is not None:
        begin = later
    return begin[1], text[begin.end() : last + 1], last + len(_END)


def _lease_of(address_text: str, body: str) -> Lease | None:
    address, ends_s = parse_address(address_text), _end_of(body)
    if address is None or ends_s is None:
        return None
    state, mac = _STATE.search(body), _MAC.search(body)
    # Files of version 2 have no states: a lease that has not ended was one.
    is_active = state is None or state[1] == "active"
    return Lease(address, mac_of(mac[1]) if mac is not None and is_active else None, ends_s)


def _end_of(body: str) -> float | None:
    """Seconds since 1970, or None where nothing that we know says when."""
    found = _ENDS.search(body)
    if found is None:
        return None
    if found[1]:
        return FOREVER_S
    if found[2]:
        return int(found[2])
    try:
        return timegm((*(int(found[place]) for place in range(3, 9)), 0, 0, 0))
    except ValueError:  # a month 13
        return None
