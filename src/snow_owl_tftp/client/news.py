"""What callers' code is to be told: progress, silence, and the result.

May know: transfers. Must not: hold a lock while it tells, since a callback may wait for another thread that uses the
client.
Invariants: one thread tells, so that a callback hears in order; a future is resolved after the last callback; a
callback that raises fails its own transfer only.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from snow_owl_tftp.client.progress import SilenceAware
from snow_owl_tftp.client.transfer import Transfer, TransferResult

__all__ = ["News"]


@dataclass(frozen=True, slots=True)
class _Item:
    """How far a transfer is, and with a `result` that it is done."""

    transfer: Transfer
    done_bytes: int
    result: TransferResult | None = None
    silent: tuple[str, int] | None = None


class News:
    """A queue of them."""

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()

    def add_progress(self, transfer: Transfer, done_bytes: int, silent: tuple[str, int] | None) -> None:
        """How far it is. `silent`: which server has not answered yet, and how often one was asked."""
        self._items.append(_Item(transfer, done_bytes, silent=silent))

    def add_result(self, transfer: Transfer, done_bytes: int, result: TransferResult) -> None:
        """It has ended well."""
        self._items.append(_Item(transfer, done_bytes, result))

    def tell(self, cancel: Callable[[Transfer], None]) -> None:
        """Call the callbacks, and resolve the futures of those that have ended well.

        Args:
            cancel: Ends a transfer whose callback raised.
        """
        while self._items:
            _tell(self._items.popleft(), cancel)


def _tell(item: _Item, cancel: Callable[[Transfer], None]) -> None:
    transfer = item.transfer
    if transfer.future.done():
        return
    try:
        _call(transfer, item)
    except BaseException as error:  # anything that a caller's code raises
        transfer.error = transfer.error or error
        if item.result is None:
            cancel(transfer)
        else:
            transfer.future.set_exception(error)
    else:
        if item.result is not None:
            transfer.future.set_result(item.result)


def _call(transfer: Transfer, item: _Item) -> None:
    if item.silent is not None and isinstance(transfer.progress, SilenceAware):
        transfer.progress.unanswered(*item.silent)
    elif transfer.progress is not None:
        transfer.progress(item.done_bytes, transfer.size_bytes)
