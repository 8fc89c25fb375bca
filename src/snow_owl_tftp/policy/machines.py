"""Which machine it is that asks: known ones have rules of their own.

There is no list of machines yet, so `NO_MACHINES` knows none and every decision holds for everybody.
"""

from collections.abc import Mapping
from typing import Final, Literal, Protocol

from msgspec import Struct

from snow_owl_tftp.policy.asker import Asker

__all__ = ["NO_MACHINES", "Machine", "Machines"]


class Machine(Struct, frozen=True, gc=False):
    """One machine, as far as somebody knows it; None: nobody does.

    Attributes:
        name: Unique among them. Never what a client says of itself.
        address: As text.
        mac: Lower case, with colons.
        uuid: Lower case.
        serial: As the maker wrote it.
        arch: Such as "x86_64".
        group: Which it belongs to.
        vars: What else the operator wrote down of it.
        known_by: "address": the network proves it as far as it can. "name": the requested name claims it.
        source: Who knew it first.
    """

    name: str | None = None
    address: str | None = None
    mac: str | None = None
    uuid: str | None = None
    serial: str | None = None
    arch: str | None = None
    group: str | None = None
    vars: Mapping[str, str] = {}
    known_by: Literal["address", "name"] = "address"
    source: str | None = None


class Machines(Protocol):
    """All that are known."""

    @property
    def tells_apart(self) -> bool:
        """Whether any asker is another machine than the rest: then what is decided for one holds for no other."""

    def find(self, asker: Asker, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """Return who asks for these spellings of a name; None: nobody that is known."""


class _NoMachines:
    """Knows nobody."""

    tells_apart = False

    def find(self, asker: Asker, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """See Machines.find."""
        return None


NO_MACHINES: Final[Machines] = _NoMachines()
