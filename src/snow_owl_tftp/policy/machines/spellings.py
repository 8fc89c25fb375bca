"""One spelling for each address, MAC and UUID, whoever wrote it: what is compared must be spelled alike.

    52-54-00-AB-CD-EF, 5254.00ab.cdef, 525400abcdef ──► 52:54:00:ab:cd:ef

May know: text. Looks nothing up: a name is no address.
"""

import re
import socket
from typing import Final

__all__ = ["address_of_hex", "is_link_local", "is_station", "parse_address", "parse_mac", "parse_uuid", "plain_host"]

_MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}|[0-9a-f]{10}|[0-9a-f]{2}(?:\.[0-9a-f]{4}){2})")
_UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}(?:\1[0-9a-f]{4}){3}[0-9a-f]{8}")
_MAPPED: Final = "::ffff:"
_HEX = frozenset("0123456789abcdefABCDEF")


def parse_mac(text: str) -> str | None:
    """Return a MAC of six octets in lower case with colons, or None where a text is none.

    Args:
        text: Two digits an octet, all with ":" or all with "-" between; "5254.00ab.cdef" as switches write it; or the
            twelve digits alone.
    """
    lower = text.lower()
    if _MAC.fullmatch(lower) is None:
        return None
    if lower[2] == ":":
        return lower
    digits = lower.replace("-", "").replace(".", "")
    return ":".join([digits[at : at + 2] for at in range(0, 12, 2)])


def is_station(mac: str) -> bool:
    """Whether a MAC, as `parse_mac` spells it, may be that of one machine: it is neither zero nor a group's."""
    return mac != "00:00:00:00:00:00" and int(mac[1], 16) & 1 == 0


def parse_uuid(text: str) -> str | None:
    """Return a UUID in lower case with dashes, or None where a text is none; dashes may be left out."""
    lower = text.lower()
    if _UUID.fullmatch(lower) is None:
        return None
    digits = lower.replace("-", "")
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_address(text: str) -> str | None:
    """Return an IPv4 or IPv6 address as the kernel spells it, without zone, or None where a text is none."""
    text = plain_host(text)
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return plain_host(socket.inet_ntop(family, socket.inet_pton(family, text)))
    except (OSError, ValueError):  # ValueError: a NUL, or no ASCII
        return None


def address_of_hex(digits: str) -> str | None:
    """Return the address that 8 (IPv4) or 32 (IPv6) hexadecimal digits stand for, or None where a text is none."""
    if len(digits) not in (8, 32) or not _HEX.issuperset(digits):
        return None
    return plain_host(socket.inet_ntop(socket.AF_INET if len(digits) == 8 else socket.AF_INET6, bytes.fromhex(digits)))


def plain_host(host: str) -> str:
    """Return an address without "::ffff:": IPv4 at a socket that takes both."""
    return host[7:] if host.startswith(_MAPPED) and "." in host else host


def is_link_local(address: str) -> bool:
    """Whether an address, as `parse_address` spells it, means another machine on every link (RFC 4291, fe80::/10)."""
    return address[:3] in ("fe8", "fe9", "fea", "feb") and address[4:5] == ":"
