"""What is to be read: names to files below the root, at once or by threads.

    Request ─meanings─► path ─content─► OpenFile, or Text ─accept─► Verdict
               ▲            └─► not there ─┐
               └───────────────────────────┘

May know: policy, content and what is answered. Must not know the engine, sockets, the log or the
loop's business; what it decides is carried out by `loop` and told by `narrate`.

Invariants:
- `decide` never waits for a disk: what cannot be answered from the kernel's caches goes to a small
  pool of threads, and comes back as a future (see `slow_opens`). At most `_MAX_SLOW_OPENS` wait there.
  netascii has threads of its own, since it is read and converted there.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.files import FileTree, OpenFile
from snow_owl_tftp.content.overlay import Overlay
from snow_owl_tftp.content.source import LATER, Later, NotHere
from snow_owl_tftp.content.text import Text
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.decision import ReadDecision
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.answer import Answer, accept_file, accept_text, answer, refuse_write
from snow_owl_tftp.server.early import EarlyAskers
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.meanings import Meanings
from snow_owl_tftp.server.other_names import OtherNames
from snow_owl_tftp.server.patient import PatientThreads
from snow_owl_tftp.server.slow_opens import Elsewhere, SlowOpens
from snow_owl_tftp.server.sources import Sources
from snow_owl_tftp.server.templates import Asked, Rendering
from snow_owl_tftp.server.texts import Texts
from snow_owl_tftp.server.upload_terms import decide_upload
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
        other_names: What a name may mean that is not there.
        plugged: Is asked before templates and files; None: nobody is. Stays the caller's.
        meanings: Begins with the meanings of a name; whoever explains what is decided listens there.
    """

    def __init__(self, settings: Settings, write: Answer = refuse_write, generation: Generation | None = None) -> None:
        """Open the root.

        Args:
            settings: All of them.
            write: Answers what is to be written.
            generation: Of these settings, if somebody has it already.

        Raises:
            ConfigError: The root, or one of a rule, is no directory that may be entered, or a pattern is none.
        """
        self._generation = generation or Generation.of(settings)
        self._write = self._refuse_write if write is refuse_write else write
        self._sources = Sources.open(self._generation)
        # The last ones stay open, since workers forget the flows of directories that were exchanged at their next turn
        # only (docs/engine-contract.md, "Who owns descriptors").
        self._old_sources: deque[Sources] = deque(maxlen=3)
        self._texts = Texts()
        self._rendering = Rendering()
        self.plugged: Plugged | None = None
        self.meanings: Callable[[IncomingRequest, Request, Generation], Meanings] = Meanings
        self._threads = PatientThreads(
            _SLOW_OPEN_THREADS,
            _SLOW_OPEN_THREADS_PER_KEY,
            "tftp-open",
            max_spares=_SLOW_OPEN_SPARES,
            help_after_s=_SLOW_OPEN_S,
        )
        self.slow_opens = SlowOpens(self._threads, _MAX_SLOW_OPENS)
        self.slow_texts = SlowOpens(self._texts.threads, _MAX_SLOW_TEXTS)
        self.other_names = OtherNames()
        # One worker tells the end of a transfer before what its client asks next.
        self._early = EarlyAskers() if settings.worker_count > 1 else None
        self.other_names.index.follow(self._generation.indexed)

    def close(self) -> None:
        """Close the root; call it when no server uses this decider any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for sources in (self._sources, *self._old_sources):
            sources.close()
        self._texts.close()
        self.other_names.close()
        self._rendering.close()

    @property
    def in_force(self) -> tuple[Generation, Sources]:
        """The configuration that requests are decided by now, and its open directories."""
        return self._generation, self._sources

    def reload(self, generation: Generation, sources: Sources | None = None) -> None:
        """Decide about requests that come from now on by another configuration, and serve them from its directories.

        Args:
            generation: It.
            sources: Its directories; taken over. None: the same as before.
        """
        if sources is None:
            sources = self._sources
        if sources is not self._sources:
            self._old_sources.append(self._sources)
        self._generation, self._sources = generation, sources
        sources.limit_files(generation.max_file_size_bytes)
        self.other_names.index.follow(generation.indexed)

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
        and netascii apart, by the places for netascii streams, and by the wait for a template. And what is known of
        names, where that is asked for.
        """
        return {
            "opens_busy": self.slow_opens.busy_total,
            "texts_busy": self.slow_texts.busy_total,
            "streams_refused": self._texts.refused_total,
            "streams_gave_way": self._texts.gave_way_total,
            "renders_busy": self._rendering.slow.busy_total,
            **self.other_names.figures(),
        }

    def look_again(self) -> bool:
        """Serve from where `root_dir` and `link_targets` of the configuration in force lead now; call it in a thread.

        Returns:
            Whether that is elsewhere; then flows must be forgotten.

        Raises:
            ConfigError: See Sources.look_again.
        """
        if not self._sources.look_again():
            return False
        self.other_names.index.follow(self._generation.indexed)
        return True

    def look_at_roots(self) -> bool:
        """Do the same for the roots of rules: apart, since one that hangs must not keep `root_dir` from being followed.

        Raises:
            ConfigError: See Overlay.look_again.
        """
        return self._sources.look_at_roots()

    def decide(self, incoming: IncomingRequest) -> Verdict | Awaitable[Verdict]:
        """See Decider.decide."""
        return answer(incoming, self._read, self._write)

    def _read(self, incoming: IncomingRequest, request: Request) -> Verdict | Awaitable[Verdict]:
        found = self._find(incoming, request)
        names = self._generation.names
        if self._early is None or names.siblings is None:
            return found
        host = incoming.peer[0]
        if self.other_names.knows(host) or not names.is_sibling(names.spelled.spellings_of(request.filename)[-1]):
            return found
        return self._early.answer(found, lambda: self.other_names.knows(host), lambda: self._find(incoming, request))

    def _find(self, incoming: IncomingRequest, request: Request) -> Verdict | Awaitable[Verdict]:
        asked = self.meanings(incoming, request, self._generation)
        asked.sources = self._sources
        refusal = asked.first(self.other_names)
        if refusal is None and self.plugged is not None:

            def otherwise() -> Verdict | Awaitable[Verdict]:
                asked.depend_on_asker()  # what a handler leaves to others it must be asked about again
                return self._make_or_open(asked, None)

            answered = self.plugged.answer(incoming, request, asked.decision.paths, otherwise)
            if answered is not None:
                return answered
        return self._make_or_open(asked, refusal)

    def _make_or_open(self, asked: Meanings, refusal: RefusedError | None) -> Verdict | Awaitable[Verdict]:
        """Raises: RefusedError: Of a template; or no descriptor is left."""
        while refusal is None:
            if (made := self._make(asked)) is not None:
                return made
            file = self._open_now(asked)
            if file is LATER:
                return self._decide_later(asked)
            if not isinstance(file, NotHere):
                return self._accept(asked, file)
            refusal = asked.next(file.refusal, self.other_names)
        return refuse(asked.request, refusal)

    def _make(self, asked: Meanings) -> Verdict | Awaitable[Verdict] | None:
        """Raises: RefusedError: Of a template."""
        templates = asked.generation.templates
        if templates is None or templates.find(asked.decision.paths) is None:  # before anything is made for it
            return None
        return self._rendering.answer(templates, _of_templates(asked))

    def _refuse_write(self, incoming: IncomingRequest, request: Request) -> Verdict:
        """Where no upload is taken a rule may still want silence."""
        if self._generation.policy.rules is not None:
            decide_upload(self._generation, incoming, request)
        return refuse_write(incoming, request)

    def _open_now(self, asked: Meanings) -> OpenFile | Text | NotHere | Later:
        """Raises: RefusedError: No descriptor is left."""
        file = asked.sources.of(asked.decision).open_now(asked.decision)
        if not isinstance(file, OpenFile) or asked.request.mode == "octet":
            return file
        made = None
        try:
            made = self._texts.at_once(file)
        finally:
            if not isinstance(made, Text):
                file.close()
        return LATER if made is None else made

    def _accept(self, asked: Meanings, file: OpenFile | Text) -> Accepted:
        """Takes the file over."""
        incoming, request, decision = asked.incoming, asked.request, asked.decision
        limits = decision.limits or asked.generation.limits
        if isinstance(file, Text):
            accepted = accept_text(self._texts, file, incoming, request, limits)
        else:
            path, flow = file.relative_path, None
            if self._holds_for_all(asked, file):
                # Should it have moved since: the engine keeps a flow only if the path leads, from here, to the very
                # inode that was opened.
                root_fd = file.root_fd if decision.roots else asked.sources.tree.places[0].fd
                flow = root_fd, path, incoming.datagram
            accepted = accept_file(incoming, request, file, limits, flow)
            if asked.generation.names.siblings is not None:
                accepted.plan.context.remembers = self.other_names.folders, path
        if asked.way is not None:
            accepted.plan.context.found = decision.paths[0], asked.way
        return accepted

    def _holds_for_all(self, asked: Meanings, file: OpenFile) -> bool:
        # A netascii copy lies under no path, so the engine could not look whether it still holds.
        # And on NFS or FUSE that look could make a worker wait for another machine.
        # A name that was cut, or found otherwise, must be looked for as sent each time, since it may appear; so may a
        # file in another root.
        return (
            asked.generation.offers_flows
            and asked.holds_for_all
            and not asked.decision.depends_on_asker
            and (file.root_fd >= 0 if asked.decision.roots else asked.sources.tree.is_local)
            and file.is_as_sent
            and asked.request.mode == "octet"
        )

    def _decide_later(self, asked: Meanings) -> Verdict | Awaitable[Verdict]:
        request = asked.request

        def find(may_wait_on: int | None) -> Verdict:
            return self._decide_slowly(asked, may_wait_on)

        def refuse_busy() -> Verdict:
            return refuse(request, RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again"))

        slow = self.slow_opens if request.mode == "octet" else self.slow_texts
        return slow.decide(asked.sources.of(asked.decision).device_of(asked.decision), find, refuse_busy)

    def _decide_slowly(self, asked: Meanings, may_wait_on: int | None) -> Verdict:
        """Runs in a thread of the pool; each meaning may lie on another device."""
        refusal: RefusedError | None = None
        templates = asked.generation.templates
        while refusal is None:
            if (
                templates is not None
                and (made := self._rendering.answer_now(templates, _of_templates(asked))) is not None
            ):
                return made
            file = self._open_on(asked.sources.of(asked.decision), asked.decision, may_wait_on)
            if not isinstance(file, NotHere):
                return self._accept_slowly(asked, file)
            refusal = asked.next(file.refusal, self.other_names)
        return refuse(asked.request, refusal)

    def _accept_slowly(self, asked: Meanings, file: OpenFile) -> Verdict:
        try:
            return self._accept(asked, file if asked.request.mode == "octet" else self._texts.made_of(file))
        except RefusedError as error:
            return refuse(asked.request, error)

    @staticmethod
    def _open_on(source: FileTree | Overlay, decision: ReadDecision, may_wait_on: int | None) -> OpenFile | NotHere:
        """Raises: Elsewhere: Another device has to be asked."""
        if isinstance(source, Overlay):
            found = source.open_on(decision, may_wait_on)
            if isinstance(found, int):
                raise Elsewhere(found)
            return found
        if may_wait_on is not None:
            device = source.device_of(decision, may_wait_on)
            if device != may_wait_on:
                raise Elsewhere(device)
        return source.open(decision)


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


def _of_templates(asked: Meanings) -> Asked:
    decision, generation = asked.decision, asked.generation
    return Asked(
        asked.incoming, asked.request, decision.paths, generation.machines, decision.limits or generation.limits
    )
