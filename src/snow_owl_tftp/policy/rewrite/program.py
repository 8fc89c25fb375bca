"""What a name becomes: rules one after the other, as tftpd-hpa runs them, in time that is bounded for every name.

    name ─► which rules match (one pass of RE2 for all) ─► the first from here on ─► its deed ─► a new name? once more
                                                                                  └► end, deny, or from there on

May know: compiled rules. Must not open anything: a rule that asks whether a file exists (`E`) makes a candidate, and
whoever has files takes the first of them that can be opened.

Invariants:
- A rule that is looked at is a step, and so is every further replacement of one rule; there are `max_steps` at most.
- What rules do to one name is at most MAX_WORK, so it takes 2 ms at most, whatever the rules and the name are.
- No name grows beyond MAX_NAME_BYTES, nor are there more than MAX_CANDIDATES.
- Rules that match neither before nor after a replacement cost nothing of their own.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from snow_owl_tftp.policy.rewrite.compiled import CompiledRule
from snow_owl_tftp.policy.rewrite.expand import Client
from snow_owl_tftp.policy.rewrite.matching import Matches

__all__ = ["FAILURE", "MAX_CANDIDATES", "MAX_NAME_BYTES", "MAX_WORK", "Program", "RewriteOutcome"]

MAX_NAME_BYTES: Final = 1024
"""Of what rules make of a name: twice what a request holds. It bounds what a rule costs that makes its name longer."""
MAX_CANDIDATES: Final = 64
"""Each may be looked for on a disk."""
MAX_WORK: Final = 3_000
"""Of half a microsecond each (see `effort`), so that rules and templates have something left of 2 ms. 200 rules that
all replace a byte of a name of 500 take less, as do 150 that all capture it whole."""
_NEAR: Final = 2
"""Where rules change a name one after the other, the next is found at once."""
_PASSES: Final = 3
"""Of all rules for one name, each of up to 0.4 ms; behind them rules are looked at one by one, at 1 µs each."""
_WORK_OF_A_LOOK: Final = 2
"""Of a rule that does something, or may be looked at a second time."""
FAILURE: Final = "Remap table failure"
"""What tftpd-hpa says when its rules do not come to an end."""
_MAX_DENIAL_CHARS: Final = 200

Found = tuple[int, int, list[bytes]]
"""See Matcher.search."""
Note = Callable[[str, str], None]
"""Told where a rule is written and what it did, each time that one does something."""


class RewriteOutcome(NamedTuple):
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
        # Those that some names make slow are not looked for together with others, but when it is their turn.
        self._slow = {at for at, rule in enumerate(self._rules) if rule.matcher.is_slow}
        usual = [at for at in range(len(self._rules)) if at not in self._slow]
        self._matches = Matches((self._rules[at].node for at in usual), usual)
        self._max_steps = max_steps

    def run(self, name: bytes, client: Client, note: Note | None = None) -> RewriteOutcome:
        """Run it.

        Args:
            name: As the request spells it.
            client: Who asks.
            note: Told each step that does something; None: nobody wants to know.
        """
        return _Run(self, client, note).run(name)

    def firing(self, name: bytes) -> list[int]:
        """Return the places of all rules that would do something with a name, in their order, and all slow ones."""
        found = self._matches.of(name)
        if found is None:
            usual = (at for at in range(len(self._rules)) if at not in self._slow)
            found = {at for at in usual if self._rules[at].matcher.search(name) is not None}
        return sorted((found - self._inverse) | (self._inverse - found) | self._slow)


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
        self._work_left = MAX_WORK
        self._candidates: list[bytes] = []
        self._depends = False
        self._firing: list[int] | None = None  # None: nobody has looked yet, of the name as it is now
        self._passes_left = _PASSES
        self._near = 0  # the first name is looked for in a pass
        self._has_gone_back = False
        self.at = 0

    def run(self, name: bytes) -> RewriteOutcome:
        try:
            name, denial, why = self._to_the_end(name)
        except _Failure as failure:
            return self._outcome((), FAILURE, str(failure))
        return self._outcome((name,) if denial is None else (), denial, why)

    def _outcome(self, last: tuple[bytes, ...], denial: str | None, why: str) -> RewriteOutcome:
        return RewriteOutcome((*self._candidates, *last), denial, why, self._depends)

    def _to_the_end(self, name: bytes) -> tuple[bytes, str | None, str]:
        rules = self._program._rules
        if not rules:
            return name, None, ""
        while True:
            next_, found = self._next(name)
            until = len(rules) - 1 if next_ is None else next_
            self._spend(until + 1 - self.at, rules[min(until, len(rules) - 1)])
            if next_ is None:
                return name, None, ""
            self.at = until + 1
            rule = rules[until]
            self._work(_WORK_OF_A_LOOK, rule)
            if not self._is_for_client(rule):
                continue
            if not rule.rule.is_inverse and _needs_match(rule):
                found = found or rule.matcher.search(name)
                if not rule.rule.rewrites:  # those that do pay for each replacement
                    self._work(rule.matcher.work(len(name)), rule)
            if rule.rule.denies:
                return name, _denial(self._expand(rule, found)), f"the rule at {rule.rule.where} denies it"
            made = self._rewrite(rule, name, found) if rule.rule.rewrites and found is not None else name
            if rule.rule.ends_if_openable:
                self._propose(rule, made)
                continue
            if made != name:
                name, self._firing, self._near = made, None, _NEAR
            if rule.rule.ends:
                self._tell(rule, "ends here")
                return name, None, ""
            self._go(rule, found)

    def _next(self, name: bytes) -> tuple[int | None, Found | None]:
        """Return the place of the next rule that would do something, and what it found, if it has looked.

        None: none would.
        """
        program, firing = self._program, self._firing
        if firing is None:
            near = self._near if self._passes_left else len(program._rules)
            for at in range(self.at, min(self.at + near, len(program._rules))):
                fires, found = self._look(at, name)
                if fires:
                    return at, found
            if not self._passes_left:
                return None, None
            self._passes_left -= 1
            firing = self._firing = program.firing(name)
        for place in range(bisect_left(firing, self.at), len(firing)):
            if (at := firing[place]) not in program._slow:
                return at, None
            fires, found = self._look(at, name)
            if fires:
                return at, found
        return None, None

    def _look(self, at: int, name: bytes) -> tuple[bool, Found | None]:
        """Look whether one rule would do something."""
        rule = self._program._rules[at]
        matcher = rule.matcher
        if self._has_gone_back or matcher.is_slow:
            triggers = len(name) - len(name.translate(None, matcher.triggers)) if matcher.triggers else 0
            self._work(_WORK_OF_A_LOOK + matcher.work_of_triggers(triggers, len(name)), rule)
        found = matcher.search(name)
        return (found is None) is (at in self._program._inverse), found

    def _go(self, rule: CompiledRule, found: Found | None) -> None:
        if rule.rule.restarts:
            self.at, self._has_gone_back = self._program._begin_of[rule.source], True
            self._tell(rule, "starts over")
        elif rule.rule.jumps:
            self._work(rule.replacement.work, rule)
            label = self._expand(rule, found)
            at = self._program._labels.get((rule.source, label))
            if at is None:
                raise _Failure(f'no label "{_shown(label)}", to which the rule at {rule.rule.where} jumps')
            self.at, self._has_gone_back = at, self._has_gone_back or at < self.at
            self._tell(rule, 'goes on at "%s"', label)

    def _rewrite(self, rule: CompiledRule, name: bytes, found: Found | None) -> bytes:
        behind = 0
        while found is not None:
            begin, end, _ = found
            self._work(rule.matcher.work(end - behind) + rule.replacement.work, rule)
            made = self._expand(rule, found)
            name, behind = name[:begin] + made + name[end:], begin + len(made)
            if len(name) > MAX_NAME_BYTES:
                raise _Failure(f"more than {MAX_NAME_BYTES} bytes by the rule at {rule.rule.where}")
            self._tell(rule, 'makes "%s"', name)
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
        self._tell(rule, 'ends with "%s" if that can be opened', name)

    def _expand(self, rule: CompiledRule, found: Found | None) -> bytes:
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

    def _work(self, work: int, rule: CompiledRule) -> None:
        self._work_left -= work
        if self._work_left < 0:
            raise _Failure(f"too much work for one name, at last by the rule at {rule.rule.where}")

    def _tell(self, rule: CompiledRule, deed: str, name: bytes | None = None) -> None:
        if self._note is not None:  # to spell a name costs more than to rewrite it
            self._note(rule.rule.where, deed if name is None else deed % _shown(name))


def _needs_match(rule: CompiledRule) -> bool:
    return rule.rule.rewrites or not rule.replacement.is_plain


def _denial(text: bytes) -> str:
    """Return what an ERROR may say: a client chose some of it, perhaps."""
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in text)
    return shown[:_MAX_DENIAL_CHARS] or "Access violation"


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
