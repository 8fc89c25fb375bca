"""Names that a template answers: found, rendered for who asks, and sent from memory.

    path ─NamePatterns─► template ─context of machine, request, variables─► text ─► memory ─accept_file─► Accepted
                          │
                          ├ quick the last time: in the event loop, as any decision
                          └ not measured yet, or slow: by a thread of its own, which takes its time without the GIL

May know: settings, policy, templates and what is answered. Must not know the engine, the log, or who reads a reload's
file.

Invariants:
- What was rendered is one text of exact size, and one descriptor a transfer; nobody is sent another's, so no flow.
- What fails is ERROR 0 for its client, and one line with the template's file and line (within the budget of lines).
- A template that takes long holds up its own requests: it has one thread, and `_MAX_WAITING` in all wait for threads.
- A template set never changes: a reload makes another one, off the event loop.
"""

import os
import time
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from snow_owl_tftp._engine.protocol.netascii import encode
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.templates.files import read_templates
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.linux.memfd import READ_ONLY, memory_file
from snow_owl_tftp.policy.captures import Captured, NamePatterns
from snow_owl_tftp.policy.machines import Machines
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.answer import accept_file
from snow_owl_tftp.server.facts import FIELDS, Wanted, context_of
from snow_owl_tftp.server.patient import PatientThreads
from snow_owl_tftp.server.slow_opens import SlowOpens
from snow_owl_tftp.server.verdict import IncomingRequest, Verdict, refuse

if TYPE_CHECKING:
    from snow_owl_tftp.content.templates.engine import Template

__all__ = ["Asked", "Made", "Rendering", "Templates"]

_MEMORY_NAME: Final = "tftp-template"
_QUICK_NS: Final = 500_000
"""Twenty times what a boot configuration takes (benchmarks/templates.py), a tenth of a turn of the loop."""
_THREADS: Final = 4
_MAX_WAITING: Final = 256


class Made(NamedTuple):
    """A text that was made.

    Attributes:
        template: As the entry has it.
        variables: What the pattern captured.
        data: The text, as UTF-8.
    """

    template: str
    variables: Mapping[str, str]
    data: bytes


class Asked(NamedTuple):
    """What may be answered by a template.

    Attributes:
        incoming: The request.
        request: The same, parsed.
        paths: Its name, in the spellings that are tried.
        machines: Who knows which machine asks.
        limits: What may be negotiated.
    """

    incoming: IncomingRequest
    request: Request
    paths: tuple[bytes, ...]
    machines: Machines
    limits: OptionLimits

    def wanted(self, path: bytes) -> Wanted:
        """Return what a template is rendered for, which matched one of these spellings."""
        machine = self.machines.find(self.incoming, self.paths)
        return Wanted(self.incoming, self.request, path, machine, self.limits)


class _Entry:
    """A template, for all entries that name it.

    Attributes:
        template: It; the loop and a thread may render it at once (test_loop_waits_for_no_rendering_of_a_thread).
        took_ns: CPU of the last rendering; None: there was none.
    """

    __slots__ = ("template", "took_ns")

    def __init__(self, template: "Template") -> None:
        self.template = template
        self.took_ns: int | None = None

    @property
    def is_quick(self) -> bool:
        return self.took_ns is not None and self.took_ns <= _QUICK_NS


class Templates:
    """The templates of one configuration."""

    def __init__(self, patterns: NamePatterns, entries: list[_Entry], server: str | None) -> None:
        """Take what was compiled; see `of`.

        Args:
            patterns: Of the entries.
            entries: The template of each.
            server: Our address where a request does not say at which it arrived.
        """
        self._patterns = patterns
        self._entries = entries
        self._server = server

    @classmethod
    def of(cls, settings: Settings) -> "Templates | None":
        """Read and compile the templates of settings; may wait for the disk.

        Returns:
            None where there are none.

        Raises:
            ConfigError: A pattern is none, a file cannot be read, or a template is wrong.
        """
        if not settings.templates:
            return None
        patterns = _patterns_of(settings)
        names = [entry.template for entry in settings.templates]
        sources = read_templates(settings.template_dir, names)
        made = _compiled(settings.template_dir, sources, names, patterns)
        hosts = {host for host, _ in settings.bind_addresses} - {"0.0.0.0", "::"}
        return cls(patterns, [made[name] for name in names], hosts.pop() if len(hosts) == 1 else None)

    def find(self, paths: tuple[bytes, ...]) -> "tuple[_Entry, Captured, bytes] | None":
        """Return what answers the first of these spellings that a template answers; None: none does."""
        for path in paths:
            found = self._patterns.find(path)
            if found is not None:
                return self._entries[found.number], found, path
        return None

    def render(self, wanted: Wanted) -> Made | None:
        """Render what a request gets, for whoever only wants to see it; may take long.

        Returns:
            None where no template answers it.

        Raises:
            RefusedError: It fails; `why` says where.
        """
        found = self.find((wanted.path,))
        if found is None:
            return None
        entry, captured, _ = found
        return Made(entry.template.name, captured.variables, self.make(entry, wanted, captured.variables))

    def make(self, entry: _Entry, wanted: Wanted, variables: Mapping[str, str]) -> bytes:
        """Render an entry, and measure it.

        Raises:
            RefusedError: It fails.
        """
        from snow_owl_tftp.content.templates.engine import TemplateFailure

        began_ns = time.thread_time_ns()
        try:
            return entry.template.render(context_of(wanted, variables, self._server))
        except TemplateFailure as failure:
            raise RefusedError(ErrorCode.NOT_DEFINED, "The file could not be made", why=str(failure)) from None
        finally:
            entry.took_ns = time.thread_time_ns() - began_ns


