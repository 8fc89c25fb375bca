"""The command line of tftpd-hpa (in.tftpd 5.2 to 6.x) as ours.

    ["-s", "-c", "-m", "/etc/tftpd.map", "/srv/tftp"] ──carry_hpa──► root_dir, write_config, rewrite_file, …

Meanings are those of its manual. Where ours differ in what an operator would notice, that is a remark: a relative name
is served without -s too; -c replaces whatever is there. How it is started (-l, -L, -P, -v) is for whoever starts ours.

May know: its options. Must not open anything.
"""

import getopt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from snow_owl_tftp.config.binds import parse_bind
from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.errors import ConfigError

__all__ = ["carry_hpa"]

_SHORT: Final = "46lLcjspvVa:B:m:P:r:R:S:t:T:u:U:W:"
_LONG: Final = (
    *("ipv4", "ipv6", "listen", "foreground", "create", "jail", "secure", "chroot", "permissive", "verbose", "version"),
    *("systemd", "freebind", "refuse-all", "reject-all", "validate", "ro", "read-only", "normalize", "rooted"),
    *("address=", "blocksize=", "map-file=", "mapfile=", "map-steps=", "pidfile=", "refuse=", "ports=", "port-range="),
    *("service=", "port=", "timeout=", "retransmit=", "user=", "umask=", "windowsize=", "window-bytes=", "verbosity="),
    *("path-prefix=", "max-upload=", "max-size="),
)
_NAMES: Final = {
    "4": "ipv4",
    "6": "ipv6",
    "l": "listen",
    "L": "foreground",
    "c": "create",
    "j": "secure",
    "jail": "secure",
    "s": "secure",
    "chroot": "secure",
    "p": "permissive",
    "v": "verbose",
    "V": "version",
    "a": "address",
    "B": "blocksize",
    "m": "map-file",
    "mapfile": "map-file",
    "P": "pidfile",
    "r": "refuse",
    "R": "ports",
    "port-range": "ports",
    "S": "service",
    "port": "service",
    "t": "timeout",
    "T": "retransmit",
    "u": "user",
    "U": "umask",
    "W": "windowsize",
    "reject-all": "refuse-all",
    "ro": "read-only",
    "max-size": "max-upload",
}
"""Every other spelling of an option."""
_EVERY_OPTION: Final = ["blksize", "blksize2", "timeout", "utimeout", "tsize", "windowsize", "rollover", "cookie"]
_REMARKS: Final = {
    "ipv6": '-6: only IPv6; name an IPv6 address in bind_addr, such as "[::]:69", which takes IPv4 too',
    "user": "-u {}: the server runs as the user that starts it; say User={} in its unit",
    "freebind": "--freebind: start the server when its addresses are there, or bind every address",
    "validate": "--validate: files are opened below the root and nowhere else, always",
    "normalize": "--normalize: names are taken apart and put below the root, always",
    "max-upload": "--max-upload {}: max_file_size_bytes is for reads too",
    "path-prefix": "--path-prefix {}: put it before names with a rewrite rule",
}
Options = Sequence[tuple[str, str]]
"""Each by its long name, with its value."""


def carry_hpa(arguments: Sequence[str], place: str, carried: Carried) -> None:
    """Carry a command line over.

    Args:
        arguments: Without the program's name.
        place: Where they stand, for remarks.
        carried: Takes what comes of it.

    Raises:
        ConfigError: It is none that in.tftpd would take.
    """
    try:
        pairs, directories = getopt.gnu_getopt(_spelled(arguments), _SHORT, list(_LONG))
    except getopt.GetoptError as error:
        raise ConfigError(f"{place}: in.tftpd: {error}; mend it there") from error
    options = [(_NAMES.get(name.lstrip("-"), name.lstrip("-")), value) for name, value in pairs]
    names = {name for name, _ in options}
    _carry_directories(directories, "secure" in names, place, carried)
    _carry_rules(directories, options, place, carried)
    _carry_uploads(names, dict(options).get("umask"), place, carried)
    _carry_addresses(options, place, carried)
    for name, value in options:
        try:
            _carry_one(name, value, f"{place}: --{name}", carried)
        except ValueError:
            raise ConfigError(f"{place}: in.tftpd: --{name} {value}: expected a number; mend it there") from None


def _spelled(arguments: Sequence[str]) -> list[str]:
    """Cut the value off an option that may have none: getopt knows no such."""
    return ["--normalize" if argument.startswith("--normalize=") else argument for argument in arguments]


