"""The words in which a request is answered: what is asked, what is decided, and what is remembered of a transfer.

    IncomingRequest ─Decider─► Verdict = Accepted(TransferPlan, its context) | Refused(ERROR)

May know: protocol, the plan and who asks. Must not decide, open anything, or know the engine.

Invariants:
- A Verdict that is not carried out must be discarded, since it may hold a descriptor.
- What one context remembers holds for every transfer that the engine makes of its plan.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from snow_owl_tftp.errors import InternalError, RefusedError, TftpError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.plan.transfer import Outcome, Role, TransferPlan
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.client_limits import ClientLimits
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Request, build_error

__all__ = [
    "Accepted",
    "CommitRefusal",
    "Decider",
    "Ending",
    "Flow",
    "IncomingRequest",
    "Pours",
    "Refused",
    "Sink",
    "StreamContext",
    "TransferContext",
    "UploadContext",
    "Verdict",
    "refuse",
]

Flow: TypeAlias = tuple[int, bytes, bytes]
"""Directory descriptor, path beneath it, the request's datagram: lets the engine repeat this decision by itself, for
clients of the same class as the one who asked (TransferServer.set_classes); without classes for everybody."""


class IncomingRequest(Asker, Protocol):
    """What a decision may look at; the engine's Request has this shape."""

    @property
    def transfer_id(self) -> int:
        """Names the request to the engine."""

    @property
    def datagram(self) -> bytes:
        """The RRQ or WRQ, unparsed."""

    def charge(self, limits: ClientLimits | None) -> str | None:
        """Charge its client for it by the rule that decides; the limit that it is beyond, or None: it may."""


class Ending(Protocol):
    """What a context may look at when a transfer has ended; the engine's Completion has this shape."""

    @property
    def transfer_id(self) -> int:
        """As of the request."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and TID of the client."""

    @property
    def outcome(self) -> int:
        """Of `plan.transfer.Outcome`."""

    @property
    def is_stuck(self) -> bool:
        """A write to the sink is still under way."""


class Remembers(Protocol):
    """What hears of files that clients have received."""

    def note(self, host: str, path: bytes) -> None:
        """A client has received the file of this path."""


class TransferContext:
    """What Python remembers of a transfer; the engine hands it back with the Completion.

    One context may serve many transfers, when the engine repeats a decision: nothing here may differ
    from client to client.

    Attributes:
        request: As parsed.
        size_bytes: Of the content sent, or of the upload as announced; None: it was not.
        negotiated: The options granted.
        held: Of `OpenFile`; lives as long as this does.
        found: The path under which the content was found although nobody asked for it so, and by which way; None: as
            it was asked for.
        remembers: Whom to tell, by `note(host, path)`, that a client has received the file of this path; None: nobody.
    """

    __slots__ = ("found", "held", "negotiated", "remembers", "request", "size_bytes")

    def __init__(self, request: Request, size_bytes: int | None, negotiated: Negotiated, held: object = None) -> None:
        self.held = held
        self.request = request
        self.size_bytes = size_bytes
        self.negotiated = negotiated
        self.found: tuple[bytes, str] | None = None
        self.remembers: tuple[Remembers, bytes] | None = None

    def begin(self) -> None:
        """The engine has taken the plan; called once a plan that Python started, in the event loop."""

    def ended(self, ending: Ending) -> None:
        """One transfer has ended, whoever hears of it; exactly once a transfer. Must not wait."""
        if self.remembers is not None and ending.outcome == Outcome.OK:
            memory, path = self.remembers
            memory.note(ending.peer[0], path)

    def retired(self) -> None:
        """Give up what transfers needed, without waiting: none is left, and none will begin any more.

        Exactly once a plan, also where none of its transfers ever began.
        """


class Pours(Protocol):
    """What writes into the pipe of a plan with `stream`."""

    def begin(self) -> None:
        """See TransferContext.begin."""

    def release(self) -> None:
        """Give the pipe up, without waiting: its transfer has ended, or will never begin."""


class StreamContext(TransferContext):
    """The context of a plan whose source is a pipe."""

    __slots__ = ("_stream",)

    def __init__(self, request: Request, size_bytes: int | None, negotiated: Negotiated, stream: Pours) -> None:
        super().__init__(request, size_bytes, negotiated)
        self._stream = stream

    def begin(self) -> None:
        """See TransferContext.begin."""
        self._stream.begin()

    def retired(self) -> None:
        """See TransferContext.retired."""
        self._stream.release()


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

    def ended(self, ending: Ending) -> None:
        """See TransferContext.ended."""
        if ending.outcome != Outcome.OK:
            self.failed = ending.transfer_id, ending.peer
        if ending.is_stuck:
            self.abandon()  # its file may still be written to: it retires when that is over

    @abstractmethod
    def retired(self) -> None:
        """Close the sink, if there is one, without waiting; what was not committed is gone.

        `open` or `commit` may still be under way.
        """


class Accepted(Struct):
    """The request becomes a transfer.

    Attributes:
        plan: For engine.start, which takes its source descriptor over; `context` is a TransferContext, of a
            RECEIVER an UploadContext.
        flow: None where the decision must be made anew for every client.
    """

    plan: TransferPlan
    flow: Flow | None

    def discard(self) -> None:
        """Close what the plan holds, since nobody will start it."""
        self.plan.context.retired()
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

    def decide(self, incoming: IncomingRequest) -> Verdict | Awaitable[Verdict]:
        """Decide; called by the loop, so whoever must wait returns an awaitable.

        Args:
            incoming: The request.

        Returns:
            The Verdict, or an awaitable of it: a future, or the coroutine of an `async def`.
        """


def refuse(request: Request | None, error: RefusedError) -> Refused:
    """Answer with the ERROR that an exception carries, or not at all where it says so."""
    return Refused(b"" if error.is_silent else build_error(error.code, error.text), error, request)
