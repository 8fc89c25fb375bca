"""What a requested name says of who asks for it: a claim, since anybody can ask for anything.

    "**/01-{mac_dashes}"      pxelinux.cfg/01-52-54-00-12-34-56   ──► a machine of that MAC
    "{serial}/**"             8d1f3b2a/start4.elf                 ──► the entry of that serial, if the inventory has one

A pattern has one placeholder, may begin with `**/` (below any directory), end with `/**` (whatever is in that
directory), and holds one `*` at most (any run of characters within a part). Case does not count.

May know: text and the inventory. Invariants: a name is matched in time that grows with its length alone; what looks
like many things (a serial number, eight hexadecimal digits) counts only where the inventory has it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.automaton import many
from snow_owl_tftp.policy.globs import expression_of, tokens_of
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.sighting import Sighting
from snow_owl_tftp.policy.machines.spellings import address_of_hex, is_station, parse_mac, parse_uuid

__all__ = ["NameClaims"]

_PLACEHOLDERS: Final = {
    "mac": "[0-9a-f]{2}(?::[0-9a-f]{2}){5}",
    "mac_dashes": "[0-9a-f]{2}(?:-[0-9a-f]{2}){5}",
    "mac_plain": "[0-9a-f]{12}",
    "uuid": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "address_hex": "[0-9a-f]{8}(?:[0-9a-f]{24})?",
    "serial": "[^/]{1,64}",
}
_TOKEN = re.compile(r"\{([^{}]*)\}|(\*)|([^{}*\\]+)|(.)", re.DOTALL)
_HAS_DIGITS = re.compile("(?:[0-9a-f]{2}[:-]?){4}").search
"""Four octets in a row, without which a name holds no MAC, UUID or address: asked first, since most names hold none."""
_SERIAL: Final = "serial"
_ANY_SERIAL: Final = re.compile(r"\*?\{serial\}\*?|([?\[])")


class NameClaims:
    """A Source that believes the name."""

    name: Final = "name"
    is_proof: Final = False

    def __init__(self, patterns: Sequence[str], inventory: Inventory) -> None:
        """Compile patterns.

        Args:
            patterns: What they find first in a name counts; those that may begin anywhere are asked first.
            inventory: Says which serial numbers and addresses there are.

        Raises:
            ConfigError: A pattern is none; names it.
        """
        self._inventory = inventory
        compiled = [_compile(number, pattern) for number, pattern in enumerate(patterns)]
        self._kinds = {f"p{number}": pattern.kind for number, pattern in enumerate(compiled)}
        self._searches = [
            _joined(
                [
                    pattern.expression
                    for pattern in compiled
                    if pattern.is_floating is floating and not pattern.is_vague
                ],
                floating,
            )
            for floating in (True, False)
        ]
        vague = [(pattern, text) for pattern, text in zip(compiled, patterns, strict=True) if pattern.is_vague]
        self._serials = [_joined([pattern.expression], pattern.is_floating) for pattern, _ in vague]
        globs = [tokens_of(_as_glob(text)) for _, text in vague]
        self._many = many([[tokens] for tokens in globs])
        self._fits = [re.compile(expression_of(tokens), re.DOTALL).fullmatch for tokens in globs]

    def sight(self, host: str, paths: tuple[bytes, ...]) -> Sighting | None:
        """See Source.sight."""
        for path in paths:
            text = path.lower().decode("utf-8", "surrogateescape")  # of ASCII only
            if self._serials and self._inventory.knows_serials and (found := self._by_serial(text)) is not None:
                return found
            if _HAS_DIGITS(text) is not None and (found := self._by_pattern(text)) is not None:
                return found
        return None

    def _by_serial(self, text: str) -> Sighting | None:
        for number in self._fitting(text):
            for match in self._serials[number].finditer(text):
                entry = self._inventory.of_serial(match[match.lastgroup or 0])
                if entry is not None:
                    return Sighting(entry=entry)
        return None

    def _fitting(self, text: str) -> Iterable[int]:
        """Say which patterns a name fits but for the length of the number: to search it with one takes 0.2 ms."""
        if self._many is not None:
            return self._many.of(text)
        return (number for number, fits in enumerate(self._fits) if fits(text) is not None)

    def _by_pattern(self, text: str) -> Sighting | None:
        for expression in self._searches:
            match = expression.search(text)
            if match is not None and match.lastgroup is not None:
                return self._meant(self._kinds[match.lastgroup], match[match.lastgroup])
        return None

    def _meant(self, kind: str, found: str) -> Sighting | None:
        if kind == "uuid":
            return Sighting(uuid=parse_uuid(found))
        if kind == "address_hex":
            address = address_of_hex(found)
            entry = self._inventory.of_address(address) if address is not None else None
            return Sighting(entry=entry) if entry is not None else None
        mac = parse_mac(found)
        return Sighting(mac=mac) if mac is not None and is_station(mac) else None


class _Pattern(NamedTuple):
    """What one pattern became: its placeholder, whether it may begin at any part, and its expression with one group."""

    kind: str
    is_floating: bool
    expression: str

    @property
    def is_vague(self) -> bool:
        """Whether nearly any name would match."""
        return self.kind == _SERIAL


def _joined(expressions: Sequence[str], is_floating: bool) -> re.Pattern[str]:
    """Return one expression for all; without any, one that matches nothing."""
    where = "(?:^|(?<=/))" if is_floating else "^"
    return re.compile(f"{where}(?:{'|'.join(expressions)})" if expressions else r"(?!)", re.ASCII)


def _compile(number: int, pattern: str) -> _Pattern:
    body = pattern.lower().removeprefix("/")
    is_floating, is_directory = body.startswith("**/"), body.endswith("/**")
    body = body.removeprefix("**/").removesuffix("/**")
    kinds: list[str] = []
    expression = ""
    stars = 0
    for placeholder, star, literal, other in _TOKEN.findall(body):
        stars += bool(star)
        if other or (placeholder and placeholder not in _PLACEHOLDERS) or stars > 1:
            raise _refused(pattern)
        if placeholder:
            kinds.append(placeholder)
            expression += f"(?P<p{number}>{_PLACEHOLDERS[placeholder]})"
        else:
            expression += "[^/]*" if star else re.escape(literal)
    if len(kinds) != 1 or any(part in ("", ".", "..") for part in body.split("/")):
        raise _refused(pattern)
    return _Pattern(kinds[0], is_floating, expression + ("(?=/)" if is_directory else r"\Z"))


def _as_glob(pattern: str) -> str:
    """Return a glob, of `patterns`, of all names that a pattern with a serial number may match."""
    return _ANY_SERIAL.sub(lambda found: f"[{found[1]}]" if found[1] else "?*", pattern.lower())


def _refused(pattern: str) -> ConfigError:
    known = " ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
    return ConfigError(
        f'"{pattern}": expected one of {known} in a name such as "**/01-{{mac_dashes}}" or "{{serial}}/**", '
        'with one "*" at most'
    )