class Rendering:
    """Who renders: the event loop, or threads; lives as long as the server.

    Attributes:
        slow: What waits for threads.
    """

    def __init__(self) -> None:
        self._threads = PatientThreads(_THREADS, 1, "tftp-template")  # none runs before it is needed
        self.slow = SlowOpens(self._threads, _MAX_WAITING)

    def close(self) -> None:
        """Let the threads go; what takes long is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def busy_total(self) -> int:
        """Threads that are at work now."""
        return self._threads.busy_total

    def answer(self, templates: Templates, asked: Asked) -> Verdict | Awaitable[Verdict] | None:
        """Answer a request from a template.

        Returns:
            None where no template answers it.

        Raises:
            RefusedError: The template fails for it.
        """
        found = templates.find(asked.paths)
        if found is None:
            return None
        entry, captured, path = found
        wanted = asked.wanted(path)
        if entry.is_quick:
            return _accept(wanted, templates.make(entry, wanted, captured.variables))

        def make(key: int | None) -> Verdict:
            return _made(templates, entry, wanted, captured)

        def refuse_busy() -> Verdict:
            return refuse(asked.request, RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again"))

        return self.slow.decide(id(entry), make, refuse_busy)

    @staticmethod
    def answer_now(templates: Templates, asked: Asked) -> Verdict | None:
        """Do the same in a thread, for as long as it takes."""
        found = templates.find(asked.paths)
        if found is None:
            return None
        entry, captured, path = found
        return _made(templates, entry, asked.wanted(path), captured)


def _made(templates: Templates, entry: _Entry, wanted: Wanted, captured: Captured) -> Verdict:
    try:
        return _accept(wanted, templates.make(entry, wanted, captured.variables))
    except RefusedError as error:
        return refuse(wanted.request, error)


def _accept(wanted: Wanted, data: bytes) -> Verdict:
    """Raises: RefusedError: No descriptor is left."""
    request = wanted.request
    if request.mode == "netascii":
        data = encode(data)
    try:
        fd = memory_file(_MEMORY_NAME, [data], seals=READ_ONLY)
    except OSError as error:
        raise RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again", why=str(error)) from error
    # cannot fail: the descriptor is ours and open
    return accept_file(wanted.incoming, request, OpenFile(fd, b"", os.fstat(fd)), wanted.limits)


def _patterns_of(settings: Settings) -> NamePatterns:
    """Raises: ConfigError."""
    patterns = [entry.match for entry in settings.templates]
    for number, pattern in enumerate(patterns, 1):
        try:
            NamePatterns([pattern], FIELDS)
        except ConfigError as error:
            raise ConfigError(f"templates[{number}].match: {error}") from error
    return NamePatterns(patterns, FIELDS)


def _compiled(folder: str, sources: Mapping[str, str], names: list[str], patterns: NamePatterns) -> dict[str, _Entry]:
    """Raises: ConfigError."""
    try:
        from snow_owl_tftp.content.templates.check import check_sources
        from snow_owl_tftp.content.templates.engine import Template
    except ImportError as error:
        raise ConfigError(
            "templates: minijinja is not installed; pip install 'snow-owl-tftp[templates]', or remove [[templates]]"
        ) from error
    captured: dict[str, frozenset[str]] = {}
    for name, variables in zip(names, patterns.variables, strict=True):
        captured[name] = captured.get(name, frozenset()).union(variables)
    check_sources(folder, sources, FIELDS, captured)
    return {name: _Entry(Template(folder, name, sources)) for name in captured}
