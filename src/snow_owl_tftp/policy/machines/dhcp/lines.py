"""What the readers share: lines that are complete, times, and the MAC within a DUID.

May know: bytes and text.
"""

import re
from typing import Final

from snow_owl_tftp.policy.machines.spellings import is_station, parse_mac

__all__ = ["FOREVER_S", "MAX_WAITING_BYTES", "Lines", "mac_of", "mac_of_duid", "number_of"]

FOREVER_S: Final = float("inf")
_NUMBER: Final = re.compile("[0-9]{1,15}")
"""Seconds of 30 million years. `str.isdigit` also takes what `int` does not: "²", or five thousand digits."""
MAX_WAITING_BYTES: Final = 256 * 1024
"""Of a record whose end has not come: beyond it is none, and dropped."""
_DUID_HEADS: Final = {"00:01:00:01": 14, "00:03:00:01": 10}
"""Link-layer address with or without a time, of Ethernet (RFC 8415, section 11.2 and 11.4), and how long it is."""


class Lines:
    """Cuts chunks into lines; the last one waits until its end is there."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that are complete now, without their ends."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest if len(rest) <= MAX_WAITING_BYTES else b""
        return lines


def mac_of(text: str) -> str | None:
    """Return the MAC of one machine, or None where a text is none."""
    mac = parse_mac(text)
    return mac if mac is not None and is_station(mac) else None


def mac_of_duid(duid: str) -> str | None:
    """Return the MAC that a DUID was made of, or None; it is that of one of the machine's cards.

    Args:
        duid: Octets in hexadecimal with ":" between.
    """
    octets = duid.lower().split(":")
    if len(octets) != _DUID_HEADS.get(":".join(octets[:4])):
        return None
    return mac_of(":".join(octets[-6:]))


def number_of(text: str) -> int | None:
    """Return a time or a length, or None where a text is none."""
    return int(text) if _NUMBER.fullmatch(text) is not None else None
