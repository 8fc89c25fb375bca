"""What follows the last DATA of a get: its file is made visible, and only then the last ACK leaves.

    Received ─► begin ─► target.complete ─► on_finished(transfer, transfer_id, None or a Refusal)

May know: targets. Must not: call the engine, or change a transfer but for its `data`.
Invariant: what may block (copying into somebody's file object, decoding text) is done by threads of its own, and not
by the thread that reads events.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from snow_owl_tftp.client.endings import is_no_room
from snow_owl_tftp.client.transfer import Transfer
from snow_owl_tftp.errors import TransferDiskFull, TransferError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["CANCELLED", "Finisher", "Refusal"]

_THREADS = 2


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file is not in its place.

    Attributes:
        code: Of the ERROR that the server gets instead of the last ACK.
        text: Of that ERROR.
        number: The errno; 0: there is none.
        error: What to raise; None: that is known already.
    """

    code: ErrorCode
    text: bytes
    number: int = 0
    error: BaseException | None = None


CANCELLED = Refusal(ErrorCode.NOT_DEFINED, b"cancelled")

OnFinished: TypeAlias = Callable[[Transfer, int, Refusal | None], None]


class Finisher:
    """Makes files visible."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def begin(self, transfer: Transfer, transfer_id: int, on_finished: OnFinished) -> None:
        """Make it visible: now, or in a thread where that may block.

        Args:
            transfer: A get that has received everything.
            transfer_id: Its number in the engine.
            on_finished: Called with both, and with why its file is not in place (None: it is); by any thread.
        """
        assert transfer.target is not None
        if not transfer.target.is_slow:
            _finish(transfer, transfer_id, on_finished)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "tftp-finish")
        self._threads.submit(_finish, transfer, transfer_id, on_finished)

    def close(self) -> None:
        """Wait for those that have begun."""
        if self._threads is not None:
            self._threads.shutdown()


def _finish(transfer: Transfer, transfer_id: int, on_finished: OnFinished) -> None:
    on_finished(transfer, transfer_id, _completed(transfer))


def _completed(transfer: Transfer) -> Refusal | None:
    assert transfer.target is not None
    if transfer.is_cancelled:
        return CANCELLED
    try:
        transfer.data = transfer.target.complete()
    except OSError as error:
        return _refusal_of(error)
    except BaseException as error:  # somebody's file object: its error is handed on as it is
        return Refusal(ErrorCode.NOT_DEFINED, b"the receiver failed", error=error)
    return None


def _refusal_of(error: OSError) -> Refusal:
    reason = error.strerror or error
    raised: TransferError
    if is_no_room(error):
        code, text = ErrorCode.DISK_FULL, b"disk full or allocation exceeded"
        raised = TransferDiskFull(f"disk full: {reason}")
    else:
        code, text = ErrorCode.NOT_DEFINED, b"I/O error while writing the file"
        raised = TransferError(f"local I/O error: {reason}")
    raised.__cause__ = error
    return Refusal(code, text, error.errno or 0, raised)
