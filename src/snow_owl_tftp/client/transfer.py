"""One get or put from the first request to its result, and what its end means.

May know: targets, sources, the engine's numbers as `plan` names them. Must not: open sockets or call the engine.
Invariants: a Transfer belongs to one core, whose lock guards it; its future is resolved exactly once, and only when
the engine is done with every descriptor of it.
"""

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from snow_owl_tftp.client.address import ServerAddress
from snow_owl_tftp.client.sources import Source
from snow_owl_tftp.client.targets import Target
from snow_owl_tftp.errors import (
    TransferAborted,
    TransferChanged,
    TransferDiskFull,
    TransferError,
    TransferRefused,
    TransferTimedOut,
)
from snow_owl_tftp.plan import Outcome, Role
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Option

__all__ = [
    "ProgressCallback",
    "Transfer",
    "TransferResult",
    "error_of_completion",
    "has_ended_well",
    "is_no_room",
    "may_ask_plainly",
]

ProgressCallback: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes so far and the size, None where the server does not tell it."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OPTION_ERRORS = frozenset({ErrorCode.OPTION_REFUSED, ErrorCode.NOT_DEFINED, ErrorCode.ILLEGAL_OPERATION})


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
        addresses: Of the server, tried in turn while none answers.
        target: Where a get goes.
        open_target: Makes the target when its turn comes, since one that waits must hold no descriptor.
        source: What a put sends.
        progress: Told about ten times a second, or None.
        is_probe: Only the size is wanted: it is ended at the OACK, or at the first full block of a server without one.
        future: The result; never cancelled through itself, see ClientCore.cancel.
        asked: Options of the request that is in flight.
        plain: Options are not asked for (again).
        answered: The server has sent an OACK: it does know options.
        asked_at_s: When the request was sent first, by the monotonic clock.
        skipped: It was ended because this address is silent and there is another one.
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
    asked: tuple[Option, ...] = ()
    plain: bool = False
    answered: bool = False
    asked_at_s: float = 0.0
    skipped: bool = False
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


def may_ask_plainly(transfer: Transfer, completion: Any) -> bool:
    """Whether a server refused our options, so that the request deserves a second try without them.

    ERROR 8 says so (RFC 2347). Servers older than it answer ERROR 0 or 4; only before anything was agreed on can
    that be about options.
    """
    if completion.outcome != Outcome.PEER_ERROR or not transfer.asked or transfer.cancelled:
        return False
    return not (completion.payload_bytes or transfer.answered) and completion.error in _OPTION_ERRORS


def has_ended_well(transfer: Transfer, completion: Any) -> bool:
    """Whether it did what was wanted; a probe does when we end it at the answer that we waited for."""
    if transfer.error is not None:
        return False
    if transfer.is_probe and completion.outcome == Outcome.ABORTED:
        return transfer.answered or completion.error == errno.EFBIG
    return bool(completion.outcome == Outcome.OK)


def error_of_completion(transfer: Transfer, completion: Any) -> TransferError:
    """What to raise for a transfer that did not end well."""
    text = _printable(completion.text)
    if completion.outcome == Outcome.PEER_ERROR:
        return TransferRefused(completion.error, text)
    if completion.outcome == Outcome.TIMED_OUT:
        return TransferTimedOut(f"timed out: {_silence(transfer, completion)}")
    if completion.outcome == Outcome.UNREACHABLE:
        return TransferTimedOut(_nobody(transfer, completion))
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


def _nobody(transfer: Transfer, completion: Any) -> str:
    if completion.datagrams_in == 0:
        return f"no answer: nobody listens at {', '.join(map(str, transfer.addresses))}"
    return f"the server vanished after {completion.payload_bytes} bytes"


def _silence(transfer: Transfer, completion: Any) -> str:
    if completion.datagrams_in == 0:
        return f"no answer from {', '.join(map(str, transfer.addresses))}"
    return f"the server fell silent after {completion.payload_bytes} bytes"


def _printable(text: bytes) -> str:
    """The server's text as one harmless line."""
    return "".join(c if c.isprintable() else " " for c in text.decode("utf-8", "replace")).strip()
