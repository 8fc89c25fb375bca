"""Which machine it is that asks: known ones have rules of their own.

There is no list of machines yet, so `NO_MACHINES` knows none and every decision holds for everybody.
"""

from typing import Final, Protocol

from msgspec import Struct

from snow_owl_tftp.policy.asker import Asker

__all__ = ["NO_MACHINES", "Machine", "Machines"]


class Machine(Struct, frozen=True, gc=False):
    """One machine that somebody has named.

    Attributes:
        name: Unique among them.
    """

    name: str


class Machines(Protocol):
    """All that are known."""

    @property
    def tells_apart(self) -> bool:
        """Whether any asker is another machine than the rest: then what is decided for one holds for no other."""

    def find(self, asker: Asker) -> Machine | None:
        """Return who asks; None: nobody that is known."""


class _NoMachines:
    """Knows nobody."""

    tells_apart = False

    def find(self, asker: Asker) -> Machine | None:
        """See Machines.find."""
        return None


NO_MACHINES: Final[Machines] = _NoMachines()
