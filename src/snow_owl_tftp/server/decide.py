"""One request to one Verdict: parse, policy, content, negotiate, plan.

    datagram ─parse─► Request ─policy─► path ─content─► fd, size ─negotiate─► OACK ─► TransferPlan

May know: protocol, policy, content and the plan. Must not know the engine, sockets, the log or the
loop's business; what it decides is carried out by `core` and told by `report`.

Invariants:
- `decide` never waits for a disk: what cannot be answered from the kernel's caches goes to a small
  pool of threads, and comes back as a future (see `slow_opens`). At most `_MAX_SLOW_OPENS` wait there.
  netascii has threads of its own, since it is read and converted there.
- A Verdict that is not carried out must be discarded, since it may hold a descriptor.
- A peer's bytes end here as BadPacket or RefusedError. Any other exception is our bug and rises.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol, TypeAlias

from snow_owl_tftp.config import Settings
from snow_owl_tftp.content.descriptors import close_descriptor
from snow_owl_tftp.content.files import FileTree, OpenFile, WouldBlock
from snow_owl_tftp.content.names import spellings_of
from snow_owl_tftp.content.text import Text
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import BadPacket, InternalError, RefusedError, TftpError
from snow_owl_tftp.plan import Role, TransferPlan
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.options import Negotiated, OptionLimits, asks_for_fragments, negotiate
from snow_owl_tftp.protocol.packets import (
    Request,
    build_error,
    parse_request_untrusted,
    refuse_malformed_untrusted,
)
from snow_owl_tftp.server.patient import PatientThreads
from snow_owl_tftp.server.routes import route_mtu_bytes
from snow_owl_tftp.server.slow_opens import Elsewhere, SlowOpens
from snow_owl_tftp.server.texts import Texts

__all__ = [
    "Accepted",
    "Asked",
    "CommitRefusal",
    "Decider",
    "FileDecider",
    "Flow",
    "Refused",
    "Sink",
    "StreamContext",
    "TransferContext",
    "UploadContext",
    "Verdict",
    "WriteDecider",
    "accept_text",
    "mtu_for",
    "option_limits",
    "refuse",
    "sender_plan",
]

Flow: TypeAlias = tuple[int, bytes, bytes]
"""Directory descriptor, path beneath it, the request's datagram: lets the engine repeat this decision by itself."""

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
_MAX_TEXT_WINDOW_BYTES: Final = 1 << 18
"""256 KiB. The engine keeps a window of a stream in memory; of a file it keeps none."""


class Asked(Protocol):
    """What a decision may look at; the engine's Request has this shape."""

    @property
    def transfer_id(self) -> int:
        """Names the request to the engine."""

    @property
    def datagram(self) -> bytes:
        """The RRQ or WRQ, unparsed."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and TID of the client."""

    @property
    def local_address(self) -> str | None:
        """The address that was asked, or None where only one is bound."""


class TransferContext:
    """What Python remembers of a transfer; the engine hands it back with the Completion.

    One context may serve many transfers, when the engine repeats a decision: nothing here may differ
    from client to client.

    Attributes:
        hears_success: Whether `let_go` follows every Completion, also where nobody else hears of successes.
        request: As parsed.
        size_bytes: Of the content sent, or of the upload as announced; None: it was not.
        negotiated: The options granted.
        held: Of `OpenFile`; lives as long as this does.
    """

    __slots__ = ("held", "negotiated", "request", "size_bytes")

    hears_success = False

    def __init__(self, request: Request, size_bytes: int | None, negotiated: Negotiated, held: object = None) -> None:
        self.held = held
        self.request = request
        self.size_bytes = size_bytes
        self.negotiated = negotiated

    def begin(self) -> None:
        """The engine has taken the plan; called once a plan that Python started, in the event loop."""

    def let_go(self) -> None:
        """Give up what the transfer needed, without waiting: it has ended, or will never begin.

        Once a plan, but not for one that was sent whole where nobody hears of successes, unless `hears_success`.
        """


class Pours(Protocol):
    """What writes into the pipe of a plan with `stream`."""

    def begin(self) -> None:
        """See TransferContext.begin."""

    def let_go(self) -> None:
        """See TransferContext.let_go."""


class StreamContext(TransferContext):
    """The context of a plan whose source is a pipe."""

    __slots__ = ("_stream",)

    hears_success = True

    def __init__(self, request: Request, size_bytes: int | None, negotiated: Negotiated, stream: Pours) -> None:
        super().__init__(request, size_bytes, negotiated)
        self._stream = stream

    def begin(self) -> None:
        """See TransferContext.begin."""
        self._stream.begin()

    def let_go(self) -> None:
        """See TransferContext.let_go."""
        self._stream.let_go()


