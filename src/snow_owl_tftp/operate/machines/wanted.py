"""Whether anybody asks which machine a client is: where nobody does, nothing is read and followed.

May know: settings. Must not read anything.
"""

import re
from typing import Final

from snow_owl_tftp.config.machines import MachinesSettings
from snow_owl_tftp.config.rules import Rule
from snow_owl_tftp.config.schema import Settings

__all__ = ["wanted_machines"]

_VARIABLE: Final = re.compile(r"\{(\w+)\}")
_OF_ADDRESSES: Final = {"address", "address_hex", "server_address"}
"""Known of everybody."""


def wanted_machines(settings: Settings) -> MachinesSettings | None:
    """Return how machines are known; None: the settings say nothing about them, and no rule or template asks."""
    machines = settings.machines
    is_asked = bool(settings.templates) or any(_asks(rule) for rule in settings.rules)
    return machines if is_asked or machines != MachinesSettings() else None


def _asks(rule: Rule) -> bool:
    variables = {name for root in rule.roots for name in _VARIABLE.findall(root)}
    return bool(rule.macs or rule.groups or rule.trust == "address" or variables - _OF_ADDRESSES)
