"""What is to be read: names to files below the root, at once or by threads.

    Request ─policy─► path ─content─► OpenFile, or Text ─accept─► Verdict

May know: policy, content and what is answered. Must not know the engine, sockets, the log or the
loop's business; what it decides is carried out by `loop` and told by `narrate`.

Invariants:
- `decide` never waits for a disk: what cannot be answered from the kernel's caches goes to a small
  pool of threads, and comes back as a future (see `slow_opens`). At most `_MAX_SLOW_OPENS` wait there.
  netascii has threads of its own, since it is read and converted there.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.files import FileTree, OpenFile
from snow_owl_tftp.content.names import spellings_of
from snow_owl_tftp.content.source import LATER, ContentSource, Later, NotHere
from snow_owl_tftp.content.text import Text
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.decision import ReadDecision
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.answer import Answer, accept_file, accept_text, answer, refuse_write
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.patient import PatientThreads
from snow_owl_tftp.server.slow_opens import Elsewhere, SlowOpens
from snow_owl_tftp.server.templates import Rendering, Templates
from snow_owl_tftp.server.texts import Texts
from snow_owl_tftp.server.verdict import Accepted, IncomingRequest, Verdict, refuse

__all__ = ["FileDecider", "Plugged"]

_SLOW_OPEN_THREADS: Final = 32
_SLOW_OPEN_THREADS_PER_KEY: Final = 8
"""For one device: a network mount that hangs holds a thread a request, and must leave some to others ..."""
_SLOW_OPEN_SPARES: Final = 8
"""... and so many that hang are replaced: what was asked first need not be what the next one has to wait for."""
_SLOW_OPEN_S: Final = 0.002
"""Far above a look-up that need not wait for a disk (20 µs), below one that does."""
_MAX_SLOW_OPENS: Final = 1024
"""Waiting or running: a cold disk answers a few hundred opens a second, so more would time out anyway."""
_MAX_SLOW_TEXTS: Final = 256
"""Of those in netascii: a quarter of that, since few clients ask for it, and each is a millisecond's work."""