class CommitRefusal(NamedTuple):
    """Why a received file cannot be stored: the ERROR to send, and the errno behind it (0: none)."""

    code: int
    text: str
    error_number: int


class Sink(NamedTuple):
    """What an upload is written to: a descriptor, and the most bytes that are accepted (0: as the plan says)."""

    fd: int
    limit_bytes: int


class UploadContext(TransferContext, ABC):
    """The context of a RECEIVER plan, whose sink descriptor is never the engine's to close.

    Attributes:
        is_stored: The file is in its place, whatever becomes of the transfer.
        failed: Transfer id and peer of a transfer that failed; None: it has not.
    """

    __slots__ = ("failed", "is_stored")

    def __init__(self, request: Request, size_bytes: int | None, negotiated: Negotiated) -> None:
        super().__init__(request, size_bytes, negotiated)
        self.is_stored = False
        self.failed: tuple[int, tuple[str, int]] | None = None

    @abstractmethod
    async def open(self) -> Sink | CommitRefusal:
        """Open the sink: the first DATA is here. Once at most, and before `commit`."""

    @abstractmethod
    async def commit(self, received_bytes: int) -> CommitRefusal | None:
        """Make the file durable and visible; None: the last ACK may be sent."""

    def abandon(self) -> None:
        """Give up what is not stored yet, and leave the sink as it is: a write that hangs has it."""

    @abstractmethod
    def let_go(self) -> None:
        """Close the sink, if there is one, without waiting; what was not committed is gone.

        Once, and not before the Completion; `open` or `commit` may still be under way.
        """


class Accepted:
    """The request becomes a transfer.

    Attributes:
        plan: For engine.start, which takes its source descriptor over; `context` is a TransferContext, of a
            RECEIVER an UploadContext.
        flow: None where the decision must be made anew for every client.
    """

    __slots__ = ("flow", "plan")

    def __init__(self, plan: TransferPlan, flow: Flow | None) -> None:
        self.plan = plan
        self.flow = flow

    def discard(self) -> None:
        """Close what the plan holds, since nobody will start it."""
        self.plan.context.let_go()
        if self.plan.role == Role.SENDER:  # a sink belongs to its context
            close_descriptor(self.plan.fd)


@dataclass(frozen=True, slots=True)
class Refused:
    """The request gets an ERROR, or silence.

    Attributes:
        datagram: The ERROR; empty: silence.
        cause: What was wrong.
        request: None where the datagram did not parse.
    """

    datagram: bytes
    cause: TftpError
    request: Request | None

    def __post_init__(self) -> None:
        # What was raised refers to the frames it came through, which lead to the one that holds this: each request of a
        # flood would leave a cycle. Only the traceback of a defect is told, and that is its __cause__'s.
        error: BaseException | None = self.cause
        while error is not None and not isinstance(error, InternalError):
            error.__traceback__ = None
            error = error.__context__

    def discard(self) -> None:
        """Nothing is held."""


Verdict: TypeAlias = Accepted | Refused


class Decider(Protocol):
    """Decides about requests, at once or later."""

    def decide(self, asked: Asked) -> Verdict | Awaitable[Verdict]:
        """Decide; called by the loop, so whoever must wait returns an awaitable.

        Args:
            asked: The request.

        Returns:
            The Verdict, or an awaitable of it: a future, or the coroutine of an `async def`.
        """


class WriteDecider(Protocol):
    """Decides about uploads; `uploads.UploadDesk` does."""

    def decide(self, asked: Asked, request: Request) -> Verdict | Awaitable[Verdict]:
        """Decide about a WRQ, as Decider.decide; may raise RefusedError."""


def option_limits(settings: Settings) -> OptionLimits:
    """Return what settings permit to negotiate."""
    return OptionLimits(
        max_blksize_bytes=settings.options.max_blksize_bytes,
        max_windowsize_blocks=settings.options.max_windowsize_blocks,
        max_window_bytes=settings.options.max_window_bytes,
    )


def mtu_for(asked: Asked, request: Request) -> int | None:
    """Return the MTU of the way to who asked to read; None: it makes no difference to what is granted."""
    return route_mtu_bytes(asked.peer[0]) if asks_for_fragments(request) else None


