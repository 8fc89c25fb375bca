"""An explanation as lines for people, and as a tree for programs.

May know: what was explained. Must not decide anything.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import msgspec

from snow_owl_tftp.operate.explain import Explanation, MeaningTried, Question
from snow_owl_tftp.policy.machines import Machine

__all__ = ["lines_of", "tree_of"]

_WAYS: Final = {
    "sent": "",
    "rewritten": " (rewritten)",
    "spelling": " (another spelling)",
    "case": " (in another case)",
    "sibling": " (beside the client's last file)",
}
_Line = tuple[str, str]


def tree_of(told: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON has it."""
    tree: dict[str, Any] = msgspec.to_builtins(told)
    return tree


def lines_of(asked: Question, told: Explanation) -> Iterator[_Line]:
    """Yield labels and texts, without anything that could confuse a terminal."""
    what = "write" if asked.is_write else "read"
    host, port = asked.listen
    where = f"port {port}" if host in ("0.0.0.0", "::") else f"{host}, port {port}"
    yield "client", f"{asked.client} asks {where}, to {what} {_shown(asked.name)}"
    if told.machine is not None or told.seeks_machine:
        yield "machine", "not known" if told.machine is None else _machine(told.machine)
    for step in told.rewriting:
        yield "rewrite", f"{_shown(step.where)}: {_shown(step.deed)}"
    for tried in told.meanings:
        yield from _meaning(tried)
        if tried.result and (tried is not told.meanings[-1] or tried.result != _refusal(told)):
            yield "but", _shown(tried.result)
    if told.handler:
        yield "handler", f"{told.handler} is asked; below is what happens where it returns None"
    if told.template is not None:
        variables = "".join(f" {name}={value}" for name, value in told.template.variables.items())
        yield "template", _shown(told.template.template + variables)
    if _is_sent(told):
        yield from _served(told)
        yield from _limits(told.limits)
    for note in told.notes:
        yield "note", _shown(note)
    yield "answer", _answer(told)
    if told.is_optional:
        yield "", "an optional file, which is missing (names.optional)"
    if told.why:
        yield "why", _shown(told.why)
    if told.template is not None and told.template.output is not None:
        yield from (("show", _shown(line)) for line in told.template.output.splitlines())


def _machine(machine: Machine) -> str:
    known = [machine.name, machine.mac, machine.serial, machine.group]
    said = ", ".join(_shown(text) for text in known if text) or "without a name and a MAC"
    if machine.known_by == "name":
        return f"{said} (claimed by the name that it asks for)"
    return f"{said} (known by its address, from {machine.source})"


def _is_sent(told: Explanation) -> bool:
    """Whether a transfer begins, where no handler has a say."""
    return told.answer in ("OACK", "no options")


def _answer(told: Explanation) -> str:
    answer = "served" if _is_sent(told) else told.answer
    return f"the handler's; without one: {answer}" if told.handler else answer


def _refusal(told: Explanation) -> str:
    """As the result of a meaning says it, of which the answer is."""
    if told.meanings and told.answer == "silence":
        return told.meanings[-1].result
    return ": ".join(filter(None, (told.answer.partition(": ")[2] or told.answer, told.why)))


def _meaning(tried: MeaningTried) -> Iterator[_Line]:
    for name in tried.names:
        yield "name", _shown(name) + _WAYS[tried.way]
    for key, alike in groupby(tried.passed, lambda one: one.unmet):
        numbers = [one.rule for one in alike]
        if len(numbers) == 1:
            yield "rule", f"{numbers[0]} does not fit: {key}"
        else:
            yield "rule", f"{numbers[0]} to {numbers[-1]} do not fit: {key}"
    if tried.rule or tried.passed:
        yield "rule", f"{tried.rule} decides" if tried.rule else "none decides"
    for one in tried.roots:
        yield "root", f"{_shown(one.root)}: {_shown(one.result)}"


def _served(told: Explanation) -> Iterator[_Line]:
    size = "" if told.size_bytes is None else f"{told.size_bytes} bytes"
    if told.file:
        yield "file", _shown(told.file) + (f" ({size})" if size else "")
    elif size:
        yield "made", size
    granted = " ".join(f"{name}={value}" for name, value in told.options.items())
    yield "options", _shown(granted) if granted else "none"


def _limits(limits: dict[str, int]) -> Iterator[_Line]:
    """A line for whom they hold for."""
    of_client = {key: value for key, value in limits.items() if key.endswith("_per_client") or key.startswith("rules[")}
    of_network = {key: value for key, value in limits.items() if key.endswith("_per_network")}
    of_all = {key: value for key, value in limits.items() if key not in of_client and key not in of_network}
    for few in (of_client, of_network, of_all):
        if few:
            yield "limits", " ".join(f"{key.removeprefix('limits.')}={value}" for key, value in few.items())


def _shown(text: str) -> str:
    """Without what could confuse a terminal."""
    return "".join(
        one if one.isprintable() and not "\ud800" <= one <= "\udfff" else one.encode("unicode_escape").decode()
        for one in text
    )