def _carry_directories(directories: list[str], is_secure: bool, place: str, carried: Carried) -> None:
    if not directories:
        carried.remark(place, "no directory: in.tftpd serves the whole disk by absolute names; set root_dir")
    elif is_secure or len(directories) == 1:
        carried.set("root_dir", directories[0], place)
        for other in directories[1:]:
            carried.remark(place, f"{other}: with -s the first directory alone counts, there too")
        if not is_secure:
            carried.remark(place, "without -s it refuses relative names; here they mean files below root_dir")
    else:
        carried.set("root_dir", "/", place)


def _carry_rules(directories: list[str], options: Options, place: str, carried: Carried) -> None:
    """Say for reads and writes alike who gets what; what is missing there is missing here."""
    names = {name for name, _ in options}
    rule: dict[str, Any] = {}
    if len(directories) > 1 and "secure" not in names:
        # A directory's own "*", "?" and "[" stand for themselves.
        rule["paths"] = [re.sub(r"[*?\[]", r"[\g<0>]", directory.strip("/")) + "/**" for directory in directories]
    if "permissive" not in names:
        rule["require"] = "world_readable"
    refused = _EVERY_OPTION if "refuse-all" in names else [value for name, value in options if name == "refuse"]
    if refused:
        rule["options"] = {"refuse": list(dict.fromkeys(refused))}
    if rule:
        carried.set("rules", [rule, {"allow": []}] if "paths" in rule else [rule], place)


def _carry_uploads(names: set[str], umask: str | None, place: str, carried: Carried) -> None:
    """It takes uploads unless it is told not to: of files that everybody may write, or with -c of new ones too."""
    if "read-only" in names:
        return
    carried.set("write_config.enabled", True, place)
    carried.set("write_config.allowed_patterns", ["**"], place)
    if not names & {"create", "permissive"}:
        carried.set("write_config.on_existing", "replace_writable", place)
        return
    carried.set("write_config.on_existing", "replace", place)
    carried.remark(
        place,
        "-c or -p: uploads make new files, and replace those that are there whatever their mode; "
        "narrow write_config.allowed_patterns",
    )
    if umask is not None or "permissive" not in names:
        try:
            bits = 0o666 & ~int(umask or "0", 8)
        except ValueError:
            raise ConfigError(f"{place}: in.tftpd: --umask {umask}: expected an octal number; mend it there") from None
        carried.set("write_config.file_mode", f"{bits:04o}", place)


def _carry_addresses(options: Options, place: str, carried: Carried) -> None:
    port = dict(options).get("service", "69")
    port = "69" if port == "tftp" else port
    only_ipv4 = any(name == "ipv4" for name, _ in options)
    binds = []
    for value in [value for name, value in options if name == "address"] or [""]:
        bind = value if _has_port(value) else f"{value}:{port}"
        binds.append(f"0.0.0.0{bind}" if only_ipv4 and bind.startswith(":") else bind)
    good = []
    for bind in binds:
        try:
            parse_bind(bind)
            good.append(bind)
        except ConfigError as error:
            carried.remark(f"{place}: --address", f"{error}; write the address that it stands for into bind_addr")
    if good:
        carried.set("bind_addr", good if len(good) > 1 else good[0], place)


def _has_port(address: str) -> bool:
    """Tell "host:port" from "host" and "[v6]"; "v6" without brackets is refused there too."""
    return ":" in address.rpartition("]")[2]


def _carry_one(name: str, value: str, place: str, carried: Carried) -> None:
    if name in _KEYS:
        key, convert = _KEYS[name]
        carried.set(key, convert(value), place)
    if name in _REMARKS:
        carried.remark(place, _REMARKS[name].replace("{}", value))


def _size(text: str) -> int:
    return int(text.rstrip("kmgKMG")) << 10 * (" kmg".find(text[-1:].lower()) if text[-1:].isalpha() else 0)


def _port_range(text: str) -> str:
    first, _, last = text.partition(":")
    return f"{int(first)}-{int(last or first)}"


_KEYS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "map-file": ("rewrite_file", str),
    "map-steps": ("rewrite_max_steps", int),
    "blocksize": ("options.max_blksize_bytes", int),
    "windowsize": ("options.max_windowsize_blocks", int),
    "window-bytes": ("options.max_window_bytes", _size),
    "ports": ("tid_ports", _port_range),
    "retransmit": ("retransmit.initial_ms", lambda text: max(1, round(int(text) / 1000))),
    "max-upload": ("max_file_size_bytes", _size),
}
"""Options that are one key here."""