class FileDecider:
    """Serves the files below `root_dir`.

    Attributes:
        slow_opens: Where names wait that are in no cache.
        plugged: Is asked before templates and files; None: nobody is. Stays the caller's.
    """

    def __init__(self, settings: Settings, write: Answer = refuse_write, generation: Generation | None = None) -> None:
        """Open the root.

        Args:
            settings: All of them.
            write: Answers what is to be written.
            generation: Of these settings, if somebody has it already.

        Raises:
            ConfigError: The root is no directory that may be entered, or a pattern is none.
        """
        self._generation = generation or Generation.of(settings)
        self._write = write
        self._tree = FileTree(settings.root_dir, settings.max_file_size_bytes, link_targets=settings.link_targets)
        self._source: ContentSource[OpenFile] = self._tree
        self._texts = Texts()
        self._rendering = Rendering()
        self.plugged: Plugged | None = None
        # A second look at the same path is safe: the engine keeps a flow only if the path leads, from
        # here, to the very inode that was opened. The last ones stay open, since workers forget the flows of a
        # root that moved at their next turn only (docs/engine-contract.md, "Who owns descriptors").
        self._flow_roots = deque([Place(settings.root_dir, "root_dir")], maxlen=3)
        self._threads = PatientThreads(
            _SLOW_OPEN_THREADS,
            _SLOW_OPEN_THREADS_PER_KEY,
            "tftp-open",
            max_spares=_SLOW_OPEN_SPARES,
            help_after_s=_SLOW_OPEN_S,
        )
        self.slow_opens = SlowOpens(self._threads, _MAX_SLOW_OPENS)
        self.slow_texts = SlowOpens(self._texts.threads, _MAX_SLOW_TEXTS)

    def close(self) -> None:
        """Close the root; call it when no server uses this decider any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._tree.close()
        self._texts.close()
        self._rendering.close()
        for place in self._flow_roots:
            place.close()

    def reload(self, generation: Generation) -> None:
        """Decide about requests that come from now on by another configuration."""
        self._generation = generation
        self._tree.max_file_size_bytes = generation.max_file_size_bytes

    @property
    def threads(self) -> PatientThreads:
        """For whoever else must look at the root without waiting for it."""
        return self._threads

    @property
    def texts(self) -> Texts:
        """What makes netascii; whoever runs the engine gives it `abort`."""
        return self._texts

    @property
    def rendering(self) -> Rendering:
        """What makes texts from templates."""
        return self._rendering

    def turned_away(self) -> dict[str, int]:
        """Return how many were told to come again so far, or ended for a newcomer: by the wait for a file system, octet
        and netascii apart, by the places for netascii streams, and by the wait for a template.
        """
        return {
            "opens_busy": self.slow_opens.busy_total,
            "texts_busy": self.slow_texts.busy_total,
            "streams_refused": self._texts.refused_total,
            "streams_gave_way": self._texts.gave_way_total,
            "renders_busy": self._rendering.slow.busy_total,
        }

    def look_again(self) -> bool:
        """Serve from where `root_dir` and `link_targets` of the configuration in force lead now; call it in a thread.

        Returns:
            Whether that is elsewhere; then flows must be forgotten.

        Raises:
            ConfigError: See FileTree.look_again.
        """
        root_dir, link_targets = self._generation.root_dir, self._generation.link_targets
        place = Place(root_dir, "root_dir")
        if not self._tree.look_again(root_dir, link_targets):
            return False
        self._flow_roots.append(place)
        return True

    def decide(self, incoming: IncomingRequest) -> Verdict | Awaitable[Verdict]:
        """See Decider.decide."""
        return answer(incoming, self._read, self._write)

    def _read(self, incoming: IncomingRequest, request: Request) -> Verdict | Awaitable[Verdict]:
        generation = self._generation
        decision = generation.policy.decide_read(incoming, request, spellings_of(request.filename))
        allowed = _Allowed(incoming, request, generation, decision)
        if self.plugged is not None:
            # What a handler leaves to others it must be asked about again.
            asked = self.plugged.answer(
                incoming, request, decision.paths, lambda: self._make_or_find(allowed.asked_again())
            )
            if asked is not None:
                return asked
        return self._make_or_find(allowed)

    def _make_or_find(self, allowed: "_Allowed") -> Verdict | Awaitable[Verdict]:
        """Raises: RefusedError."""
        templates = allowed.generation.templates
        made = None if templates is None else self._make(templates, allowed)
        return self._find(allowed) if made is None else made

    def _make(self, templates: Templates, allowed: "_Allowed") -> Verdict | Awaitable[Verdict] | None:
        """Raises: RefusedError: Of a template."""
        incoming, request, generation, decision = allowed
        machines = generation.policy.machines
        return self._rendering.answer(templates, incoming, request, decision.paths, machines, generation.limits)

    def _find(self, allowed: "_Allowed") -> Verdict | Awaitable[Verdict]:
        request, decision = allowed.request, allowed.decision
        file = self._open_now(request, decision)
        if file is LATER:
            return self._decide_later(allowed)
        return refuse(request, file.refusal) if isinstance(file, NotHere) else self._accept(allowed, file)

    def _open_now(self, request: Request, decision: ReadDecision) -> OpenFile | Text | NotHere | Later:
        """Raises: RefusedError: No descriptor is left."""
        file = self._source.open_now(decision)
        if not isinstance(file, OpenFile) or request.mode == "octet":
            return file
        made = None
        try:
            made = self._texts.at_once(file)
        finally:
            if not isinstance(made, Text):
                file.close()
        return LATER if made is None else made

    def _accept(self, allowed: "_Allowed", file: OpenFile | Text) -> Accepted:
        """Takes the file over."""
        incoming, request, limits = allowed.incoming, allowed.request, allowed.generation.limits
        if isinstance(file, Text):
            return accept_text(self._texts, file, incoming, request, limits)
        flow = None
        if self._holds_for_all(allowed, file):
            flow = self._flow_roots[-1].fd, file.relative_path, incoming.datagram
        return accept_file(incoming, request, file, limits, flow)

    def _holds_for_all(self, allowed: "_Allowed", file: OpenFile) -> bool:
        # A netascii copy lies under no path, so the engine could not look whether it still holds.
        # And on NFS or FUSE that look could make a worker wait for another machine.
        # A name that was cut must be looked for as sent each time, since it may appear.
        return (
            allowed.generation.offers_flows
            and not allowed.decision.depends_on_asker
            and self._tree.is_local
            and file.is_as_sent
            and allowed.request.mode == "octet"
        )

    def _decide_later(self, allowed: "_Allowed") -> Verdict | Awaitable[Verdict]:
        request = allowed.request

        def find(may_wait_on: int | None) -> Verdict:
            return self._decide_slowly(allowed, may_wait_on)

        def refuse_busy() -> Verdict:
            return refuse(request, RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again"))

        slow = self.slow_opens if request.mode == "octet" else self.slow_texts
        return slow.decide(self._source.device_of(allowed.decision), find, refuse_busy)

    def _decide_slowly(self, allowed: "_Allowed", may_wait_on: int | None) -> Verdict:
        """Runs in a thread of the pool."""
        request, decision = allowed.request, allowed.decision
        if may_wait_on is not None:
            device = self._source.device_of(decision, may_wait_on)
            if device != may_wait_on:
                raise Elsewhere(device)
        file = self._source.open(decision)
        if isinstance(file, NotHere):
            return refuse(request, file.refusal)
        try:
            return self._accept(allowed, file if request.mode == "octet" else self._texts.made_of(file))
        except RefusedError as error:
            return refuse(request, error)


class Plugged(Protocol):
    """Functions that answer in place of files; those of [[handlers]] are such."""

    def answer(
        self,
        incoming: IncomingRequest,
        request: Request,
        paths: tuple[bytes, ...],
        otherwise: Callable[[], Verdict | Awaitable[Verdict]],
    ) -> Awaitable[Verdict] | None:
        """Answer a request, by `otherwise` where a function has nothing to say; None: it is none of theirs."""


class _Allowed(NamedTuple):
    """What the rules allow, and the configuration that it is answered by although a reload comes between."""

    incoming: IncomingRequest
    request: Request
    generation: Generation
    decision: ReadDecision

    def asked_again(self) -> "_Allowed":
        """The same, for this once: nobody may repeat what follows."""
        return self._replace(decision=msgspec.structs.replace(self.decision, depends_on_asker=True))
