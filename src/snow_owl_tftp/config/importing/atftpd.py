"""The command line of atftpd as ours.

    ["--daemon", "--maxthread", "100", "/srv/tftp"] ──carry_atftpd──► root_dir, limits, …

May know: its options. Must not open anything: a PCRE file is a form of its own (`pcre`).
"""

import getopt
from collections.abc import Sequence
from typing import Final

from snow_owl_tftp.config.binds import parse_bind
from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.errors import ConfigError

__all__ = ["carry_atftpd"]

_SHORT: Final = "t:r:m:v::VhT"
_LONG: Final = (
    *("daemon", "no-fork", "no-timeout", "no-tsize", "no-blksize", "no-windowsize", "no-multicast", "trace", "version"),
    *("no-source-port-checking", "mcast-switch-client", "prevent-sas", "help", "verbose", "pcre-test="),
    *("tftpd-timeout=", "retry-timeout=", "maxthread=", "port=", "bind-address=", "group=", "user=", "logfile="),
    *("pidfile=", "mtftp=", "mtftp-port=", "pcre=", "mcast-addr=", "mcast-port=", "mcast-ttl=", "listen-local"),
)
_REMARKS: Final = {
    "group": "--group {}: the server runs as the user that starts it; say Group={} in its unit",
    "user": "--user {}: the server runs as the user that starts it; say User={} in its unit",
    "mcast-addr": "--mcast-addr {}: this version serves no multicast",
    "mcast-port": "--mcast-port {}: this version serves no multicast",
    "mtftp": "--mtftp {}: this version serves no multicast",
    "no-source-port-checking": "--no-source-port-checking: a transfer belongs to the port that asked for it, always",
    "tftpd-timeout": "--tftpd-timeout {}: the server runs until it is stopped",
    "listen-local": "--listen-local: name a local address in bind_addr",
    "logfile": "--logfile {}: set logging.file",
    "mcast-ttl": "--mcast-ttl {}: this version serves no multicast",
    "prevent-sas": "--prevent-sas: a copy of a request or an ACK repeats nothing here, always",
    "pcre": "--pcre {}: write it as a map file first: snow-owl-tftp config import --from pcre {} > {}.map",
}


def carry_atftpd(arguments: Sequence[str], place: str, carried: Carried) -> None:
    """Carry a command line over.

    Args:
        arguments: Without the program's name.
        place: Where they stand, for remarks.
        carried: Takes what comes of it.

    Raises:
        ConfigError: It is none that atftpd would take.
    """
    spelled = ["--verbose" if argument.startswith("--verbose=") else argument for argument in arguments]
    try:
        pairs, directories = getopt.gnu_getopt(spelled, _SHORT.replace("v::", "v"), list(_LONG))
    except getopt.GetoptError as error:
        raise ConfigError(f"{place}: atftpd: {error}; mend it there") from error
    short = {"-t": "tftpd-timeout", "-r": "retry-timeout", "-m": "maxthread"}
    options = {short.get(name, name.lstrip("-")): value for name, value in pairs}
    carried.set("root_dir", directories[0] if directories else "/tftpboot", place)
    for other in directories[1:]:
        carried.remark(place, f"{other}: the first directory alone counts, there too")
    carried.set("write_config.enabled", True, place)
    carried.set("write_config.allowed_patterns", ["**"], place)
    carried.set("write_config.on_existing", "replace_writable", place)
    carried.remark(place, "uploads: it also makes new files where its user may; set write_config.on_existing for that")
    try:
        _carry_numbers(options, place, carried)
    except ValueError as error:
        raise ConfigError(f"{place}: atftpd: {error}; mend it there") from None
    if "bind-address" in options or "port" in options:
        bind = f"{options.get('bind-address', '')}:{options.get('port', '69')}"
        try:
            parse_bind(bind)
        except ConfigError as error:
            carried.remark(place, f"{error}; write the address that it stands for into bind_addr")
        else:
            carried.set("bind_addr", bind, place)
    refused = [name for name in ("timeout", "tsize", "blksize", "windowsize") if f"no-{name}" in options]
    if refused:
        carried.set("rules", [{"options": {"refuse": refused}}], place)
    if "pcre" in options:
        carried.set("rewrite_file", f"{options['pcre']}.map", place)
    for name, value in options.items():
        if name in _REMARKS:
            carried.remark(f"{place}: --{name}", _REMARKS[name].replace("{}", value))


def _carry_numbers(options: dict[str, str], place: str, carried: Carried) -> None:
    if "maxthread" in options:
        carried.set("limits.max_transfers", int(options["maxthread"]), f"{place}: --maxthread")
    if "retry-timeout" in options:
        milliseconds = int(options["retry-timeout"]) * 1000
        carried.set("retransmit.initial_ms", milliseconds, f"{place}: --retry-timeout")
        if milliseconds > 3000:
            carried.set("retransmit.ceiling_ms", milliseconds, f"{place}: --retry-timeout")
