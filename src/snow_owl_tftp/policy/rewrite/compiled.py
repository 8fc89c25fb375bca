"""Rules made ready to run: expressions compiled, labels found, in the order in which they are looked at.

    sources ──compile──► CompiledRule, …

May know: expressions and replacements. Must not run them.

Invariant: every faulty rule is named with its line or its place in the settings, not only the first.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.ere import parse_ere
from snow_owl_tftp.policy.rewrite.expand import Client, Replacement
from snow_owl_tftp.policy.rewrite.matching import Matcher
from snow_owl_tftp.policy.rewrite.nodes import Node
from snow_owl_tftp.policy.rewrite.rules import Rule, Source

__all__ = ["CompiledRule", "compile_rules"]

_NOBODY = Client("0.0.0.0")


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule, or a label.

    Attributes:
        rule: As written.
        source: The number of its source: restarts and jumps stay in it.
        node: Its expression.
        matcher: The same, compiled.
        replacement: Compiled.
    """

    rule: Rule
    source: int
    node: Node
    matcher: Matcher
    replacement: Replacement


def compile_rules(sources: Iterable[Source]) -> list[CompiledRule | tuple[int, bytes]]:
    """Compile rules.

    Args:
        sources: In the order in which they are looked at.

    Returns:
        Rules in their order; of labels their source and their name.

    Raises:
        ConfigError: An expression is none or too large, or a label does not exist; one line of text for each.
    """
    compiled: list[CompiledRule | tuple[int, bytes]] = []
    problems = []
    for number, source in enumerate(sources):
        labels = {rule.label for rule in source.rules if rule.label is not None}
        for rule in source.rules:
            if rule.label is not None:
                compiled.append((number, rule.label))
                continue
            try:
                compiled.append(_compile(rule, number, labels))
            except ConfigError as error:
                problems.append(": ".join(filter(None, (source.name, rule.where, str(error)))))
    if problems:
        raise ConfigError("\n".join(problems))
    return compiled


def _compile(rule: Rule, source: int, labels: set[bytes]) -> CompiledRule:
    node, _ = parse_ere(rule.pattern, ignore_case=rule.ignore_case, is_strict=rule.is_strict)
    replacement = Replacement(rule.replacement)
    if rule.jumps and replacement.is_plain and (name := replacement.expand((), _NOBODY)) not in labels:
        raise ConfigError(f'there is no label "{name.decode("latin-1")}"; add a line ":{name.decode("latin-1")}"')
    try:
        return CompiledRule(rule, source, node, Matcher(node, replacement.groups), replacement)
    except RecursionError as error:
        raise ConfigError("the expression is nested too deep; write it as several rules") from error
