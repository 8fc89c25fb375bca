"""One rule, compiled: whether it fits a request, and what holds then.

    config Rule ─compile─► CompiledRule.unmet(question) ─► "" it fits, or the key of the first condition that does not

May know: settings, machines and text. Must not know other rules, or open anything.

Invariant: prefixes of clients are no affair of this module: `ruleset` asks only rules whose prefixes hold the client.
"""

import fnmatch
import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from snow_owl_tftp.config.rules import Rule, parse_listen
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.asker import Asker, Listening
from snow_owl_tftp.policy.client_limits import ClientLimits
from snow_owl_tftp.policy.decision import RootPath
from snow_owl_tftp.policy.machines import Machine, Machines
from snow_owl_tftp.policy.patterns import PathPatterns
from snow_owl_tftp.policy.variables import Text, Values
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.seq import Rollover

__all__ = ["CompiledRule", "Question"]

_NS_PER_MS: Final = 1_000_000
_WILD: Final = re.compile(r"[*?\[]")


class Question:
    """One request, as far as rules look at it; what costs something is looked up when a rule asks for it."""

    __slots__ = ("_asked", "_asker", "_found", "_listening", "_machines", "_paths", "host")

    def __init__(self, asker: Asker, listening: Listening, machines: Machines, paths: tuple[bytes, ...]) -> None:
        self._asker = asker
        self._listening = listening
        self._asked: tuple[str | None, int | None] | None = None
        self._machines = machines
        self._paths = paths
        self._found: tuple[Machine | None] | None = None
        self.host = asker.peer[0]

    @property
    def machine(self) -> Machine | None:
        """Which asks."""
        if self._found is None:
            self._found = (self._machines.find(self._asker, self._paths),)
        return self._found[0]

    @property
    def asked(self) -> tuple[str | None, int | None]:
        """Our address and port."""
        if self._asked is None:
            self._asked = self._listening.asked(self._asker)
        return self._asked

    @property
    def values(self) -> Values:
        """For variables."""
        return Values(self.host, lambda: self.asked[0], self.machine)


class CompiledRule:
    """A rule.

    Attributes:
        number: From 1, in the order of the file.
        rule: As it was written.
        macs: Globs, lower case, with colons.
        first_parts: What the first part of a path must be, one of them; None: that says nothing.
        last_parts: Likewise of the last.
        is_single: Whether another client whom the same prefixes hold, or another machine, may be told something else by
            it, or by those behind it.
        is_personal: Likewise any other client.
        needs_machine: Whether it looks at the machine.
        limits: What may be negotiated; None: as for all.
        client_limits: How much each of its clients may have; None: nothing is to be counted for its sake.
        is_of_addresses: Whether it fits every request of the clients whom its prefixes hold.
    """

    def __init__(self, number: int, rule: Rule, limits: OptionLimits, client_limits: ClientLimits | None) -> None:
        """Compile; `limits` are those of all, `client_limits` its own.

        Raises:
            ConfigError: It names the rule and the key.
        """
        self.number = number
        self.rule = rule
        self.macs = tuple(mac.lower().replace("-", ":") for mac in rule.macs)
        self._match_mac = _mac_matcher(self.macs)
        self._groups = frozenset(rule.groups)
        self._listen = tuple(parse_listen(text) for text in rule.listen)
        self._needs_address = rule.trust == "address"
        try:
            self._paths = PathPatterns(rule.paths) if rule.paths else None
        except ConfigError as error:
            raise ConfigError(f"rules[{number}].paths: {error}") from error
        try:
            self.roots = tuple(_Root(text) for text in rule.roots)
        except ConfigError as error:
            raise ConfigError(f"rules[{number}].roots: {error}") from error
        globs = [text.removeprefix("/") for text in rule.paths]
        self.first_parts = _literals([glob.partition("/")[0] for glob in globs])
        self.last_parts = _literals([glob.rpartition("/")[2] for glob in globs])
        self._fixed_roots = tuple(root.fixed for root in self.roots) if not any(r.names for r in self.roots) else None
        names = {name for root in self.roots for name in root.names}
        self._asks_for_machine = bool(self.macs or self._groups or self._needs_address)
        self.needs_machine = bool(self._asks_for_machine or names - {"address", "address_hex", "server_address"})
        self.is_single = bool(self.needs_machine or names - {"server_address"})
        self.is_personal = bool(rule.clients or self.is_single)
        self.looks_at_our_host = "server_address" in names or any(host is not None for host, _ in self._listen)
        self.limits = _limits_of(rule, limits)
        self.client_limits = client_limits
        self.is_of_addresses = not (self._asks_for_machine or rule.listen or rule.paths)

    def unmet(self, question: Question, path: bytes) -> str:
        """Return the key of the first condition that does not hold; empty: it fits, as far as `clients` allow."""
        if self._asks_for_machine and (key := self._unmet_by_machine(question.machine)):
            return key
        if self._listen and not self._is_asked_at(question.asked):
            return "listen"
        if self._paths is not None and not self._paths.match(path):
            return "paths"
        return ""

    def _unmet_by_machine(self, machine: Machine | None) -> str:
        if self._match_mac is not None and (machine is None or machine.mac is None or not self._match_mac(machine.mac)):
            return "macs"
        if self._groups and (machine is None or machine.group not in self._groups):
            return "groups"
        if self._needs_address and (machine is None or machine.known_by != "address"):
            return "trust"
        return ""

    def _is_asked_at(self, asked: tuple[str | None, int | None]) -> bool:
        return any(host in (None, asked[0]) and port in (None, asked[1]) for host, port in self._listen)

    def roots_for(self, question: Question) -> tuple[RootPath, ...]:
        """Return the roots whose variables are all known."""
        if self._fixed_roots is not None:
            return self._fixed_roots
        found = [root.fill(question) for root in self.roots]
        return tuple([root for root in found if root is not None])

    def allows(self, what: str) -> bool:
        """Whether "read", "write" or "overwrite" is allowed; call it where `allow` is a list."""
        return self.rule.allow is not None and what in self.rule.allow


