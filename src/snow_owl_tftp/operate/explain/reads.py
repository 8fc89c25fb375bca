"""An RRQ, explained: a FileDecider decides about it, and what it did on the way is told.

    FileDecider.decide ─► Verdict ──────────────────────────┐
         └─ Walk, what each name may mean ─► rules, roots ──┴─► Explanation

May know: the server's parts that decide. Must not call a handler, or render what nobody wants to see.
"""

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.overlay import Overlay
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.operate.explain.explanation import Explanation, MeaningTried, Question, TemplateUsed
from snow_owl_tftp.operate.explain.rules_told import said_of, tell_rules, text_of, try_roots
from snow_owl_tftp.operate.explain.walk import Step, Walk
from snow_owl_tftp.operate.handlers import HandlerNames
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.roots import open_overlay
from snow_owl_tftp.server.templates import Asked as AskedOfTemplates
from snow_owl_tftp.server.verdict import Accepted, IncomingRequest, Verdict

__all__ = ["decide_read", "tell_accepted", "tell_meanings"]

_INDEX_S: Final = 60.0
"""For the names below the root: a server serves meanwhile, whoever wants to know waits."""


class _Handlers:
    """Stands where a server has handlers, and remembers which one it would ask."""

    def __init__(self, settings: Settings) -> None:
        self._names = HandlerNames(settings)
        self._entries = settings.handlers
        self.asked = ""

    def answer(
        self,
        incoming: IncomingRequest,
        request: Request,
        paths: tuple[bytes, ...],
        otherwise: Callable[[], Verdict | Awaitable[Verdict]],
    ) -> None:
        """See Plugged.answer."""
        number = self._names.find(paths)
        self.asked = "" if number is None else self._entries[number].handler


async def decide_read(
    settings: Settings, generation: Generation, incoming: IncomingRequest, asked: Question, told: Explanation
) -> tuple[Verdict, list[Step]]:
    """Have a request decided as the server would; what cannot be read again from the verdict is told at once.

    Returns:
        The verdict, and the way through the meanings of the name.
    """
    walks: list[Walk] = []

    def begin(incoming: IncomingRequest, request: Request, generation: Generation) -> Walk:
        walks.append(Walk(incoming, request, generation))
        return walks[-1]

    def note(level: str, event: str, fields: Mapping[str, object]) -> None:
        if level != "info":
            told.notes.append(", ".join([event, *(str(value) for value in fields.values())]))

    handlers = _Handlers(settings) if settings.handlers else None
    decider = FileDecider(settings, generation=generation)
    try:
        decider.meanings, decider.plugged = begin, handlers
        decider.other_names.index.listen(note)
        decider.other_names.index.settle(_INDEX_S)
        if asked.after:
            decider.other_names.folders.note(asked.client, os.fsencode(asked.after))
        verdict = decider.decide(incoming)
        verdict = await verdict if inspect.isawaitable(verdict) else verdict
    finally:
        decider.close()
    told.handler = handlers.asked if handlers is not None else ""
    return verdict, walks[-1].steps if walks else []


def tell_meanings(
    generation: Generation,
    incoming: IncomingRequest,
    request: Request,
    steps: list[Step],
    asked: Question,
    told: Explanation,
) -> None:
    """Tell what the name meant, and what rules, roots and templates said of it."""
    overlay = open_overlay(generation)
    try:
        for step in steps:
            told.meanings.append(_told_of(generation, incoming, step, overlay))
            _tell_template(generation, incoming, request, step, asked, told)
    finally:
        if overlay is not None:
            overlay.close()
    if steps:
        told.rule = _deciding(told.meanings).rule
        told.machine = generation.machines.find(incoming, steps[-1].paths)
    names = generation.names
    if names.siblings is not None and not asked.after and any(map(names.is_sibling, _spelled(steps))):
        told.notes.append("a client that has read a file may get the one beside it: name that file with --after")


def _deciding(meanings: list[MeaningTried]) -> MeaningTried:
    """The meaning of which the answer is: where nothing is found, what else a name may mean is nobody's business."""
    if not meanings[-1].result:
        return meanings[-1]
    return [tried for tried in meanings if tried.way in ("sent", "rewritten")][-1]


def _spelled(steps: list[Step]) -> list[bytes]:
    return [step.paths[-1] for step in steps if step.paths]


def _told_of(generation: Generation, incoming: IncomingRequest, step: Step, overlay: Overlay | None) -> MeaningTried:
    tried = MeaningTried(way=step.way)
    tell_rules(generation, incoming, step.paths, tried)
    decision = step.decision
    if decision is not None:
        tried.names, tried.rule = [text_of(path) for path in decision.paths], decision.rule
        is_made = generation.templates is not None and generation.templates.find(decision.paths) is not None
        if decision.roots and overlay is not None and not is_made:
            tried.roots = list(try_roots(overlay, generation, incoming, decision))
    if step.refusal is not None:
        tried.result = said_of(step.refusal)
    return tried


def _tell_template(
    generation: Generation, incoming: IncomingRequest, request: Request, step: Step, asked: Question, told: Explanation
) -> None:
    templates, decision = generation.templates, step.decision
    found = None if templates is None or decision is None else templates.find(decision.paths)
    if templates is None or decision is None or found is None:
        return
    entry, captured, path = found
    used = told.template = TemplateUsed(entry.template.name, dict(captured.variables))
    if asked.shows:
        limits = decision.limits or generation.limits
        wanted = AskedOfTemplates(incoming, request, decision.paths, generation.machines, limits).wanted(path)
        with suppress(RefusedError):  # told as the answer
            made = templates.render(wanted)
            used.output = None if made is None else made.data.decode()


def tell_accepted(verdict: Accepted, told: Explanation) -> None:
    """Tell what is sent, and give it up."""
    if told.template is None:
        with suppress(OSError):  # no /proc
            told.file = str(Path(f"/proc/self/fd/{verdict.plan.fd}").readlink())
    told.size_bytes = verdict.plan.context.size_bytes
    told.for_all = verdict.flow is not None and not told.handler
    verdict.discard()
