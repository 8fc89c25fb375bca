"""What one source says of who asks, and the protocol of sources.

May know: who asks, and for which name. A sighting that holds for long is made once and kept by its source.
"""

from typing import Protocol

from msgspec import Struct

from snow_owl_tftp.policy.machines.entries import Entry

__all__ = ["Sighting", "Source"]


class Sighting(Struct, frozen=True, gc=False):
    """Who asks, as far as one source knows; a field is None where it does not.

    Attributes:
        mac: Lower case with colons.
        uuid: Lower case with dashes.
        entry: What the operator has written down about it.
    """

    mac: str | None = None
    uuid: str | None = None
    entry: Entry | None = None


class Source(Protocol):
    """Knows machines in one way."""

    @property
    def name(self) -> str:
        """As settings call it."""

    @property
    def is_proof(self) -> bool:
        """Whether the client's address stands behind what it says; else it is a claim."""

    def sight(self, host: str, paths: tuple[bytes, ...]) -> Sighting | None:
        """Tell who asks, without waiting; None: unknown.

        Args:
            host: The client's address, as `plain_host` spells it.
            paths: The requested name in its spellings, normalised.
        """
