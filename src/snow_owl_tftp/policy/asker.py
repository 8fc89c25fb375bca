"""Who asks: what a rule may look at beside the request itself.

A protocol and no struct: the engine's own Request is such an object, and spells its peer only for a rule that asks.
"""

import ipaddress
from typing import Protocol

__all__ = ["Asker", "Listening"]


class Asker(Protocol):
    """A client at one of our addresses."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and TID of the client."""

    @property
    def local_address(self) -> str | None:
        """The address that was asked, or None where only one is bound."""

    @property
    def endpoint(self) -> int:
        """Which of the bound addresses it was, from 0."""


class Listening:
    """Where the server listens: known only once it does, and the same for every configuration of it.

    Attributes:
        addresses: (host, port) of every bound address, in the order of `Asker.endpoint`; empty before the start.
    """

    __slots__ = ("addresses",)

    def __init__(self, addresses: tuple[tuple[str, int], ...] = ()) -> None:
        self.addresses = addresses

    def asked(self, asker: Asker) -> tuple[str | None, int | None]:
        """Return the address and the port of ours that somebody asked; None where it is not known."""
        host, endpoint = asker.local_address, asker.endpoint
        if not 0 <= endpoint < len(self.addresses):
            return plain(host), None
        bound_host, port = self.addresses[endpoint]
        return plain(bound_host if host is None else host), port


def plain(host: str | None) -> str | None:
    """Return an address without a zone, IPv4 as such also where it came by an IPv6 socket."""
    if host is None or ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)
