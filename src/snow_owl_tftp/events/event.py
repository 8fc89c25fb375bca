"""The events: frozen, made only where somebody wants them.

May know: requests, and how a transfer ended. What the engine tells is not copied: an event holds the engine's own
object, whose figures are made when they are looked at, and says here in which shape.
"""

from typing import Protocol, TypeAlias

from msgspec import Struct

from snow_owl_tftp.errors import TftpError
from snow_owl_tftp.protocol.packets import Request

__all__ = [
    "BatchCalls",
    "BatchingChanged",
    "Event",
    "LimitReached",
    "RequestDropped",
    "RequestRefused",
    "StoredAfterFailure",
    "Subject",
    "TransferEnded",
    "TransferStarted",
]


class Subject(Protocol):
    """Whom an event is about."""

    @property
    def transfer_id(self) -> int:
        """Joins all events of one request."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and TID of the client."""


class _Agreed(Protocol):
    """What was negotiated: a plan, or a Completion."""

    @property
    def blksize_bytes(self) -> int:
        """As it is used."""

    @property
    def windowsize_blocks(self) -> int:
        """As it is used."""


class _Ending(Subject, _Agreed, Protocol):
    """How a transfer ended: the engine's Completion."""

    @property
    def outcome(self) -> int:
        """Of plan.transfer.Outcome."""

    @property
    def role(self) -> int:
        """Of plan.transfer.Role."""

    @property
    def error(self) -> int:
        """The peer's ERROR code, or an errno of ours."""

    @property
    def text(self) -> bytes:
        """Why it failed; the peer's text is untrusted."""

    @property
    def payload_bytes(self) -> int:
        """What arrived, as far as is known."""

    @property
    def blocks(self) -> int:
        """Likewise."""

    @property
    def retransmits(self) -> int:
        """How often something was sent again."""

    @property
    def duration_ns(self) -> int:
        """From the request on."""

    @property
    def flow_hit(self) -> bool:
        """The engine began it by itself, so that nothing was told at its beginning."""


class _Refusals(Protocol):
    """Requests that a worker refused by itself: the engine's Refusals."""

    @property
    def worker(self) -> int:
        """Which one."""

    @property
    def limit(self) -> str:
        """By which limit."""

    @property
    def count(self) -> int:
        """Since it last said so."""

    @property
    def peer(self) -> tuple[str, int]:
        """Of the last of them."""


class _ModeChange(Protocol):
    """The engine's ModeChange."""

    @property
    def worker(self) -> int:
        """Which one."""

    @property
    def mode(self) -> int:
        """0 at once, 1 batching, 2 lingering."""

    @property
    def live_transfers(self) -> int:
        """What it was decided by."""

    @property
    def linger_ns(self) -> int:
        """Likewise."""

    @property
    def datagrams_per_s(self) -> int:
        """Likewise."""


class TransferStarted(Struct, frozen=True):
    """A request was accepted, and the engine has its plan.

    Attributes:
        incoming: The request, as it came.
        agreed: Its plan.
        request: The request, parsed.
        size_bytes: Of the content; of an upload as announced. None: unknown.
        found: The path under which it was found although nobody asked for it so, and by which way; None: as it was
            asked for.
    """

    incoming: Subject
    agreed: _Agreed
    request: Request
    size_bytes: int | None
    found: tuple[bytes, str] | None = None


class TransferEnded(Struct, frozen=True):
    """A transfer ended, well or not.

    Attributes:
        ending: How.
        request: What had been asked for.
        size_bytes: As of TransferStarted.
        found: Likewise.
    """

    ending: _Ending
    request: Request
    size_bytes: int | None
    found: tuple[bytes, str] | None = None


class RequestRefused(Struct, frozen=True):
    """A request got an ERROR, or silence.

    Attributes:
        incoming: The request, as it came.
        request: Parsed; None: it did not parse, or nobody can tell any more.
        cause: What was wrong.
    """

    incoming: Subject
    request: Request | None
    cause: TftpError


class RequestDropped(Struct, frozen=True):
    """A request waited for a decision until its client had given up."""


class StoredAfterFailure(Struct, frozen=True):
    """An upload is in its place although its transfer failed, which was told before.

    Attributes:
        transfer_id: Of the transfer.
        peer: Host and TID of the client.
        request: What had been asked for.
    """

    transfer_id: int
    peer: tuple[str, int]
    request: Request


class LimitReached(Struct, frozen=True):
    """A worker refused requests without asking; at most once a second, worker and limit."""

    refusals: _Refusals


class BatchingChanged(Struct, frozen=True):
    """A worker gathers more, or less, into one call than before."""

    change: _ModeChange


class BatchCalls(Struct, frozen=True):
    """What the system calls carried since the last such event; a mean is 0 where there was no call.

    Attributes:
        receive_calls: recvmmsg, recvmsg and recvfrom, empty ones included.
        datagrams_per_receive: Mean over the calls that found something.
        empty_calls: Receive calls that found nothing.
        send_calls: sendmmsg, sendmsg and sendto.
        datagrams_per_send: Mean over all; a GSO train counts as its datagrams.
    """

    receive_calls: int
    datagrams_per_receive: float
    empty_calls: int
    send_calls: int
    datagrams_per_send: float


Event: TypeAlias = (
    TransferStarted
    | TransferEnded
    | RequestRefused
    | RequestDropped
    | StoredAfterFailure
    | LimitReached
    | BatchingChanged
    | BatchCalls
)