def refuse(request: Request | None, error: RefusedError) -> Refused:
    """Answer with the ERROR that an exception carries."""
    return Refused(build_error(error.code, error.text), error, request)


class FileDecider:
    """Serves the files below `root_dir`.

    Attributes:
        slow_opens: Where names wait that are in no cache.
    """

    def __init__(self, settings: Settings, uploads: WriteDecider | None = None) -> None:
        """Open the root and compile the rules.

        Args:
            settings: All of them.
            uploads: Answers what is to be written; it stays the caller's. None: no upload is accepted.

        Raises:
            ConfigError: The root is no directory that may be entered, or a pattern is none.
        """
        self._policy = Policy(settings.write_config, settings.hidden)
        self._limits = option_limits(settings)
        self._uploads = uploads
        self._tree = FileTree(settings.root_dir, settings.max_file_size_bytes, link_targets=settings.link_targets)
        self._texts = Texts()
        # A second look at the same path is safe: the engine keeps a flow only if the path leads, from
        # here, to the very inode that was opened. The last ones stay open, since workers forget the flows of a
        # root that moved at their next turn only (docs/engine-contract.md, "Who owns descriptors").
        self._root_dir = settings.root_dir
        self._flow_roots = deque([Place(settings.root_dir, "root_dir")], maxlen=3)
        self._offers_flows = settings.performance.platform.batch.enable_flows
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
        for place in self._flow_roots:
            place.close()

    def reload(self, settings: Settings) -> None:
        """Decide by other limits from now on.

        Args:
            settings: `options`, `hidden`, `max_file_size_bytes` and `enable_flows` are looked at, nothing else
                that may differ.
        """
        self._policy = Policy(settings.write_config, settings.hidden)
        self._limits = option_limits(settings)
        self._tree.max_file_size_bytes = settings.max_file_size_bytes
        self._offers_flows = settings.performance.platform.batch.enable_flows

    @property
    def threads(self) -> PatientThreads:
        """For whoever else must look at the root without waiting for it."""
        return self._threads

    @property
    def texts(self) -> Texts:
        """What makes netascii; whoever runs the engine gives it `abort`."""
        return self._texts

    def turned_away(self) -> dict[str, int]:
        """Return how many were told to come again so far, or ended for a newcomer: by the wait for a file system, octet
        and netascii apart, and by the places for netascii streams.
        """
        return {
            "opens_busy": self.slow_opens.busy_total,
            "texts_busy": self.slow_texts.busy_total,
            "streams_refused": self._texts.refused_total,
            "streams_gave_way": self._texts.gave_way_total,
        }

    def look_again(self) -> bool:
        """Serve from where `root_dir` and `link_targets` lead now; may wait, so call it in a thread.

        Returns:
            Whether that is elsewhere; then flows must be forgotten.

        Raises:
            ConfigError: See FileTree.look_again.
        """
        place = Place(self._root_dir, "root_dir")
        if not self._tree.look_again():
            return False
        self._flow_roots.append(place)
        return True

    def decide(self, asked: Asked) -> Verdict | Awaitable[Verdict]:
        """See Decider.decide."""
        datagram = asked.datagram
        try:
            request = parse_request_untrusted(datagram)
        except BadPacket as error:
            return Refused(refuse_malformed_untrusted(datagram, error.reason) or b"", error, None)
        try:
            if request.kind is Opcode.WRQ:
                return self._decide_write(asked, request)
            return self._accept(asked, request, self._open_now(request))
        except WouldBlock:
            return self._decide_later(asked, request)
        except RefusedError as error:
            return refuse(request, error)

    def _decide_write(self, asked: Asked, request: Request) -> Verdict | Awaitable[Verdict]:
        if self._uploads is None:
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing is not allowed")
        return self._uploads.decide(asked, request)

    def _open_now(self, request: Request) -> OpenFile | Text:
        """Raises: WouldBlock, RefusedError."""
        # The spelling as sent stands for all: what may be cut off its end hides no part, and bares none.
        self._policy.decide(request.kind, spellings_of(request.filename)[0])
        file = self._tree.open_cached(request.filename)
        if request.mode == "octet":
            return file
        made = None
        try:
            made = self._texts.at_once(file)
        finally:
            if not isinstance(made, Text):
                file.close()
        if made is None:
            raise WouldBlock
        return made

    def _accept(self, asked: Asked, request: Request, file: OpenFile | Text) -> Accepted:
        """Takes the file over."""
        if isinstance(file, Text):
            return accept_text(self._texts, file, asked, request, self._limits)
        mtu_bytes = mtu_for(asked, request)
        try:
            plan = self._plan(asked.transfer_id, request, file, mtu_bytes)
        except BaseException:
            file.close()
            raise
        # A netascii copy lies under no path, so the engine could not look whether it still holds.
        # And on NFS or FUSE that look could make a worker wait for another machine.
        # A name that was cut must be looked for as sent each time, since it may appear.
        # What the route decides holds for nobody else.
        is_plain = self._offers_flows and self._tree.is_local and file.is_as_sent and request.mode == "octet"
        is_plain = is_plain and mtu_bytes is None
        flow = (self._flow_roots[-1].fd, file.relative_path, asked.datagram) if is_plain else None
        return Accepted(plan, flow)

    def _plan(self, transfer_id: int, request: Request, file: OpenFile, mtu_bytes: int | None) -> TransferPlan:
        size_bytes = file.size_bytes
        negotiated = negotiate(request, size_bytes=size_bytes, limits=self._limits, mtu_bytes=mtu_bytes)
        return sender_plan(
            transfer_id, file.fd, size_bytes, negotiated, TransferContext(request, size_bytes, negotiated, file.held)
        )

    def _decide_later(self, asked: Asked, request: Request) -> Verdict | Awaitable[Verdict]:
        def find(may_wait_on: int | None) -> Verdict:
            return self._decide_slowly(asked, request, may_wait_on)

        def refuse_busy() -> Verdict:
            return refuse(request, RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again"))

        slow = self.slow_opens if request.mode == "octet" else self.slow_texts
        return slow.decide(self._tree.device_of(request.filename), find, refuse_busy)

    def _decide_slowly(self, asked: Asked, request: Request, may_wait_on: int | None) -> Verdict:
        """Runs in a thread of the pool."""
        if may_wait_on is not None:
            device = self._tree.device_of(request.filename, may_wait_on)
            if device != may_wait_on:
                raise Elsewhere(device)
        try:
            return self._accept(asked, request, self._open_slowly(request))
        except RefusedError as error:
            return refuse(request, error)

    def _open_slowly(self, request: Request) -> OpenFile | Text:
        file = self._tree.open_for_reading(request.filename)
        return file if request.mode == "octet" else self._texts.made_of(file)


def accept_text(texts: Texts, text: Text, asked: Asked, request: Request, limits: OptionLimits) -> Accepted:
    """Accept a request for a text that is converted while it is sent.

    Args:
        texts: Which the text is of.
        text: Taken over, also on failure.
        asked: The request.
        request: The same, parsed.
        limits: What may be negotiated.

    Raises:
        RefusedError: The options cannot be granted, or no descriptor is left.

    Deviates: nobody is told the size of a large text (RFC 2349 lets a server leave it out): it would have to be
        converted for everybody who asks (test_size_of_a_large_text_is_not_told).
    """
    limits = replace(limits, max_window_bytes=min(limits.max_window_bytes, _MAX_TEXT_WINDOW_BYTES))
    try:
        negotiated = negotiate(request, size_bytes=None, limits=limits, mtu_bytes=mtu_for(asked, request))
    except BaseException:
        texts.close_text(text)
        raise
    reader, stream = texts.stream(text, asked.transfer_id, asked.peer[0])
    context = StreamContext(request, None, negotiated, stream)
    return Accepted(sender_plan(asked.transfer_id, reader, 0, negotiated, context, is_stream=True), None)


def sender_plan(
    transfer_id: int,
    fd: int,
    size_bytes: int,
    negotiated: Negotiated,
    context: TransferContext,
    *,
    is_stream: bool = False,
) -> TransferPlan:
    """Freeze what was decided about a read.

    Args:
        transfer_id: Of the request.
        fd: The source, the engine's from `start` on.
        size_bytes: Exact; of a stream 0.
        negotiated: What was granted.
        context: Comes back with the Completion.
        is_stream: `fd` is the non-blocking reading end of a pipe.
    """
    return TransferPlan(
        transfer_id=transfer_id,
        role=Role.SENDER,
        fd=fd,
        size_bytes=size_bytes,
        blksize_bytes=negotiated.blksize_bytes,
        windowsize_blocks=negotiated.windowsize_blocks,
        timeout_ns=negotiated.timeout_ns,
        rollover=negotiated.rollover,
        first_packet=negotiated.oack,
        stream=is_stream,
        context=context,
    )
