"""What a name becomes: rules one after the other, as tftpd-hpa runs them, in time that is bounded for every name.

    name ─► which rules match (one pass of RE2 for all) ─► the first from here on ─► its deed ─► a new name? once more
                                                                                  └► end, deny, or from there on

May know: compiled rules. Must not open anything: a rule that asks whether a file exists (`E`) makes a candidate, and
whoever has files takes the first of them that can be opened.

Invariants:
- A rule that is looked at is a step, and so is every further replacement of one rule; there are `max_steps` at most.
- No name grows beyond MAX_NAME_BYTES, nor are there more than MAX_CANDIDATES.
- Rules that match neither before nor after a replacement cost nothing of their own.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from snow_owl_tftp.policy.rewrite.compiled import CompiledRule
from snow_owl_tftp.policy.rewrite.expand import Client
from snow_owl_tftp.policy.rewrite.matching import Matches

__all__ = ["FAILURE", "MAX_CANDIDATES", "MAX_NAME_BYTES", "Outcome", "Program"]

MAX_NAME_BYTES: Final = 1024
"""Of what rules make of a name: twice what a request holds. It bounds what a rule costs that makes its name longer."""
MAX_CANDIDATES: Final = 64
"""Each may be looked for on a disk."""
_NEAR: Final = 2
"""Where rules change a name one after the other, the next is found at once: a pass for each of 200 that all match takes
20 ms for a name of 490 bytes."""
FAILURE: Final = "Remap table failure"
"""What tftpd-hpa says when its rules do not come to an end."""
_MAX_DENIAL_CHARS: Final = 200

Note = Callable[[str, str], None]
"""Told where a rule is written and what it did, each time that one does something."""


class Outcome(NamedTuple):
    """What became of a name.

    Attributes:
        names: Candidates in their order: the first that can be opened is meant. The last of them is the name itself,
            unless it is denied.
        denial: The text of the ERROR, where nothing can be opened before; None: nobody denies it.
        why: For the operator.
        depends_on_client: Another client might get another outcome.
    """

    names: tuple[bytes, ...]
    denial: str | None = None
    why: str = ""
    depends_on_client: bool = False


class _Failure(Exception):  # noqa: N818 - no error of ours
    """The program came to no end; the text says where."""


class Program:
    """The rules for one kind of request."""

    def __init__(self, compiled: Sequence[CompiledRule | tuple[int, bytes]], max_steps: int) -> None:
        """Take rules and labels, in their order."""
        self._rules: list[CompiledRule] = []
        self._begin_of: dict[int, int] = {}
        self._labels: dict[tuple[int, bytes], int] = {}
        for item in compiled:
            source = item.source if isinstance(item, CompiledRule) else item[0]
            self._begin_of.setdefault(source, len(self._rules))
            if isinstance(item, CompiledRule):
                self._rules.append(item)
            else:
                self._labels.setdefault(item, len(self._rules))
        self._inverse = {at for at, rule in enumerate(self._rules) if rule.rule.is_inverse}
        self._matches = Matches(rule.node for rule in self._rules)
        self._max_steps = max_steps

    def run(self, name: bytes, client: Client, note: Note | None = None) -> Outcome:
        """Run it.

        Args:
            name: As the request spells it.
            client: Who asks.
            note: Told each step that does something; None: nobody wants to know.
        """
        return _Run(self, client, note).run(name)

    def fires(self, at: int, name: bytes) -> bool:
        """Whether the rule at a place would do something with a name."""
        return (self._rules[at].matcher.search(name) is None) is (at in self._inverse)

    def firing(self, name: bytes) -> list[int]:
        """Return the places of all rules that would do something with a name, in their order."""
        found = self._matches.of(name)
        if found is None:
            found = {at for at, rule in enumerate(self._rules) if rule.matcher.search(name) is not None}
        return sorted((found - self._inverse) | (self._inverse - found))


class _Run:
    """One name on its way.

    Attributes:
        at: The place of the rule that is looked at next.
    """

    def __init__(self, program: Program, client: Client, note: Note | None) -> None:
        self._program = program
        self._client = client
        self._note = note
        self._left = program._max_steps
        self._candidates: list[bytes] = []
        self._depends = False
        self._firing: list[int] | None = None  # None: nobody has looked yet, of the name as it is now
        self.at = 0

    def run(self, name: bytes) -> Outcome:
        try:
            name, denial, why = self._to_the_end(name)
        except _Failure as failure:
            return self._outcome((), FAILURE, str(failure))
        return self._outcome((name,) if denial is None else (), denial, why)

    def _outcome(self, last: tuple[bytes, ...], denial: str | None, why: str) -> Outcome:
        return Outcome((*self._candidates, *last), denial, why, self._depends)

    def _to_the_end(self, name: bytes) -> tuple[bytes, str | None, str]:
        rules = self._program._rules
        if not rules:
            return name, None, ""
        self._firing = self._program.firing(name)
        while True:
            next_ = self._next(name)
            until = len(rules) - 1 if next_ is None else next_
            self._spend(until + 1 - self.at, rules[min(until, len(rules) - 1)])
            if next_ is None:
                return name, None, ""
            self.at = until + 1
            rule = rules[until]
            if not self._is_for_client(rule):
                continue
            found = None if rule.rule.is_inverse else rule.matcher.search(name) if _needs_match(rule) else None
            if rule.rule.denies:
                return name, _denial(self._expand(rule, found)), f"the rule at {rule.rule.where} denies it"
            made = self._rewrite(rule, name, found) if rule.rule.rewrites and found is not None else name
            if rule.rule.ends_if_openable:
                self._propose(rule, made)
                continue
            if made != name:
                name, self._firing = made, None
            if rule.rule.ends:
                self._tell(rule, "ends here")
                return name, None, ""
            self._go(rule, found)

    def _next(self, name: bytes) -> int | None:
        """Return the place of the next rule that would do something; None: none would."""
        firing = self._firing
        if firing is None:
            for at in range(self.at, min(self.at + _NEAR, len(self._program._rules))):
                if self._program.fires(at, name):
                    return at
            firing = self._firing = self._program.firing(name)
        next_ = bisect_left(firing, self.at)
        return firing[next_] if next_ < len(firing) else None

    def _go(self, rule: CompiledRule, found: "tuple[int, int, list[bytes]] | None") -> None:
        if rule.rule.restarts:
            self.at = self._program._begin_of[rule.source]
            self._tell(rule, "starts over")
        elif rule.rule.jumps:
            label = self._expand(rule, found)
            at = self._program._labels.get((rule.source, label))
            if at is None:
                raise _Failure(f'no label "{_shown(label)}", to which the rule at {rule.rule.where} jumps')
            self.at = at
            self._tell(rule, f'goes on at "{_shown(label)}"')

    def _rewrite(self, rule: CompiledRule, name: bytes, found: tuple[int, int, list[bytes]] | None) -> bytes:
        behind = 0
        while found is not None:
            begin, end, _ = found
            made = self._expand(rule, found)
            name, behind = name[:begin] + made + name[end:], begin + len(made)
            if len(name) > MAX_NAME_BYTES:
                raise _Failure(f"more than {MAX_NAME_BYTES} bytes by the rule at {rule.rule.where}")
            self._tell(rule, f'makes "{_shown(name)}"')
            if rule.rule.repeats:
                behind = 0
            elif not rule.rule.repeats_behind or behind >= len(name):
                break
            found = rule.matcher.search(name, behind)
            if found is not None:
                self._spend(1, rule)
        return name

    def _propose(self, rule: CompiledRule, name: bytes) -> None:
        if name not in self._candidates:  # what cannot be opened once cannot be a second time
            if len(self._candidates) == MAX_CANDIDATES:
                raise _Failure(f"more than {MAX_CANDIDATES} candidates by the rule at {rule.rule.where}")
            self._candidates.append(name)
        self._tell(rule, f'ends with "{_shown(name)}" if that can be opened')

    def _expand(self, rule: CompiledRule, found: "tuple[int, int, list[bytes]] | None") -> bytes:
        self._depends |= rule.replacement.asks_for_client
        return rule.replacement.expand(found[2] if found else (), self._client)

    def _is_for_client(self, rule: CompiledRule) -> bool:
        if rule.rule.for_v4 and rule.rule.for_v6:
            return True
        self._depends = True
        return rule.rule.for_v6 if self._client.is_v6 else rule.rule.for_v4

    def _spend(self, steps: int, rule: CompiledRule) -> None:
        self._left -= steps
        if self._left < 0:
            raise _Failure(f"more than {self._program._max_steps} steps, at last by the rule at {rule.rule.where}")

    def _tell(self, rule: CompiledRule, deed: str) -> None:
        if self._note is not None:
            self._note(rule.rule.where, deed)


def _needs_match(rule: CompiledRule) -> bool:
    return rule.rule.rewrites or not rule.replacement.is_plain


def _denial(text: bytes) -> str:
    """Return what an ERROR may say: a client chose some of it, perhaps."""
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in text)
    return shown[:_MAX_DENIAL_CHARS] or "Access violation"


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
