"""Which form a file has, and how it is carried over.

    path, text ──form_of──► "xinetd" ──carry──► Carried

May know: every form. Must not print.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.config.importing.dnsmasq import carry_dnsmasq
from snow_owl_tftp.config.importing.shell import carry_default_atftpd, carry_default_hpa
from snow_owl_tftp.config.importing.unit import carry_unit
from snow_owl_tftp.config.importing.xinetd import carry_xinetd
from snow_owl_tftp.errors import ConfigError

__all__ = ["FORMS", "carry", "form_of", "read"]

FORMS: Final[dict[str, Callable[[str, str, Carried], None]]] = {
    "atftpd": carry_default_atftpd,
    "dnsmasq": carry_dnsmasq,
    "systemd": carry_unit,
    "tftpd-hpa": carry_default_hpa,
    "xinetd": carry_xinetd,
}
"""Name, as a command line has it, to what carries a text over: text, place, carried."""
_SIGNS: Final = (
    ("systemd", re.compile(r"^ExecStart\s*=", re.MULTILINE)),
    ("xinetd", re.compile(r"^\s*service\s+\S+\s*$|^\s*server_args\s*=", re.MULTILINE)),
    ("tftpd-hpa", re.compile(r"^\s*TFTP_(OPTIONS|DIRECTORY|ADDRESS)=", re.MULTILINE)),
    ("atftpd", re.compile(r"^\s*OPTIONS=", re.MULTILINE)),
    ("dnsmasq", re.compile(r"^\s*(--)?(enable-tftp|tftp-[a-z-]+)", re.MULTILINE)),
)
"""What only that form has, the surest first."""


def form_of(text: str, place: str) -> str:
    """Find out which form a text has.

    Raises:
        ConfigError: None that is known.
    """
    for form, sign in _SIGNS:
        if sign.search(text):
            return form
    raise ConfigError(f"{place}: no configuration that is known; say which it is with --from {'|'.join(FORMS)}")


def read(path: Path) -> str:
    """Read a text in whatever encoding; what is no UTF-8 stays as it is.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file") from error


def carry(path: Path, form: str | None = None) -> Carried:
    """Read a file and carry it over.

    Args:
        path: Of another server's configuration.
        form: One of FORMS; None: find out.

    Raises:
        ConfigError: The file cannot be read, has no known form, or says what its own server would not take.
    """
    text, carried = read(path), Carried()
    FORMS[form or form_of(text, str(path))](text, str(path), carried)
    carried.checked()
    return carried
