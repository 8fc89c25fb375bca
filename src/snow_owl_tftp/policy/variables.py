r"""Variables in a text of the operator's, such as "machines/{mac}": what is known of who asks is put in their place.

    Text("machines/{mac}").fill(values)  ─►  "machines/52:54:00:12:34:56", or None where a variable is missing

May know: machines and text. Must not know rules or files.

Invariant: a value is one part of a path and stays one. What could change the meaning of the path around it ("/", "\",
"..", a leading dot, a control character) counts as missing: serial numbers and names are what a client, a DHCP lease
or an inventory say, and whoever says them must not choose a directory.
"""

import re
import socket
from collections.abc import Callable
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.asker import plain
from snow_owl_tftp.policy.machines import Machine

__all__ = ["NAMES", "Text", "Values"]

NAMES: Final = (
    "address",
    "address_hex",
    "mac",
    "mac_dashes",
    "mac_plain",
    "serial",
    "uuid",
    "name",
    "group",
    "server_address",
)
"""Every other name is looked for among the machine's `vars`."""

_VARIABLE: Final = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_UNSAFE: Final = re.compile("[/\\\\\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")
"""The surrogates that stand for no byte are in no path either."""
_MAX_VALUE_BYTES: Final = 255
"""NAME_MAX: no part of a path is longer."""


class Values:
    """What the variables stand for, for one request; each is made when it is asked for."""

    __slots__ = ("_host", "_machine", "_server_host")

    def __init__(self, host: str | None, server_host: Callable[[], str | None], machine: Machine | None) -> None:
        """Take who asks.

        Args:
            host: The client's address.
            server_host: Returns ours that was asked; None: not known.
            machine: Who it is; None: nobody knows.
        """
        self._host = host
        self._server_host = server_host
        self._machine = machine

    def get(self, name: str) -> str | None:
        """Return the value of a variable; None: missing, or nothing that may stand in a path."""
        value = self._value(name)
        if not value or value[0] == "." or _UNSAFE.search(value):
            return None
        if len(value) > _MAX_VALUE_BYTES // 4 and len(value.encode("utf-8", "surrogatepass")) > _MAX_VALUE_BYTES:
            return None
        return value

    def _value(self, name: str) -> str | None:
        if name == "address":
            return plain(self._host)
        if name == "address_hex":
            return _hex_of(plain(self._host))
        if name == "server_address":
            return plain(self._server_host())
        machine = self._machine
        if machine is None:
            return None
        if name in ("mac", "mac_dashes", "mac_plain"):
            return _spelled(machine.mac, name)
        if name in NAMES:
            value: str | None = getattr(machine, name)
            return value
        return machine.vars.get(name)


class Text:
    """A text with variables in it.

    Attributes:
        names: Of the variables, in their order.
    """

    __slots__ = ("_literals", "names")

    def __init__(self, text: str) -> None:
        """Find the variables.

        Raises:
            ConfigError: A brace belongs to none.
        """
        parts = _VARIABLE.split(text)
        self._literals, self.names = tuple(parts[::2]), tuple(parts[1::2])
        if any(brace in literal for literal in self._literals for brace in "{}"):
            raise ConfigError(f'"{text}" has a brace that belongs to no variable such as {{mac}}')

    def fill(self, values: Values) -> str | None:
        """Return the text with every variable in its place; None: one is missing."""
        if not self.names:
            return self._literals[0]
        filled = [self._literals[0]]
        for name, literal in zip(self.names, self._literals[1:], strict=True):
            value = values.get(name)
            if value is None:
                return None
            filled += (value, literal)
        return "".join(filled)


def _spelled(mac: str | None, name: str) -> str | None:
    if mac is None or name == "mac":
        return mac
    return mac.replace(":", "-" if name == "mac_dashes" else "")


def _hex_of(host: str | None) -> str | None:
    """As PXELINUX asks for it: C0A80101; IPv6 in 32 digits."""
    if host is None:
        return None
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host).hex().upper()
    except OSError:
        return None
