"""All rules, compiled: which is the first that fits, found without asking each.

    client ─PrefixTable─► the prefixes that hold it ─► their buckets, and that of rules without `clients`
    in a bucket: machine's MAC, group, first or last part of the path ─► a few rules ─unmet?─► the first that fits

May know: rules and who asks. Must not open anything. What is decided by the rule that fits is `rules`' affair.

Invariants:
- The answer is that of asking every rule in its order (tests/policy/test_ruleset.py compares).
- `depends` says False only where no other client would be told anything else; with `is_classed`, none of his class.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from snow_owl_tftp.config.rules import Network, Rule, parse_network
from snow_owl_tftp.config.schema import LimitsSettings
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.automaton import Automaton, many
from snow_owl_tftp.policy.classes import ClassedPrefix, divide
from snow_owl_tftp.policy.client_limits import ClientLimits, limits_by_rule
from snow_owl_tftp.policy.clients import PrefixTable
from snow_owl_tftp.policy.globs import tokens_of
from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.policy.rule import CompiledRule, Question
from snow_owl_tftp.protocol.options import OptionLimits

__all__ = ["RuleSet"]

_K = TypeVar("_K")
_NEVER: Final = 1 << 30
"""Behind every rule."""
_OUI_TEXT: Final = 8
"""Characters of "52:54:00": who made a network card."""


class RuleSet:
    """Rules in their order.

    Attributes:
        rules: All of them.
        needs_machine: Whether any looks at the machine.
        has_roots: Whether any has roots of its own.
        shows_hidden: The first by which hidden names are there; None: by no rule.
        usual: How much each client may have whom no rule fits; None: nothing is to be counted for its sake.
        limits_clients: Whether any decision says how much its client may have.
        is_classed: Whether whoever repeats an answer keeps to `client_classes`; else he repeats it for everybody.
    """

    def __init__(self, rules: Sequence[Rule], limits: OptionLimits, per_client: LimitsSettings | None = None) -> None:
        """Compile.

        Args:
            rules: In the order of the file.
            limits: What may be negotiated where a rule says nothing of it.
            per_client: How much each client may have, likewise; None: what is usual.

        Raises:
            ConfigError: It names the rule and the key.
        """
        self.usual, *of_clients = limits_by_rule(rules, per_client or LimitsSettings())
        self.limits_clients = any(one is not None for one in (self.usual, *of_clients))
        self.rules = tuple(
            CompiledRule(number, rule, limits, own)
            for number, (rule, own) in enumerate(zip(rules, of_clients, strict=True), 1)
        )
        self.needs_machine = any(rule.needs_machine for rule in self.rules)
        self.has_roots = any(rule.roots for rule in self.rules)
        self.shows_hidden = next((rule for rule in self.rules if rule.rule.hidden), None)
        self.is_classed = False
        self._anyone = _Bucket()
        by_prefix: dict[Network, _Bucket] = {}
        for rule in self.rules:
            if not rule.rule.clients:
                self._anyone.add(rule)
            for network in {parse_network(text) for text in rule.rule.clients}:
                by_prefix.setdefault(network, _Bucket()).add(rule)
        for bucket in (self._anyone, *by_prefix.values()):
            bucket.settle()
        self._by_prefix = by_prefix
        self._prefixes = PrefixTable(by_prefix.items())
        self._personal = _FirstOf()
        for rule in self.rules:
            if rule.is_personal:
                self._personal.add(rule)
        self._by_our_host = min((rule.number for rule in self.rules if rule.looks_at_our_host), default=_NEVER)

    @property
    def directories(self) -> dict[str, str]:
        """Roots without a variable, each with the key that names it first."""
        found: dict[str, str] = {}
        for rule in self.rules:
            for root in rule.roots:
                if not root.names:
                    found.setdefault(root.directory, f"rules[{rule.number}].roots")
        return found

    @property
    def above_variables(self) -> frozenset[str]:
        """Directories in which variables choose a root; "" is root_dir."""
        return frozenset(root.directory for rule in self.rules for root in rule.roots if root.names)

    def denies_overwrite(self, number: int) -> bool:
        """Tell whether it is this rule's doing (0: none's) that a file which is there is not written again."""
        if not number:
            return False
        rule = self.rules[number - 1]
        return rule.rule.allow is not None and not rule.allows("overwrite")

    def first_that_fits(self, question: Question, path: bytes) -> CompiledRule | None:
        """Return the rule that decides about a path; None: none does."""
        found = self._anyone.first(question, path, _NEVER) if self._anyone.numbers else None
        for bucket in self._prefixes.holding(question.host) if self._by_prefix else ():
            found = bucket.first(question, path, _NEVER if found is None else found.number) or found
        return found

    def depends(self, asker: Asker, path: bytes, rule: CompiledRule | None) -> bool:
        """Tell whether another client, or this one at another of our addresses, might be told something else.

        Args:
            asker: Who asks.
            path: For what.
            rule: Which fits.
        """
        if rule is not None and (rule.is_single if self.is_classed else rule.is_personal):
            return True
        number = _NEVER if rule is None else rule.number
        # Who asks at a wildcard's other address asks the same endpoint, which is all that the engine tells apart.
        if self._by_our_host <= number and asker.local_address is not None:
            return True
        if not self.is_classed:
            return self._personal.before(path) < number
        # Others of the class are held by the same prefixes, so the rules of other prefixes are nobody's there.
        if self._anyone.singles.before(path) < number:
            return True
        for bucket in self._prefixes.holding(asker.peer[0]) if self._by_prefix else ():
            if bucket.singles.before(path) < number:
                return True
        return False

    def unmet(self, question: Question, path: bytes) -> Iterator[tuple[CompiledRule, str]]:
        """Yield the rules up to the one that fits, each with the key that it does not fit by, empty for the last."""
        fitting = self.first_that_fits(question, path)
        for rule in self.rules:
            yield rule, "" if rule is fitting else rule.unmet(question, path) or "clients"
            if rule is fitting:
                return

    def client_classes(self) -> list[ClassedPrefix]:
        """Return the prefixes of all rules, each with the class of those for whom it is the longest.

        All clients of a class are told the same for the same name, but for what is looked up of the single one: its
        machine, and {address}. Class 0 are those whom no prefix holds.
        """
        return self._divided()[0]

    def limits_by_class(self) -> dict[int, ClientLimits]:
        """Return how much each client of a class may have, where that is the same whatever it asks for."""
        if not self.limits_clients:
            return {}
        buckets = {tuple(bucket.numbers): bucket for bucket in self._by_prefix.values()}
        by_content = list(buckets.values())
        found = {}
        for number, said in enumerate(self._divided()[1]):
            limits = self._limits_of([self._anyone, *(by_content[one] for one in said)])
            if limits is not None:
                found[number] = limits
        return found

    def _divided(self) -> tuple[list[ClassedPrefix], list[frozenset[int]]]:
        """Prefixes with their classes; and by class which contents of prefixes hold for its clients, in their order."""
        # Named by what they hold: of two prefixes of the same rules, clients are told the same.
        contents: dict[tuple[int, ...], int] = {}
        return divide(
            {
                network: contents.setdefault(tuple(bucket.numbers), len(contents))
                for network, bucket in self._by_prefix.items()
            }
        )

    def _limits_of(self, buckets: "Sequence[_Bucket]") -> ClientLimits | None:
        """What holds for clients whom just these rules may fit, whatever they ask for; None: nothing, or it depends."""
        last = min(bucket.first_of_addresses for bucket in buckets)
        found = {limits for bucket in buckets for number, limits in bucket.limits if number <= last}
        if last == _NEVER:
            found.add(self.usual)
        return found.pop() if len(found) == 1 else None


class _Bucket:
    """Rules of one prefix, found by what each asks for in the first place.

    Attributes:
        numbers: Of all, in their order.
        singles: Those that look at the single machine.
        first_of_addresses: The number of the first that fits whatever is asked for.
        limits: The first, and the first that has others, with what their clients may have: whether those of a few
            buckets agree needs no more.
    """

    __slots__ = (
        "_by_first",
        "_by_group",
        "_by_last",
        "_by_mac",
        "_of_machines",
        "_rest",
        "first_of_addresses",
        "limits",
        "numbers",
        "singles",
    )

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.first_of_addresses = _NEVER
        self.limits: list[tuple[int, ClientLimits | None]] = []
        self.singles = _FirstOf()
        self._rest = _Rules()
        self._of_machines = _FirstOf()  # those of the next two tables
        self._by_mac: dict[str, _Rules] = {}
        self._by_group: dict[str, _Rules] = {}
        self._by_first: dict[bytes, _Rules] = {}
        self._by_last: dict[bytes, _Rules] = {}

    def add(self, rule: CompiledRule) -> None:
        """Take one more, behind those that are here."""
        self.numbers.append(rule.number)
        if rule.is_of_addresses:
            self.first_of_addresses = min(self.first_of_addresses, rule.number)
        if not self.limits or (len(self.limits) < 2 and self.limits[0][1] != rule.client_limits):
            self.limits.append((rule.number, rule.client_limits))
        if rule.is_single:
            self.singles.add(rule)
        macs = {mac if _is_plain(mac) else mac[:_OUI_TEXT] for mac in rule.macs}
        if macs and all(_is_plain(mac) and len(mac) >= _OUI_TEXT for mac in macs):
            self._of_machines.add(rule)
            _add(self._by_mac, macs, rule)
        elif rule.rule.groups:
            self._of_machines.add(rule)
            _add(self._by_group, rule.rule.groups, rule)
        elif rule.first_parts is not None:
            _add(self._by_first, rule.first_parts, rule)
        elif rule.last_parts is not None:
            _add(self._by_last, rule.last_parts, rule)
        else:
            self._rest.append(rule)

    def settle(self) -> None:
        """Be ready to be asked: there are no more."""
        self._rest.settle()
        for listed in (self._by_mac, self._by_group, self._by_first, self._by_last):
            for rules in listed.values():
                rules.settle()

    def first(self, question: Question, path: bytes, before: int) -> CompiledRule | None:
        """Return the first that fits and stands before a number."""
        found = self._rest.first(question, path, before) if self._rest else None
        # To find out which machine asks costs as much as all this: not where no rule that looks at it can fit.
        if self._of_machines.before(path) < before:
            for rules in self._of(question.machine):
                found = rules.first(question, path, found.number if found else before) or found
        if self._by_first and (listed := self._by_first.get(path.partition(b"/")[0])):
            found = listed.first(question, path, found.number if found else before) or found
        if self._by_last and (listed := self._by_last.get(path.rpartition(b"/")[2])):
            found = listed.first(question, path, found.number if found else before) or found
        return found

    def _of(self, machine: Machine | None) -> Iterator["_Rules"]:
        if machine is not None and machine.mac is not None:
            yield self._by_mac.get(machine.mac, _NO_RULES)
            yield self._by_mac.get(machine.mac[:_OUI_TEXT], _NO_RULES)
        if machine is not None and machine.group is not None:
            yield self._by_group.get(machine.group, _NO_RULES)


class _Rules(list[CompiledRule]):
    """Some rules in their order, of which the first is looked for that fits."""

    __slots__ = ("_by_path",)

    _by_path: Automaton | None

    def settle(self) -> None:
        """Find out what their paths have in common, where there are many: there are no more rules."""
        # A rule without paths stands in the automaton as one that every path matches.
        self._by_path = many([[tokens_of(glob) for glob in rule.rule.paths] for rule in self])

    def first(self, question: Question, path: bytes, before: int) -> CompiledRule | None:
        """Return the first that fits and stands before a number."""
        if not self or self[0].number >= before:
            return None
        rules: Iterable[CompiledRule] = self
        if self._by_path is not None:
            rules = map(self.__getitem__, self._by_path.of(path.decode("utf-8", "surrogateescape")))
        for rule in rules:
            if rule.number >= before:
                return None
            if not rule.unmet(question, path):
                return rule
        return None


_NO_RULES: Final = _Rules()


class _FirstOf:
    """Some rules: which number is the lowest of those that may fit a path."""

    __slots__ = ("_anywhere", "_by_first")

    def __init__(self) -> None:
        self._anywhere = _NEVER
        self._by_first: dict[bytes, int] = {}

    def add(self, rule: CompiledRule) -> None:
        """Take one more, behind those that are here."""
        if rule.first_parts is None:
            self._anywhere = min(self._anywhere, rule.number)
        for part in rule.first_parts or ():
            self._by_first.setdefault(part, rule.number)

    def before(self, path: bytes) -> int:
        """Return it."""
        if not self._by_first:
            return self._anywhere
        number = self._by_first.get(path.partition(b"/")[0], _NEVER)
        return number if number < self._anywhere else self._anywhere


def _add(lists: dict[_K, _Rules], keys: Iterable[_K], rule: CompiledRule) -> None:
    for key in frozenset(keys):
        lists.setdefault(key, _Rules()).append(rule)


def _is_plain(mac: str) -> bool:
    return "*" not in mac and "?" not in mac
