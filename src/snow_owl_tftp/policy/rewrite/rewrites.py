"""All rewriting rules of one configuration.

    settings, map file ──compile──► Rewrites ──apply(name, client)──► Rewritten: names to be looked for, or a denial

May know: settings and rules; the map file is read by `config`. Must not look for names.

Invariants:
- What a name becomes is remembered for the names asked for last (`_MAX_REMEMBERED`), as a boot storm asks for few,
  unless it depends on who asks; what was remembered goes with the configuration.
- Names are bytes: they leave as they came, where no rule says otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from snow_owl_tftp.config.rule_files import read_rule_file
from snow_owl_tftp.config.schema import RewriteSettings, Settings
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.policy.rewrite.compiled import CompiledRule, compile_rules
from snow_owl_tftp.policy.rewrite.expand import Client
from snow_owl_tftp.policy.rewrite.parse import parse_map
from snow_owl_tftp.policy.rewrite.program import Note, Program, RewriteOutcome
from snow_owl_tftp.policy.rewrite.rules import Rule, Source
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["Rewrites", "Rewritten"]

_MAX_REMEMBERED: Final = 1024
"""For each kind of request; at most some hundred bytes each, as `content.names.spellings_of` remembers."""


class Rewritten(NamedTuple):
    """What became of a name.

    Attributes:
        names: To be looked for in this order, the first that can be opened is meant; none: it is denied.
        denial: Text of the ERROR where none of them can be opened; None: then the last of them says why.
        why: For the operator.
        holds_for_all: Every client would be told the same.
    """

    names: tuple[str, ...]
    denial: str | None
    why: str
    holds_for_all: bool

    def refusal(self) -> RefusedError:
        """Return the denial as an error, a new one each time."""
        return RefusedError(ErrorCode.ACCESS_VIOLATION, self.denial or "Access violation", why=self.why)


class Rewrites:
    """Made once a configuration, and then never changed but for what it remembers."""

    def __init__(self, sources: Sequence[Source], max_steps: int) -> None:
        """Compile rules.

        Args:
            sources: In the order in which they are looked at.
            max_steps: A name that takes more is refused, 1 at least.

        Raises:
            ConfigError: A rule is none, or there are more than steps; one line for each.
        """
        compiled = compile_rules(sources)
        if len(compiled) > max_steps:
            raise ConfigError(
                f"rewrite_max_steps: {len(compiled)} rules, and only {max_steps} may be looked at; raise it"
            )
        reads, writes = ([item for item in compiled if _is_for(item, is_write)] for is_write in (False, True))
        program = Program(reads, max_steps)
        self._programs = {False: program, True: program if writes == reads else Program(writes, max_steps)}
        self._remembered: dict[bool, dict[str, Rewritten]] = {False: {}, True: {}}

    @classmethod
    def compile(cls, settings: Settings) -> "Rewrites | None":
        """Compile what settings say: first [[rewrite]], then the map file; may wait for its disk.

        Returns:
            None: no name is ever rewritten.

        Raises:
            ConfigError: The file cannot be read, or as for __init__.
        """
        own = tuple(_rule_of(rewrite, f"rewrite[{at}]") for at, rewrite in enumerate(settings.rewrite, 1))
        sources = [Source("", own)]
        if path := settings.rewrite_file:
            key = "rewrite_file"
            sources.append(parse_map(read_rule_file(path, key), f"{key}: {path}"))
        sources = [source for source in sources if source.rules]
        return cls(sources, settings.rewrite_max_steps) if sources else None

    @classmethod
    def of_map(cls, path: str | Path) -> "Rewrites":
        """Compile a map file alone.

        Raises:
            ConfigError: As for compile.
        """
        return cls([parse_map(read_rule_file(path), str(path))], Settings().rewrite_max_steps)

    def apply(self, name: str, host: str, *, is_write: bool, note: Note | None = None) -> Rewritten:
        """Rewrite a name.

        Args:
            name: As the request spells it, other bytes than UTF-8 as lone surrogates.
            host: The client's address.
            is_write: It is to be written.
            note: Told each step that does something; then nothing is taken from memory.
        """
        remembered = self._remembered[is_write]
        if note is None and (known := remembered.get(name)) is not None:
            return known
        outcome = self._programs[is_write].run(name.encode("utf-8", "surrogateescape"), Client(host), note)
        rewritten = _rewritten(outcome)
        if rewritten.holds_for_all:
            if len(remembered) >= _MAX_REMEMBERED:
                # All at once: who floods with new names costs the good ones a pass of the rules each, no more.
                remembered.clear()
            remembered[name] = rewritten
        return rewritten


def _rewritten(outcome: RewriteOutcome) -> Rewritten:
    names = tuple(name.decode("utf-8", "surrogateescape") for name in dict.fromkeys(outcome.names))
    return Rewritten(names, outcome.denial, outcome.why, not outcome.depends_on_client)


def _is_for(item: CompiledRule | tuple[int, bytes], is_write: bool) -> bool:
    if not isinstance(item, CompiledRule):
        return True
    return item.rule.for_writes if is_write else item.rule.for_reads


def _rule_of(settings: RewriteSettings, where: str) -> Rule:
    return Rule(
        where,
        settings.pattern.encode("utf-8", "surrogateescape"),
        settings.replacement.encode("utf-8", "surrogateescape"),
        rewrites=True,
        repeats_behind=settings.every,
        ends=settings.last,
        ignore_case=settings.ignore_case,
        is_strict=True,
        for_reads=settings.requests != "write",
        for_writes=settings.requests != "read",
    )