class _Root:
    """A root, of which variables may be a part.

    Attributes:
        directory: All of it where there is no variable. Else, of an absolute one, what comes before the part that holds
            the first; of a relative one nothing, since links on the way there must not lead out of root_dir either.
        names: Of the variables.
        fixed: The root, where there are none.
    """

    __slots__ = ("_below", "directory", "fixed", "names")

    def __init__(self, text: str) -> None:
        whole = Text(text)
        self.names = whole.names
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in text:
            raise ConfigError(f'"{text}" has a ".." or a NUL; name the directory itself')
        if not parts and not text.startswith("/"):
            parts = ["."]
        fixed = len(parts)
        if self.names:
            fixed = next(at for at, part in enumerate(parts) if "{" in part) if text.startswith("/") else 0
        self.directory = ("/" if text.startswith("/") else "") + "/".join(parts[:fixed])
        self._below = Text("/".join(parts[fixed:]))
        self.fixed = RootPath(self.directory)

    def fill(self, question: Question) -> RootPath | None:
        if not self.names:
            return self.fixed
        below = self._below.fill(question.values)
        return None if below is None else RootPath(self.directory, os.fsencode(below))


def _mac_matcher(macs: tuple[str, ...]) -> Callable[[str], object] | None:
    return re.compile("|".join(fnmatch.translate(mac) for mac in macs)).match if macs else None


def _literals(parts: list[str]) -> frozenset[bytes] | None:
    """None where one of the parts is a pattern, or there is none."""
    if not parts or any(_WILD.search(part) for part in parts):
        return None
    return frozenset(part.encode("utf-8", "surrogateescape") for part in parts)


def _limits_of(rule: Rule, usual: OptionLimits) -> OptionLimits | None:
    asked = rule.options
    given = {
        "max_blksize_bytes": asked.max_blksize_bytes,
        "max_windowsize_blocks": asked.max_windowsize_blocks,
        "refused": frozenset(asked.refuse) or None,
        "usual_rollover": None if asked.rollover is None else Rollover(asked.rollover),
        "patience_ns": None if asked.patience_ms is None else asked.patience_ms * _NS_PER_MS,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(usual, **changed) if changed else None  # type: ignore[arg-type]
