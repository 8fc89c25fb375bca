"""What the server would answer to one request, and why: asked of the code that answers it.

    settings, who asks for what ─► names ─► rule ─► roots, one by one ─► file ─► options ─► Explanation

May know: the server's parts that decide. Must not start an engine, and must not change anything: it makes no file and
sweeps no directory.

Invariant: what is said to be the answer is the verdict of `FileDecider`, or of what an upload begins with; the steps
before it are asked of the same objects.
"""

import asyncio
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.names import normalise_name, spellings_of
from snow_owl_tftp.content.overlay import Overlay
from snow_owl_tftp.content.source import NotHere
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.errors import BadPacket, ConfigError, RefusedError
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.policy.decision import ReadDecision, RootPath, WriteDecision
from snow_owl_tftp.policy.machines import NO_MACHINES, Machine, Machines
from snow_owl_tftp.policy.machines.machine import Client
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.options import Negotiated, negotiate
from snow_owl_tftp.protocol.packets import Option, Request, build_request, parse_request_untrusted
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.roots import open_overlay, plain_paths
from snow_owl_tftp.server.upload_roots import open_place
from snow_owl_tftp.server.verdict import Accepted, Verdict

__all__ = ["Asked", "Explanation", "RootTried", "RulePassed", "explain"]

_TRANSFER_ID: Final = 0


class Asked(Struct, frozen=True):
    """One request.

    Attributes:
        client: Its address.
        listen: Ours that is asked, and its port.
        name: As the client sends it.
        is_write: WRQ, not RRQ.
        options: Likewise as sent.
        mac: Of the machine, taken for proved; None: as the server would find it.
    """

    client: str
    listen: tuple[str, int]
    name: str
    is_write: bool = False
    options: tuple[Option, ...] = ()
    mac: str | None = None


class RulePassed(Struct, frozen=True):
    """A rule that does not fit, and the key of the condition that does not hold."""

    rule: int
    unmet: str


class RootTried(Struct, frozen=True):
    """A root in which the name was looked for, and what came of it."""

    root: str
    result: str


class Explanation(Struct):
    """What the server would do.

    Attributes:
        is_served: It would become a transfer.
        answer: In a few words.
        error: Code of the ERROR; None: there is none.
        why: What the log would say beside it.
        machine: Who asks; None: nobody that is known.
        names: Paths that are looked for.
        passed: Rules before the one that decides.
        rule: That one; 0: none.
        roots: Those that were looked through.
        file: The real path of what is read; of an upload the path that it would get.
        size_bytes: Of a file that is read; None: it is not known.
        options: Granted.
        for_all: The engine may give the same answer to everybody.
    """

    is_served: bool = False
    answer: str = ""
    error: int | None = None
    why: str = ""
    machine: Machine | None = None
    names: list[str] = []
    passed: list[RulePassed] = []
    rule: int = 0
    roots: list[RootTried] = []
    file: str = ""
    size_bytes: int | None = None
    options: dict[str, str] = {}
    for_all: bool = False


class _Request(Struct, frozen=True):
    """Has the shape of the engine's Request."""

    peer: tuple[str, int]
    datagram: bytes
    transfer_id: int = _TRANSFER_ID
    local_address: str | None = None
    endpoint: int = 0


class _Assumed:
    """The machine whose MAC was said, whoever else knows it."""

    def __init__(self, mac: str, others: Machines) -> None:
        self._mac = mac.lower().replace("-", ":")
        self._others = others

    def find(self, asker: Client, paths: tuple[bytes, ...] = ()) -> Machine | None:
        """See Machines.find."""
        known = self._others.find(asker, paths)
        if known is not None and known.mac == self._mac:
            return known
        return Machine(address=asker.peer[0], mac=self._mac)


def explain(settings: Settings, asked: Asked, machines: Machines = NO_MACHINES) -> Explanation:
    """Decide about a request as the server would.

    Args:
        settings: All of them.
        asked: The request.
        machines: Who is known.

    Raises:
        ConfigError: The settings are none that a server starts with, or the request is none that can be sent.
    """
    if asked.mac is not None:
        machines = _Assumed(asked.mac, machines)
    generation = Generation.of(settings, Listening((asked.listen,)), machines)
    kind = Opcode.WRQ if asked.is_write else Opcode.RRQ
    try:
        datagram = build_request(kind, asked.name, options=asked.options)
        request = parse_request_untrusted(datagram)
    except (ValueError, BadPacket) as error:
        raise ConfigError(f"no client can send this: {error}") from error
    incoming = _Request((asked.client, 0), datagram)
    told = Explanation()
    try:
        if asked.is_write:
            _explain_write(settings, generation, incoming, request, told)
        else:
            _explain_read(settings, generation, incoming, request, told)
    except RefusedError as error:
        _tell_refusal(error, told)
    return told


