"""[[rules]]: who gets what. The first rule that fits a request decides; where none fits it is as if there were none.

    [[rules]]
    clients = ["10.1.0.0/16"]           conditions: each that is given must hold, and of a list one entry
    paths = ["firmware/**"]
    allow = ["read"]                    what holds then
    roots = ["machines/{mac}", "common"]

May know: text, addresses and ports. Must not look a name up, open anything or compile a glob of paths: `policy` does.
"""

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from msgspec import Meta

from snow_owl_tftp.config.binds import parse_bind
from snow_owl_tftp.config.tables import Table
from snow_owl_tftp.errors import ConfigError

__all__ = [
    "MAX_RULES",
    "Network",
    "Rule",
    "RuleLimits",
    "RuleOptions",
    "parse_listen",
    "parse_network",
    "problems_of_rules",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_RULES: Final = 10_000
"""More than anybody writes by hand; the compiled set of so many takes some 70 MB, and two seconds."""
_MAX_ROOTS: Final = 16
"""Each costs a request that finds nothing in it a system call or two."""
_EVERY: Final = frozenset({"0.0.0.0", "::"})


class RuleOptions(Table, frozen=True):
    """options = { … } of a rule: what it negotiates otherwise than [options] does; what is missing changes nothing."""

    max_blksize_bytes: Annotated[int, Meta(ge=8, le=65464)] | None = None
    """Instead of the key of [options]."""
    max_windowsize_blocks: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Likewise."""
    refuse: tuple[
        Literal["blksize", "blksize2", "timeout", "utimeout", "tsize", "windowsize", "rollover", "cookie"], ...
    ] = ()
    """Options that are answered as if the server did not know them."""
    rollover: Annotated[int, Meta(ge=0, le=1)] | None = None
    """What follows block 65535 where the client did not ask for either."""
    patience_ms: Annotated[int, Meta(ge=10, le=255_000)] | None = None
    """Nothing is repeated sooner, to a client that asked for no timeout."""


class RuleLimits(Table, frozen=True):
    """limits = { … } of a rule: what each of its clients may have in the place of what [limits] says of each client."""

    requests_per_s: Annotated[int, Meta(ge=1, le=10_000_000_000)] | None = None
    """Beyond it ERROR 0."""
    bytes_per_s: Annotated[int, Meta(ge=1, le=10_000_000_000)] | None = None
    """As `max_bytes_per_s_per_client`: who has had them waits."""
    transfers: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    """At a time."""


class Rule(Table, frozen=True):
    """[[rules]]: who gets what; the first that fits decides."""

    clients: tuple[str, ...] = ()
    """Addresses and prefixes, IPv4 or IPv6."""
    macs: tuple[str, ...] = ()
    """Globs, such as "52:54:00:*"."""
    groups: tuple[str, ...] = ()
    """Of machines."""
    listen: tuple[str, ...] = ()
    """Addresses of ours, with or without a port, or a port alone."""
    paths: tuple[str, ...] = ()
    """Globs, as in `write_config.allowed_patterns`."""
    trust: Literal["any", "address"] = "any"
    """"address": it holds only for a machine that is known by its address, not by the name it asks for."""
    allow: tuple[Literal["read", "write", "overwrite"], ...] | Literal["ignore"] | None = None
    """Empty: ERROR 2; "ignore": silence; missing: what holds without rules."""
    roots: tuple[str, ...] = ()
    """Directories, looked through in this order; empty: root_dir."""
    require: Literal["nothing", "world_readable", "owned"] = "nothing"
    """Of a file that is read: o+r, or that it belongs to the user whom the server runs as."""
    hidden: bool | None = None
    """Whether names of which a part begins with a dot are there; missing: what holds without rules."""
    options: RuleOptions = RuleOptions()
    limits: RuleLimits = RuleLimits()


def parse_network(text: str) -> Network:
    """Read an address or a prefix.

    Raises:
        ConfigError: It is neither, or bits are set behind the prefix.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        network = None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        raise ConfigError(f'"{text}" is IPv4 in disguise; write it as IPv4, however its clients reach the server')
    if network is not None:
        return network
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f'expected an address or a prefix such as "10.1.0.0/16" or "fd00::/8", got "{text}"'
        ) from None
    raise ConfigError(f'"{text}" has bits behind its prefix; write "{meant}" for the network')


def parse_listen(text: str) -> tuple[str | None, int | None]:
    """Read "ADDR:PORT", "ADDR", ":PORT" or "PORT"; None stands for every address, or every port.

    Raises:
        ConfigError: It is none of these.
    """
    try:
        return str(ipaddress.ip_address(text)), None
    except ValueError:
        pass
    host, port = parse_bind(text)
    return None if host in _EVERY else str(ipaddress.ip_address(host)), port


def problems_of_rules(rules: tuple[Rule, ...]) -> Iterator[str]:
    """Yield what is wrong with each rule, by its number and key."""
    if len(rules) > MAX_RULES:
        yield f"rules: {len(rules)} of them; {MAX_RULES} is the most"
    for number, rule in enumerate(rules, 1):
        for key, problem in _problems_of(rule):
            yield f"rules[{number}].{key}: {problem}"


def _problems_of(rule: Rule) -> Iterator[tuple[str, str]]:
    for key, texts, parse in (("clients", rule.clients, parse_network), ("listen", rule.listen, parse_listen)):
        for text in texts:
            try:
                parse(text)
            except ConfigError as error:
                yield key, str(error)
    for text in rule.macs:
        if not text or set(text.lower().replace("-", ":")) - set("0123456789abcdef:*?"):
            yield "macs", f'expected a MAC or a glob of one, such as "52:54:00:*", got "{text}"'
    for key in ("groups", "roots"):
        if "" in getattr(rule, key):
            yield key, "expected names, got an empty one; remove it"
    if len(rule.roots) > _MAX_ROOTS:
        yield "roots", f"{len(rule.roots)} of them; {_MAX_ROOTS} is the most"
    if isinstance(rule.allow, tuple) and "overwrite" in rule.allow and "write" not in rule.allow:
        yield "allow", '"overwrite" is about files that are written; add "write"'
    if rule.allow in ((), "ignore") and rule.limits != RuleLimits():
        yield "limits", "the rule allows nothing that they could limit; remove them, or allow something"
