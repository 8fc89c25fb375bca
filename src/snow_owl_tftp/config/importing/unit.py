"""tftp.service: the ExecStart of a systemd unit that runs in.tftpd or atftpd.

    ExecStart=/usr/sbin/in.tftpd -s /var/lib/tftpboot ──carry_unit──► as its command line

May know: what a unit's line looks like. Must not read other files: variables that stand elsewhere are refused by name.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from snow_owl_tftp.config.importing.atftpd import carry_atftpd
from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.config.importing.hpa import carry_hpa
from snow_owl_tftp.config.importing.quoting import words_of
from snow_owl_tftp.errors import ConfigError

__all__ = ["carry_command", "carry_unit"]

_PROGRAMS: Final[dict[str, Callable[[Sequence[str], str, Carried], None]]] = {
    "in.tftpd": carry_hpa,
    "tftpd": carry_hpa,
    "atftpd": carry_atftpd,
    "in.atftpd": carry_atftpd,
}
_PREFIXES: Final = "@-:+!"
"""Of a command in a unit; none changes what it serves, but behind @ its second word is no argument."""


def carry_unit(text: str, place: str, carried: Carried) -> None:
    """Carry the last ExecStart over: in a drop-in an empty one takes the earlier ones back.

    Raises:
        ConfigError: There is none, it needs variables of another file, or its program is none that is known.
    """
    commands: list[tuple[int, str]] = []
    for number, line in _lines(text):
        key, equals, value = line.partition("=")
        if equals and key.strip() == "ExecStart":
            commands = [*commands, (number, value.strip())] if value.strip() else []
    if not commands:
        raise ConfigError(f"{place}: no ExecStart; name the unit that has it")
    number, command = commands[-1]
    if "$" in command:
        raise ConfigError(f"{place}:{number}: ExecStart needs variables of another file; import that file")
    if "%" in command.replace("%%", ""):
        raise ConfigError(f"{place}:{number}: ExecStart has a specifier; put what it stands for there")
    bare = command.lstrip(_PREFIXES)
    words = words_of(bare.replace("%%", "%"), f"{place}:{number}")
    if "@" in command[: len(command) - len(bare)]:
        del words[1:2]  # what the program is to be called
    carry_command(words, f"{place}:{number}", carried)


def carry_command(words: Sequence[str], place: str, carried: Carried) -> None:
    """Carry a command line over by its program's name.

    Raises:
        ConfigError: The program is none that is known.
    """
    program = PurePosixPath(words[0]).name if words else ""
    if program not in _PROGRAMS:
        known = ", ".join(_PROGRAMS)
        raise ConfigError(f'{place}: "{program}" is no server that can be imported; these can: {known}')
    _PROGRAMS[program](words[1:], place, carried)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield logical lines, each with the number of its first: a backslash goes on in the next."""
    begun, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(("#", ";")):
            continue
        first = first if begun else number
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        yield first, begun + line
        begun = ""
    if begun:
        yield first, begun