def _explain_read(
    settings: Settings, generation: Generation, incoming: _Request, request: Request, told: Explanation
) -> None:
    paths = spellings_of(request.filename)
    if generation.policy.rules is not None:
        paths = plain_paths(paths)
    _tell_rules(generation, incoming, paths, told)
    decision = generation.policy.decide_read(incoming, request, paths)
    told.names = [_text(path) for path in decision.paths]
    told.rule = decision.rule
    overlay = open_overlay(generation)
    if decision.roots and overlay is not None:
        told.roots = list(_try_roots(overlay, decision, generation.root_dir))
    verdict = asyncio.run(_decide(settings, generation, incoming))
    if not isinstance(verdict, Accepted):
        _tell_refusal(verdict.cause, told)
        return
    context = verdict.plan.context
    try:
        told.file = str(Path(f"/proc/self/fd/{verdict.plan.fd}").readlink())
    except OSError:
        told.file = ""  # no /proc
    told.size_bytes, told.for_all = context.size_bytes, verdict.flow is not None
    verdict.discard()
    _tell_served(context.negotiated, told)


async def _decide(settings: Settings, generation: Generation, incoming: _Request) -> Verdict:
    decider = FileDecider(settings, generation=generation)
    try:
        verdict = decider.decide(incoming)
        return await verdict if inspect.isawaitable(verdict) else verdict
    finally:
        decider.close()


def _explain_write(
    settings: Settings, generation: Generation, incoming: _Request, request: Request, told: Explanation
) -> None:
    path = normalise_name(request.filename)
    _tell_rules(generation, incoming, (path,), told)
    terms = generation.policy.decide_write(incoming, request, path)
    told.rule = terms.rule
    told.file = _path_of(generation.root_dir, terms.root, terms.path)
    negotiated = negotiate(request, size_bytes=None, limits=terms.limits or generation.limits)
    _begin_upload(settings, terms, negotiated)
    _tell_served(negotiated, told)


def _begin_upload(settings: Settings, terms: WriteDecision, negotiated: Negotiated) -> None:
    """Raises: RefusedError. Changes nothing: what was begun makes a file with its first block only."""
    place = None if terms.root is None else open_place(settings.root_dir, terms.root)
    root = _path_of(settings.root_dir, terms.root, b"")
    area = UploadArea(root, max_file_size_bytes=settings.max_file_size_bytes, place=place)
    try:
        area.begin(terms, negotiated.tsize).close()
    finally:
        area.close()


def _tell_rules(generation: Generation, incoming: _Request, paths: Sequence[bytes], told: Explanation) -> None:
    told.names = [_text(path) for path in paths]
    rules = generation.policy.rules
    if rules is None:
        return
    question = generation.policy.question(incoming, tuple(paths))
    told.machine = question.machine
    steps = list(rules.unmet(question, paths[-1]))
    told.passed = [RulePassed(rule.number, key) for rule, key in steps if key]
    told.rule = next((rule.number for rule, key in steps if not key), 0)


def _try_roots(overlay: Overlay, decision: ReadDecision, root_dir: str) -> Sequence[RootTried]:
    tried = []
    for root in decision.roots:
        one = ReadDecision(decision.paths, roots=(root,), require=decision.require)
        found = overlay.open(one)
        path = _path_of(root_dir, root, b"")
        if isinstance(found, NotHere):
            refusal = found.refusal
            tried.append(RootTried(path, refusal.text + (f": {refusal.why}" if refusal.why else "")))
            if refusal.code != 1:
                break
        else:
            found.close()
            tried.append(RootTried(path, "found"))
            break
    return tried


def _tell_refusal(error: Exception, told: Explanation) -> None:
    if not isinstance(error, RefusedError):
        raise error
    told.why = error.why
    told.rule = error.rule or told.rule
    told.error = None if error.is_silent else int(error.code)
    told.answer = "silence" if error.is_silent else str(error)


def _tell_served(negotiated: Negotiated, told: Explanation) -> None:
    told.is_served, told.answer = True, "OACK" if negotiated.oack else "no options"
    told.options = dict(negotiated.accepted)


def _path_of(root_dir: str, root: RootPath | None, path: bytes) -> str:
    parts = (*((root.directory, _text(root.below)) if root else ()), _text(path))
    return str(Path(root_dir, *(part for part in parts if part)))


def _text(path: bytes) -> str:
    return os.fsdecode(path)
