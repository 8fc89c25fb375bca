"""What the end of an attempt means: success, another way to ask, or which error.

May know: transfers, errno, the engine's numbers as `plan` names them. Must not: call the engine or change a transfer.
"""

import errno
import os
from typing import Any

from snow_owl_tftp.client.attempt import Attempt
from snow_owl_tftp.client.transfer import NEXT, State, Step, Transfer
from snow_owl_tftp.errors import (
    TransferAborted,
    TransferChanged,
    TransferDiskFull,
    TransferError,
    TransferRefused,
    TransferTimedOut,
    TransferUnreachable,
)
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["attempts_after", "error_of_completion", "has_ended_well", "is_no_room"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OPTION_ERRORS = frozenset({ErrorCode.OPTION_REFUSED, ErrorCode.NOT_DEFINED, ErrorCode.ILLEGAL_OPERATION})


def is_no_room(error: OSError) -> bool:
    """Whether a file has no room: disk, quota or size limit."""
    return error.errno in _NO_ROOM


def attempts_after(transfer: Transfer, completion: Any) -> list[Attempt]:
    """What is left to try after an attempt that did not end well; empty: nothing, the transfer has failed."""
    here, *others = transfer.attempts
    if (transfer.state, Step.RETRY) not in NEXT:
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
    if transfer.state is State.MISANSWERED:
        return True
    refused = completion.outcome == Outcome.PEER_ERROR and completion.error in _OPTION_ERRORS
    return refused and not completion.payload_bytes


def _is_unanswered(transfer: Transfer, completion: Any) -> bool:
    """Nobody answered, or not in time."""
    if completion.outcome == Outcome.ABORTED:
        return transfer.state is State.LEFT
    return bool(completion.outcome == Outcome.TIMED_OUT and completion.datagrams_in == 0)


def _is_unreachable(completion: Any) -> bool:
    """Its host said that nobody has the server's port; the code of an ERROR is another number."""
    return bool(completion.error == errno.ECONNREFUSED and completion.outcome != Outcome.PEER_ERROR)


def has_ended_well(transfer: Transfer, completion: Any) -> bool:
    """Whether it did what was wanted; a probe does when we end it at the answer that we waited for."""
    if transfer.state is State.DELIVERED:
        return True
    if transfer.error is not None:
        return False
    if transfer.is_probe and completion.outcome == Outcome.ABORTED:
        return transfer.state is State.ANSWERED or completion.error == errno.EFBIG
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
