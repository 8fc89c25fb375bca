"""Who asks: what a rule may look at beside the request itself.

A protocol and no struct: the engine's own Request is such an object, and spells its peer only for a rule that asks.
"""

from typing import Protocol

__all__ = ["Asker"]


class Asker(Protocol):
    """A client at one of our addresses."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and TID of the client."""

    @property
    def local_address(self) -> str | None:
        """The address that was asked, or None where only one is bound."""
