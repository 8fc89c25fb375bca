"""What a template is told: who asks, for what, and what the pattern captured.

    Wanted, {"mac_dashes": …} ─context_of─► {"machine": {…}, "request": {…}, "mac_dashes": …}

May know: a request and a machine. Must not know templates.

Invariants:
- Every field of `FIELDS` is there in every context, None where it is unknown.
- The mappings are made anew for each, or cannot be changed: no template changes what others see.
- All is text and numbers, and mappings of these; bytes of a name that are no UTF-8 are U+FFFD.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.verdict import IncomingRequest

__all__ = ["FIELDS", "Wanted", "context_of"]

_OF_MACHINE: Final = ("address", "mac", "uuid", "serial", "arch", "group", "name", "known_by")
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "machine": frozenset({*_OF_MACHINE, "vars"}),
    "request": frozenset({"name", "mode", "options", "client", "client_port", "server"}),
}


class Wanted(NamedTuple):
    """What a template is rendered for.

    Attributes:
        incoming: The request.
        request: The same, parsed.
        path: The spelling of its name that matched.
        machine: Who asks; None: nobody that is known.
        limits: What may be negotiated.
    """

    incoming: IncomingRequest
    request: Request
    path: bytes
    machine: Machine | None
    limits: OptionLimits


def context_of(wanted: Wanted, variables: Mapping[str, str], server: str | None) -> dict[str, Any]:
    """Return what a template sees.

    Args:
        wanted: What it is rendered for.
        variables: What its pattern captured.
        server: Our address where the request does not say at which it arrived.
    """
    request, machine = wanted.request, wanted.machine
    client, port = wanted.incoming.peer
    return {
        **variables,
        "machine": _NOBODY | {"vars": {}} if machine is None else _facts_of(machine),
        "request": {
            "name": wanted.path.decode("utf-8", "replace"),
            "mode": request.mode,
            "options": {name.lower(): value for name, value in reversed(request.options)},
            "client": client,
            "client_port": port,
            "server": wanted.incoming.local_address or server,
        },
    }


_NOBODY: Final = dict.fromkeys(_OF_MACHINE)


def _facts_of(machine: Machine) -> dict[str, Any]:
    return {
        "address": machine.address,
        "mac": machine.mac,
        "uuid": machine.uuid,
        "serial": machine.serial,
        "arch": machine.arch,
        "group": machine.group,
        "name": machine.name,
        "known_by": machine.known_by,
        "vars": MappingProxyType(machine.vars),  # shared with others
    }
