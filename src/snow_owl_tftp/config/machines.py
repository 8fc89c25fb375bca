"""[machines]: where the server learns which machine asks.

May know: the vocabulary and its defaults. Must not open anything; whether a pattern is one, `policy` finds out.
"""

from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

__all__ = ["MachinesSettings", "machines_contradictions", "machines_without_effect"]

DEFAULT_PATTERNS: Final = (
    "**/01-{mac_dashes}",  # PXELINUX, iPXE's ${mac:hexhyp}
    "**/01-{mac_dashes}.*",
    "**/{mac_dashes}.*",
    "**/mac-{mac_dashes}*",
    "**/mac-{mac_plain}*",
    "**/grub.cfg-01-{mac_dashes}",  # GRUB
    "**/grub.cfg-{mac_dashes}",
    "**/grub.cfg-{mac}",
    "**/menu.lst.01{mac_plain}",
    "**/{mac}/**",  # directories: Tinkerbell, U-Boot, ONIE, Raspberry Pi with TFTP_PREFIX = 2
    "**/{mac_dashes}/**",
    "**/{mac_plain}/**",
    "**/SEP{mac_plain}.*",  # phones: Cisco
    "**/CTLSEP{mac_plain}.*",
    "**/ITLSEP{mac_plain}.*",
    "**/SIP{mac_plain}.*",
    "**/cfg{mac_plain}.*",
    "**/{mac_plain}.*",  # Polycom, Yealink
    "**/{mac_plain}-*",
    "**/pxelinux.cfg/{uuid}",
    "**/{uuid}/**",
    "**/pxelinux.cfg/{address_hex}",
    "**/grub.cfg-{address_hex}",
    "{address_hex}/**",  # ONIE
    "{serial}/**",  # Raspberry Pi
)


class MachinesSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[machines]: who knows which machine asks, in which order."""

    sources: tuple[Literal["inventory", "leases", "neighbours", "name"], ...] = (
        "inventory",
        "leases",
        "neighbours",
        "name",
    )
    """The first that knows a client counts. An inventory completes it, also where it is not named here."""
    inventory: str = ""
    """A list of machines, in TOML, JSON, CSV or YAML; empty: there is none."""
    leases: tuple[str, ...] = ()
    """Lease files of dnsmasq, Kea or ISC dhcpd."""
    name_patterns: tuple[str, ...] = DEFAULT_PATTERNS
    """What a requested name says of the machine that asks, such as "{mac_dashes}"; a claim, and no proof."""


def machines_contradictions(machines: MachinesSettings) -> Iterator[str]:
    """Yield what cannot be meant, with its key path and the remedy."""
    for key, values in (("sources", machines.sources), ("leases", machines.leases)):
        for value in sorted({value for value in values if values.count(value) > 1}):
            yield f'machines.{key}: "{value}" stands there twice; remove one of them'
    if "" in machines.leases:
        yield "machines.leases: a path is empty; remove it"


def machines_without_effect(machines: MachinesSettings) -> dict[str, str]:
    """Return what is set and changes nothing, by key path, and what to do about it."""
    idle = {}
    if machines.leases and "leases" not in machines.sources:
        idle["machines.leases"] = 'put "leases" into machines.sources, or remove it'
    if machines.name_patterns != DEFAULT_PATTERNS and "name" not in machines.sources:
        idle["machines.name_patterns"] = 'put "name" into machines.sources, or remove it'
    return idle
