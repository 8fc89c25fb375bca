"""The TFTP lines of a dnsmasq configuration as ours.

    enable-tftp
    tftp-root=/srv/tftp          ──carry_dnsmasq──► root_dir, roots by client, names, limits, …
    tftp-unique-root=mac

May know: its options about TFTP. Must not follow conf-dir: each file is named.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.errors import ConfigError

__all__ = ["carry_dnsmasq"]

_REMARKS: Final = {
    "conf-dir": "what {} names may say more of TFTP; import each of its files",
    "conf-file": "{} may say more of TFTP; import it too",
    "except-interface": "the server binds addresses, not interfaces; name those to listen on in bind_addr",
    "tftp-no-fail": "the server starts only where its root is there; say RequiresMountsFor= or Restart= in its unit",
    "dhcp-script": "write_config.on_upload runs a command for uploads only",
    "interface": "the server binds addresses, not interfaces; write the address of {} into bind_addr",
}
_COMMENT: Final = re.compile(r'("[^"]*")|(?:^|\s)#.*')
"""Only where a blank is before it, and not in quotes."""
_HEADERS_IPV4: Final = 32
"""What it takes off the MTU: IP, UDP, and the four bytes of TFTP."""


def carry_dnsmasq(text: str, place: str, carried: Carried) -> None:
    """Carry the TFTP lines over; lines about DNS and DHCP are none of ours.

    Raises:
        ConfigError: TFTP is not on, has no root, or a value is no number.
    """
    options = list(_options(text))
    names = {name for name, _, _ in options}
    if "enable-tftp" not in names:
        raise ConfigError(f"{place}: no enable-tftp: this dnsmasq serves no files; name the file that has it")
    rule = _carry_roots(options, place, carried)
    for name, value, number in options:
        here = f"{place}:{number}"
        if name == "tftp-port-range" and "tftp-single-port" in names:
            carried.remark(here, "tftp-port-range: means nothing with tftp-single-port, there too")
            continue
        try:
            _carry_one(name, value, here, carried, rule)
        except ValueError:
            raise ConfigError(f"{here}: {name}={value}: expected a number; mend it there") from None
    if "tftp-max" not in names:
        carried.set("limits.max_transfers", 50, f"{place}: the default of tftp-max")
    if rule:
        carried.set("rules", [*(carried.get("rules") or []), rule], place)


def _carry_roots(options: list[tuple[str, str, int]], place: str, carried: Carried) -> dict[str, Any]:
    """Return the rule that says from where a client's files come."""
    unique = [value or "ip" for name, value, _ in options if name == "tftp-unique-root"]
    parts = [{"ip": "{address}", "mac": "{mac_dashes}"}.get(kind, "") for kind in ("ip", "mac") if kind in unique]
    rule: dict[str, Any] = {}
    if parts:
        nested = "/".join(parts)
        rule["roots"] = list(dict.fromkeys([nested, *parts, "."]))
    for name, value, number in options:
        if name != "tftp-root":
            continue
        root, _, interface = value.partition(",")
        if interface:
            carried.remark(
                f"{place}:{number}",
                f'tftp-root for {interface}: write a rule with listen = [its address] and roots = ["{root}"]',
            )
        else:
            carried.set("root_dir", root.rstrip("/") or "/", f"{place}:{number}")
    if not carried.has("root_dir"):
        carried.remark(place, "no tftp-root: dnsmasq then serves the whole disk; set root_dir")
    return rule


def _carry_one(name: str, value: str, here: str, carried: Carried, rule: dict[str, Any]) -> None:
    if name in _KEYS:
        key, convert = _KEYS[name]
        carried.set(key, convert(value), here)
    elif name == "tftp-secure":
        rule["require"] = "owned"
    elif name == "tftp-no-blocksize":
        rule["options"] = {"refuse": ["blksize", "blksize2"]}
    elif name == "listen-address":
        addresses = [f"[{one}]:69" if ":" in one else f"{one}:69" for one in value.split(",")]
        carried.set("bind_addr", [*(carried.get("bind_addr") or []), *addresses], here)
    elif name == "enable-tftp" and value:
        carried.remark(here, f"enable-tftp={value}: {_REMARKS['interface'].replace('{}', value)}")
    elif name in _REMARKS:
        carried.remark(here, f"{name}: {_REMARKS[name].replace('{}', value)}")


def _port_range(text: str) -> str:
    first, _, last = text.partition(",")
    return f"{int(first)}-{int(last)}"


_KEYS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "tftp-lowercase": ("names.case", lambda text: "lower"),
    "tftp-max": ("limits.max_transfers", int),
    "tftp-mtu": ("options.max_blksize_bytes", lambda text: int(text) - _HEADERS_IPV4),
    "tftp-port-range": ("tid_ports", _port_range),
    "tftp-single-port": ("single_port", lambda text: True),
    "quiet-tftp": ("logging.level", lambda text: "warning"),
}
"""Options that are one key here."""


def _options(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield name, value and line; as its command line has them, with two dashes, they are taken too."""
    for number, line in enumerate(text.splitlines(), 1):
        said = _COMMENT.sub(lambda found: found[1] or "", line).replace('"', "")
        name, _, value = said.strip().removeprefix("--").partition("=")
        if name:
            yield name.strip(), value.strip(), number
