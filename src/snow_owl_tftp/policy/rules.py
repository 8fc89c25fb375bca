"""The rules: may this path be read, may it be written, and under which conditions.

May know: settings and text. Must not open anything, and must not know who asks by anything but its
arguments.

Invariant: what is not allowed in so many words is refused. A server that takes uploads nobody meant
to allow hands its boot images to whoever can send a datagram.
"""

from collections.abc import Sequence
from copy import copy
from typing import Final, Literal, Self

from snow_owl_tftp.config.rules import Rule
from snow_owl_tftp.config.schema import LimitsSettings, WriteSettings
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.policy.asker import Asker, Listening
from snow_owl_tftp.policy.decision import DeniedError, ReadDecision, RootPath, WriteDecision
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.policy.patterns import PathPatterns
from snow_owl_tftp.policy.rule import CompiledRule, Question
from snow_owl_tftp.policy.ruleset import RuleSet
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import Request

__all__ = ["Policy", "is_hidden"]

_OnExisting = Literal["refuse", "replace", "version", "replace_writable"]
_NO_READ: Final = "Reading this name is not allowed"
_NO_WRITE: Final = "Writing this name is not allowed"
_WHY_NO_ROOT: Final = "of none of its roots all variables are known"
_WHY_HIDDEN: Final = 'a part of the name begins with a dot; hidden = "serve" would allow it'
_WHY_HIDDEN_BY_RULE: Final = "a part of the name begins with a dot"


