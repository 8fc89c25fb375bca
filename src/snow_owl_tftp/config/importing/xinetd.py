"""/etc/xinetd.d/tftp: a service that xinetd starts.

    service tftp { server_args = -s /var/lib/tftpboot … } ──carry_xinetd──► the command line, who may, where it listens

May know: attributes of xinetd. Must not open anything.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.config.importing.quoting import words_of
from snow_owl_tftp.config.importing.unit import carry_command
from snow_owl_tftp.config.rules import parse_network
from snow_owl_tftp.errors import ConfigError

__all__ = ["carry_xinetd"]

_REMARKS: Final = {
    "access_times": "rules know no times of day",
    "cps": "limits.max_requests_per_s counts requests, and refuses them without a pause afterwards",
    "deny_time": "limits.max_requests_per_s_per_client refuses them, and forgets nobody",
    "env": "say Environment= in the unit",
    "group": "say Group= in the unit",
    "instances": "limits.max_transfers counts transfers, not processes",
    "per_source": "limits.max_transfers_per_client counts transfers, not processes",
    "umask": "write_config.file_mode says what an uploaded file gets",
    "user": "say User= in the unit",
}


def carry_xinetd(text: str, place: str, carried: Carried) -> None:
    """Carry the service tftp over.

    Raises:
        ConfigError: The file has none, or a line that xinetd would not take.
    """
    attributes = dict(_attributes(text, place))
    number = attributes["server"][1] if "server" in attributes else 1
    if "server" not in attributes:
        raise ConfigError(f"{place}: no service with a server; name the file of the service tftp")
    server = attributes["server"][0]
    text, line = attributes.get("server_args", ("", number))
    arguments = words_of(text, f"{place}:{line}")
    port = attributes.get("port", ("", 0))[0]
    bind = attributes.get("bind", attributes.get("interface", ("", 0)))[0]
    is_ipv4 = "IPv4" in attributes.get("flags", ("", 0))[0].split()
    is_atftpd = PurePosixPath(server).name.endswith("atftpd")
    address = f"[{bind}]" if ":" in bind else bind or ("0.0.0.0" if is_ipv4 and is_atftpd else "")
    where = ["--bind-address" if is_atftpd else "--address", address] if address else []
    where += ["--port", port] if port else []
    where += ["-4"] if is_ipv4 and not is_atftpd else []
    carry_command([server, *where, *arguments], f"{place}:{number}", carried)
    _carry_access(attributes, place, carried)
    if attributes.get("disable", ("no", 0))[0] == "yes":
        number = attributes["disable"][1]
        carried.remark(f"{place}:{number}", "disable = yes: it did not run; ours does once it is started")
    for name, remark in _REMARKS.items():
        if name in attributes and not (name == "user" and attributes[name][0] == "root"):
            value, number = attributes[name]
            carried.remark(f"{place}:{number}", f"{name} = {value}: {remark}")


def _carry_access(attributes: dict[str, tuple[str, int]], place: str, carried: Carried) -> None:
    """Say who may: where both say something, xinetd takes the more exact one; here no_access goes first."""
    rules = carried.get("rules") or [{}]
    for name in ("only_from", "no_access"):
        if name not in attributes:
            continue
        value, number = attributes[name]
        networks = list(_networks(value, f"{place}:{number}", name, carried))
        if name == "no_access" and networks:
            rules = [{"clients": networks, "allow": []}, *rules]
        elif name == "only_from":
            rules = [*({**rule, "clients": rule.get("clients", networks)} for rule in rules if networks), {"allow": []}]
    if rules != (carried.get("rules") or [{}]):
        carried.replace("rules", rules, place)


def _networks(value: str, place: str, name: str, carried: Carried) -> Iterator[str]:
    for word in value.split():
        text = word
        octets = word.split(".")
        if (
            len(octets) == 4 and octets[3] == "0" and all(part.isdigit() for part in octets)
        ):  # a trailing 0 is a wildcard
            zeros = next(count for count in range(4, -1, -1) if octets[4 - count :] == ["0"] * count)
            text = f"{word}/{32 - 8 * zeros}"
        try:
            yield str(parse_network(text))
        except ConfigError:
            carried.remark(place, f"{name} {word}: rules know addresses and prefixes; write it as one into `clients`")


def _attributes(text: str, place: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield (attribute, (value, line)); "+=" adds to what was there, "-=" is refused."""
    values: dict[str, tuple[str, int]] = {}
    has_tftp = re.search(r"^\s*service\s+tftp\b", text, re.MULTILINE) is not None
    service = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("service"):
            service = line.removeprefix("service").rstrip("{").strip()
            continue
        if not line or line.startswith("#") or line in "{}" or (has_tftp and service not in ("", "tftp")):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or name.endswith("-"):
            raise ConfigError(f"{place}:{number}: expected NAME = VALUE, got {line}; mend it there")
        if name.endswith("+"):
            name = name[:-1].strip()
            value = f"{values.get(name, ('', 0))[0]} {value}".strip()
        values[name] = (value, number)
    yield from values.items()
