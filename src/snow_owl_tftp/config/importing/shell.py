"""/etc/default/tftpd-hpa and /etc/default/atftpd: variables that an init script hands over.

    TFTP_DIRECTORY="/srv/tftp"
    TFTP_OPTIONS="--secure"       ──carry_tftpd_hpa──► the command line in.tftpd --address … --secure /srv/tftp

May know: these variables. Must not run a shell: what would need one is refused.
"""

import shlex
from collections.abc import Iterator

from snow_owl_tftp.config.importing.atftpd import carry_atftpd
from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.config.importing.hpa import carry_hpa
from snow_owl_tftp.config.importing.quoting import words_of
from snow_owl_tftp.errors import ConfigError

__all__ = ["carry_default_atftpd", "carry_default_hpa", "variables"]


def carry_default_hpa(text: str, place: str, carried: Carried) -> None:
    """Carry /etc/default/tftpd-hpa over. Raises: ConfigError."""
    found = {name: (value, number) for name, value, number in variables(text, place)}
    if not found.keys() & {"TFTP_OPTIONS", "TFTP_DIRECTORY", "TFTP_ADDRESS"}:
        raise ConfigError(f"{place}: no TFTP_OPTIONS and no TFTP_DIRECTORY; name the file that has them")
    options, number = found.get("TFTP_OPTIONS", ("", 1))
    arguments = words_of(options, f"{place}:{number}")
    for name, flag in (("TFTP_ADDRESS", "--address"), ("TFTP_USERNAME", "--user")):
        if found.get(name, ("", 0))[0]:
            arguments = [flag, found[name][0], *arguments]
    directory, line = found.get("TFTP_DIRECTORY", ("", number))
    arguments += words_of(directory, f"{place}:{line}")
    carry_hpa(arguments, f"{place}:{number}", carried)


def carry_default_atftpd(text: str, place: str, carried: Carried) -> None:
    """Carry /etc/default/atftpd over. Raises: ConfigError."""
    found = list(variables(text, place))
    if all(name != "OPTIONS" for name, _, _ in found):
        raise ConfigError(f"{place}: no OPTIONS; name the file that has them")
    for name, value, number in found:
        if name == "OPTIONS":
            carry_atftpd(words_of(value, f"{place}:{number}"), f"{place}:{number}", carried)
        elif name == "USE_INETD" and value == "true":
            carried.remark(f"{place}:{number}", "USE_INETD: the server runs by itself, or by socket activation")


def variables(text: str, place: str) -> Iterator[tuple[str, str, int]]:
    """Yield name, value and line of each assignment.

    Raises:
        ConfigError: A line is none, or would need a shell.
    """
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConfigError(f"{place}:{number}: {error}; mend it there") from None
        for word in words:
            name, equals, value = word.partition("=")
            if word == "export" and len(words) > 1:
                continue
            if not equals or not name.isidentifier():
                raise ConfigError(f'{place}:{number}: expected NAME="value", got {word}')
            if "$" in value or "`" in value:
                raise ConfigError(f"{place}:{number}: {name} needs a shell; put its value there")
            yield name, value, number
