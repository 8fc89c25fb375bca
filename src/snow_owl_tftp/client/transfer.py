"""One get or put from the first request to its result, and what its end means.

May know: targets, sources, the engine's numbers as `plan` names them. Must not: open sockets or call the engine.
Invariants: a Transfer belongs to one core, whose lock guards it; its future is resolved exactly once, and only when
the engine is done with every descriptor of it.
"""

import errno
import math
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, TypeAlias, runtime_checkable

from snow_owl_tftp.client.address import ServerAddress
from snow_owl_tftp.client.attempts import Attempt
from snow_owl_tftp.client.sources import Source
from snow_owl_tftp.client.targets import Target
from snow_owl_tftp.errors import (
    TransferAborted,
    TransferChanged,
    TransferDiskFull,
    TransferError,
    TransferRefused,
    TransferTimedOut,
    TransferUnreachable,
)
from snow_owl_tftp.plan.transfer import Outcome, Role
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Option

__all__ = [
    "HearsSilence",
    "ProgressCallback",
    "Stage",
    "Transfer",
    "TransferResult",
    "attempts_after",
    "error_of_completion",
    "has_ended_well",
    "is_no_room",
]

ProgressCallback: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes so far and the size, None where the server does not tell it. See HearsSilence too."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OPTION_ERRORS = frozenset({ErrorCode.OPTION_REFUSED, ErrorCode.NOT_DEFINED, ErrorCode.ILLEGAL_OPERATION})


@runtime_checkable
class HearsSilence(Protocol):
    """A progress callback that is told, instead of no progress, that a server has not answered yet."""

    def __call__(self, done_bytes: int, size_bytes: int | None, /) -> None:
        """As any ProgressCallback."""

    def unanswered(self, server: str, asked: int) -> None:
        """Nothing came from `server` (`host:port`), though the request was sent `asked` times, elsewhere included."""


class Stage(Enum):
    """How far the conversation about the request is."""

    ASKED = auto()
    """As far as we heard, nobody has answered."""
    LEFT = auto()
    """Nobody did, and it is ended for that."""
    ANSWERED = auto()
    """The server sent an OACK: it does know options."""
    MISANSWERED = auto()
    """It sent one that breaks the rules, and was told so."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """How a transfer went.

    Attributes:
        payload_bytes: Bytes of DATA payload on the wire, each counted once.
        seconds: From the request to the last ACK, by the monotonic clock.
        options: What the server granted, as in its OACK; empty with a server of RFC 1350.
        blksize: Bytes of a full block.
        windowsize: Blocks between two ACKs.
        tsize: What the sender announced, or None.
        blocks: DATA packets of the file.
        retransmits: Packets that we sent again.
        srtt_s: The round trip we measured, in seconds; 0.0: none was.
        server: Address and TID that served, as `host:port`.
        data: What was received, where it was asked for as bytes.
    """

    payload_bytes: int
    seconds: float
    options: dict[str, str]
    blksize: int
    windowsize: int
    tsize: int | None
    blocks: int
    retransmits: int
    srtt_s: float
    server: str
    data: bytes | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Transfer:
    """A get or put under way.

    Attributes:
        role: RECEIVER: get, SENDER: put.
        name: What the request asks for.
        mode: 'octet' or 'netascii'.
        addresses: Of the server, the best first.
        target: Where a get goes.
        open_target: Makes the target when its turn comes, since one that waits must hold no descriptor.
        source: What a put sends.
        progress: Told about ten times a second, or None.
        is_probe: Only the size is wanted: it is ended at the OACK, or at the first full block of a server without one.
        future: The result; never cancelled through itself, see ClientCore.cancel.
        attempts: The way in which the server is asked, and those that are left while none is answered.
        asked: Options of the request that is in flight.
        asked_total: How often the request was sent in earlier ways.
        began_s: When the server was asked first, by the monotonic clock.
        due_s: When this attempt is left, unless it is answered.
        stage: Of this attempt.
        negotiated: What holds, once the server granted something.
        data: The content, where the target gives one.
        error: What we ended it for; comes before what the engine says.
        cancelled: Nobody waits for it any more.
        delivered: A get's file is in place: it has succeeded, whatever follows.
        finishing: An executor is making it visible.
        ended: The Completion that came meanwhile.
    """

    role: Role
    name: str
    mode: str
    addresses: list[ServerAddress]
    target: Target | None = None
    open_target: Callable[[], Target] | None = None
    source: Source | None = None
    progress: ProgressCallback | None = None
    is_probe: bool = False
    future: "Future[TransferResult]" = field(default_factory=Future)
    attempts: list[Attempt] = field(default_factory=list)
    asked: tuple[Option, ...] = ()
    asked_total: int = 0
    began_s: float = 0.0
    due_s: float = math.inf
    stage: Stage = Stage.ASKED
    negotiated: Negotiated = field(default_factory=Negotiated)
    data: bytes | None = None
    error: BaseException | None = None
    cancelled: bool = False
    delivered: bool = False
    finishing: bool = False
    ended: Any = None

    @property
    def size_bytes(self) -> int | None:
        """What there is to transfer, as far as anybody said."""
        return self.source.size_bytes if self.source is not None else self.negotiated.tsize

    def discard(self) -> None:
        """Nothing of it is to become visible."""
        if self.target is not None:
            self.target.discard()

    def close(self) -> None:
        """The engine is done with its descriptors."""
        if self.target is not None:
            self.target.close()
        if self.source is not None:
            self.source.close()

    def result(self, completion: Any) -> TransferResult:
        """What to tell of one that went well."""
        host, port = completion.peer
        return TransferResult(
            payload_bytes=completion.payload_bytes,
            seconds=completion.duration_ns / 1e9,
            options=dict(self.negotiated.accepted),
            blksize=completion.blksize_bytes,
            windowsize=completion.windowsize_blocks,
            tsize=self.negotiated.tsize,
            blocks=completion.blocks,
            retransmits=completion.retransmits,
            srtt_s=completion.srtt_ns / 1e9,
            server=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            data=self.data,
        )


def is_no_room(error: OSError) -> bool:
    """Whether a file has no room: disk, quota or size limit."""
    return error.errno in _NO_ROOM


def attempts_after(transfer: Transfer, completion: Any) -> list[Attempt]:
    """What is left to try after an attempt that did not end well; empty: nothing, the transfer has failed."""
    here, *others = transfer.attempts
    if transfer.cancelled:
        return []
    if _is_about_options(transfer, completion):
        return [Attempt(here.address, plain=True)]
    if _is_unreachable(completion) and not completion.datagrams_in:
        return [other for other in others if other.address != here.address]
    if not _is_unanswered(transfer, completion):
        return []
    # One that spoke up while it was left is the right one, only slow: the others are forgotten.
    return [here] if completion.datagrams_in else others


def _is_about_options(transfer: Transfer, completion: Any) -> bool:
    """Whether our options are what it failed for, so that the request deserves a second try without them.

    ERROR 8 says so (RFC 2347). Servers older than it answer ERROR 0 or 4; only before anything was agreed on can
    that be about options. A server whose OACK breaks the rules may be sound without one.
    """
    if not transfer.asked:
        return False
    if transfer.stage is Stage.MISANSWERED:
        return True
    refused = completion.outcome == Outcome.PEER_ERROR and completion.error in _OPTION_ERRORS
    return refused and not completion.payload_bytes and transfer.stage is not Stage.ANSWERED


def _is_unanswered(transfer: Transfer, completion: Any) -> bool:
    """Nobody answered, or not in time."""
    if completion.outcome == Outcome.ABORTED:
        return transfer.stage is Stage.LEFT
    return bool(completion.outcome == Outcome.TIMED_OUT and completion.datagrams_in == 0)


def _is_unreachable(completion: Any) -> bool:
    """Its host said that nobody has the server's port; the code of an ERROR is another number."""
    return bool(completion.error == errno.ECONNREFUSED and completion.outcome != Outcome.PEER_ERROR)