class Policy:
    """The rules of one configuration; made anew when it is reloaded.

    Attributes:
        rules: [[rules]], compiled; None: there are none, and everything holds for everybody.
    """

    def __init__(
        self,
        write: WriteSettings,
        hidden: Literal["refuse", "serve"] = "refuse",
        machines: Machines = NO_MACHINES,
        *,
        rules: Sequence[Rule] = (),
        limits: OptionLimits | None = None,
        per_client: LimitsSettings | None = None,
        listening: Listening | None = None,
    ) -> None:
        """Compile the rules.

        Args:
            write: Which uploads are taken.
            hidden: What to do about names of which a part begins with a dot.
            machines: Who is known.
            rules: Who gets what.
            limits: What may be negotiated where no rule says anything of it; None: what the RFCs permit.
            per_client: How much each client may have, likewise; None: what is usual.
            listening: Where the server listens, for rules that ask.

        Raises:
            ConfigError: A pattern is none.
        """
        self.rules = RuleSet(rules, limits or OptionLimits(), per_client) if rules else None
        self._listening = listening or Listening()
        try:
            self._writable = PathPatterns(write.allowed_patterns)
        except ConfigError as error:
            raise ConfigError(f"write_config.allowed_patterns: {error}") from error
        self._machines = machines
        self._write = write
        self._refuses_hidden = hidden == "refuse"
        # `allow_overwrite = true` is the older spelling of `on_existing = "replace"`.
        refuses = write.on_existing == "refuse"
        self._on_existing: _OnExisting = "replace" if refuses and write.allow_overwrite else write.on_existing

    def decide_read(self, asker: Asker, request: Request, paths: tuple[bytes, ...]) -> ReadDecision:
        """Decide about an RRQ.

        Args:
            asker: Who asks.
            request: For what.
            paths: The file name in its spellings, normalised, relative to the root; the one that was sent first.

        Raises:
            RefusedError: FILE_NOT_FOUND for a hidden name, as if it were not there, for that is what hiding means.
        """
        # The spelling as sent stands for all: what may be cut off its end hides no part, and bares none.
        hides = is_hidden(paths[0])
        if hides and self._refuses_hidden and (self.rules is None or self.rules.shows_hidden is None):
            raise RefusedError(ErrorCode.FILE_NOT_FOUND, "File not found", why=_WHY_HIDDEN)
        if self.rules is None:
            return ReadDecision(paths)
        question = self.question(asker, paths)
        rule, counting = self._rule_for(self.rules, question, paths)
        # Of both spellings, also where only one counts: for others both may, or the other one.
        depends = self.rules.depends(asker, paths[0], rule)
        if len(paths) > 1 and not depends:
            depends = self.rules.depends(asker, paths[-1], rule)
        paths = counting
        if rule is not None and rule.rule.allow is not None:
            self._check_denied(rule, _NO_READ)
            if not rule.allows("read"):
                raise DeniedError(ErrorCode.ACCESS_VIOLATION, _NO_READ, rule.number)
        if hides:
            self._check_hidden(rule, ErrorCode.FILE_NOT_FOUND, "File not found")
        if rule is None:
            return ReadDecision(paths, depends, client_limits=self.rules.usual)
        roots = rule.roots_for(question) if rule.roots else ()
        if rule.roots and not roots:
            raise DeniedError(ErrorCode.FILE_NOT_FOUND, "File not found", rule.number, why=_WHY_NO_ROOT)
        return ReadDecision(paths, depends, roots, rule.limits, rule.rule.require, rule.number, rule.client_limits)

    def unclassed(self) -> Self:
        """Return the same rules for a server that repeats answers for all alike, and not for a class."""
        other = copy(self)
        if self.rules is not None:
            other.rules = copy(self.rules)
            other.rules.is_classed = False
        return other

    def question(self, asker: Asker, paths: tuple[bytes, ...]) -> Question:
        """Return what rules look at."""
        asks = self.rules is not None and self.rules.needs_machine
        return Question(asker, self._listening, self._machines if asks else NO_MACHINES, paths)

    def _rule_for(
        self, rules: RuleSet, question: Question, paths: tuple[bytes, ...]
    ) -> tuple[CompiledRule | None, tuple[bytes, ...]]:
        """Where a name and what is meant by it fall under different rules, only what is meant counts: nobody escapes a
        rule by what he hangs behind a name.
        """
        rule = rules.first_that_fits(question, paths[-1])
        if len(paths) > 1 and any(rules.first_that_fits(question, path) is not rule for path in paths[:-1]):
            paths = paths[-1:]
        return rule, paths

    def _check_denied(self, rule: CompiledRule, text: str) -> None:
        if rule.rule.allow == "ignore":
            raise DeniedError(ErrorCode.ACCESS_VIOLATION, text, rule.number, is_silent=True, why="ignored")
        if rule.rule.allow == ():
            raise DeniedError(ErrorCode.ACCESS_VIOLATION, text, rule.number)

    def _check_hidden(self, rule: CompiledRule | None, code: int, text: str) -> None:
        """Refuse a hidden name, unless this rule, or without its word the settings, will have it there."""
        if rule is not None and rule.rule.hidden is not None:
            if not rule.rule.hidden:
                raise DeniedError(code, text, rule.number, why=_WHY_HIDDEN_BY_RULE)
        elif self._refuses_hidden:
            raise RefusedError(code, text, why=_WHY_HIDDEN)

    def decide_write(self, asker: Asker, request: Request, path: bytes) -> WriteDecision:
        """Decide about a WRQ.

        Args:
            asker: Who asks.
            request: For what.
            path: The file name, normalised, relative to the root.

        Raises:
            RefusedError: ACCESS_VIOLATION: writing is off, no pattern allows this path, or it is hidden.
        """
        if self.rules is None:
            self._check_write(path)
            return self._write_decision(path, self._on_existing)
        question = self.question(asker, (path,))
        rule = self.rules.first_that_fits(question, path)
        if rule is not None:
            self._check_denied(rule, _NO_WRITE)
        self._check_write(path, rule)
        if rule is None:
            return self._write_decision(path, self._on_existing)
        if rule.rule.allow is not None and not rule.allows("write"):
            raise DeniedError(ErrorCode.ACCESS_VIOLATION, _NO_WRITE, rule.number)
        roots = rule.roots_for(question)
        if rule.roots and not roots:
            raise DeniedError(ErrorCode.ACCESS_VIOLATION, _NO_WRITE, rule.number, why=_WHY_NO_ROOT)
        return self._write_decision(path, self._on_existing_by(rule), roots[0] if roots else None, rule)

    def _on_existing_by(self, rule: CompiledRule) -> _OnExisting:
        if rule.rule.allow is None:
            return self._on_existing
        if not rule.allows("overwrite"):
            return "refuse"
        return "replace" if self._on_existing == "refuse" else self._on_existing

    def _write_decision(
        self, path: bytes, on_existing: _OnExisting, root: RootPath | None = None, rule: CompiledRule | None = None
    ) -> WriteDecision:
        write, rules = self._write, self.rules
        client_limits = rule.client_limits if rule is not None else rules.usual if rules is not None else None
        return WriteDecision(
            path,
            on_existing,
            write.create_directories,
            write.file_mode_bits,
            write.fsync,
            root,
            None if rule is None else rule.limits,
            0 if rule is None else rule.number,
            client_limits,
        )

    def is_writable(self, path: bytes) -> bool:
        """Tell whether anybody may write a path, normalised as for `decide_write`."""
        rule = None if self.rules is None else self.rules.shows_hidden
        try:
            self._check_write(path, rule)
        except RefusedError:
            return False
        return True

    def _check_write(self, path: bytes, rule: CompiledRule | None = None) -> None:
        if not self._write.enabled:
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing is not allowed")
        # A pattern sees text: `open/../closed/x` would match `open/**` and be written elsewhere.
        if path == b"." or b".." in path.split(b"/") or not self._writable.match(path):
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, _NO_WRITE)
        if is_hidden(path):
            self._check_hidden(rule, ErrorCode.ACCESS_VIOLATION, _NO_WRITE)


def is_hidden(path: bytes) -> bool:
    """Tell whether any part of a path begins with a dot; `..` leads somewhere and hides nothing."""
    # First what is quick to see: hardly any path has such a part.
    return (path.startswith(b".") or b"/." in path) and any(
        part.startswith(b".") and part not in (b".", b"..") for part in path.split(b"/")
    )