def has_ended_well(transfer: Transfer, completion: Any) -> bool:
    """Whether it did what was wanted; a probe does when we end it at the answer that we waited for."""
    if transfer.error is not None:
        return False
    if transfer.is_probe and completion.outcome == Outcome.ABORTED:
        return transfer.stage is Stage.ANSWERED or completion.error == errno.EFBIG
    return bool(completion.outcome == Outcome.OK)


def error_of_completion(transfer: Transfer, completion: Any) -> TransferError:
    """What to raise for a transfer that did not end well."""
    text = _printable(completion.text)
    if completion.outcome == Outcome.PEER_ERROR:
        return TransferRefused(completion.error, text)
    if completion.outcome == Outcome.TIMED_OUT or _is_unanswered(transfer, completion):
        return TransferTimedOut(f"timed out: {_silence(transfer, completion)}")
    if _is_unreachable(completion):
        return TransferUnreachable(f"unreachable: {_absence(transfer, completion)}")
    if completion.outcome == Outcome.CHANGED:
        return TransferChanged("the file changed while it was sent")
    if completion.outcome == Outcome.ABORTED and completion.error == errno.EFBIG:
        return _too_much(transfer)
    if completion.outcome == Outcome.LOCAL_IO_ERROR:
        reason = os.strerror(completion.error)
        if completion.error in _NO_ROOM:
            return TransferDiskFull(f"disk full: {reason}")
        return TransferError(f"local I/O error: {reason}")
    return TransferAborted(f"aborted: {text}" if text else "aborted")


def _too_much(transfer: Transfer) -> TransferError:
    if transfer.negotiated.tsize is not None:
        return TransferChanged(f"changed: the server announced {transfer.negotiated.tsize} bytes and sent more")
    return TransferDiskFull("larger than max_size_bytes")


def _silence(transfer: Transfer, completion: Any) -> str:
    if completion.datagrams_in == 0:
        return f"no answer from {', '.join(map(str, transfer.addresses))}"
    return f"the server fell silent after {completion.payload_bytes} bytes"


def _absence(transfer: Transfer, completion: Any) -> str:
    if completion.datagrams_in == 0:
        return f"nothing listens on {transfer.attempts[0].address}"
    return f"the server went away after {completion.payload_bytes} bytes"


def _printable(text: bytes) -> str:
    """The server's text as one harmless line."""
    return "".join(c if c.isprintable() else " " for c in text.decode("utf-8", "replace")).strip()
