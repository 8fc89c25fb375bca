"""Whose turn it is: transfers that wait, those under way, and sockets that only repeat a last ACK.

    submit ─► waiting ──► live ──► leave
                 └─ again ◄─┘

May know: transfers, how they ask, the engine's `abort`. Must not: read events or wait for anything.
Invariants: no more are under way than `limit`; who came first asks first; a transfer that cannot ask is failed, and
the next one gets its turn. The client's lock guards all of it.
"""

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from snow_owl_tftp.client.address import is_no_descriptor
from snow_owl_tftp.client.asking import Asking
from snow_owl_tftp.client.transfer import Transfer
from snow_owl_tftp.errors import TransferAborted, TransferError

__all__ = ["TransferQueue"]

_DALLY_S = 5.0
"""How long the engine keeps the socket of a download, to repeat its last ACK."""
_CLOSING_S = 0.2
"""Until a socket that is wanted back is closed for certain."""


class TransferQueue:
    """Transfers in their order.

    Args:
        engine: Of the client.
        asking: Sends their requests.
        limit: How many may be under way.

    Attributes:
        live: Those that are.
    """

    def __init__(self, engine: Any, asking: Asking, limit: int) -> None:
        self._engine = engine
        self._asking = asking
        self._limit = limit
        self._waiting: deque[Transfer] = deque()
        self._dallying: deque[tuple[float, int]] = deque()
        self._is_closed = False
        self.live: set[Transfer] = set()

    @property
    def is_empty(self) -> bool:
        """Nobody waits, and nothing is under way."""
        return not (self.live or self._waiting)

    def submit(self, transfer: Transfer) -> None:
        """Ask, or let it wait its turn.

        Raises:
            OSError: There is no route; no descriptor, and none that will be given back.
            ValueError: The request fits no packet.
        """
        if self._has_room() and not self._waiting:
            self._ask_or_wait(transfer)
        else:
            self._asking.check(transfer)
            self._waiting.append(transfer)

    def ask_again(self, transfer: Transfer) -> None:
        """Ask in the next way; it fails where that cannot be done."""
        try:
            if self._is_closed:
                raise TransferAborted("the client was closed")
            self._ask_or_wait(transfer)
        except (OSError, ValueError, TransferError) as error:
            transfer.fail(error)

    def ask_waiting(self) -> None:
        """Those whose turn has come."""
        while self._waiting and self._has_room():
            transfer = self._waiting.popleft()
            self.ask_again(transfer)
            if self._waiting and self._waiting[0] is transfer:
                return  # no descriptor yet

    def withdraw(self, transfer: Transfer) -> bool:
        """Take one out that waits; False: it does not."""
        if transfer not in self._waiting:
            return False
        self._waiting.remove(transfer)
        return True

    def leave(self, transfer: Transfer) -> None:
        """Its attempt is over."""
        self.live.discard(transfer)

    def dally(self, transfer_id: int) -> None:
        """The socket of a download that is over repeats the last ACK for a while."""
        self._dallying.append((time.monotonic() + _DALLY_S, transfer_id))

    def close(self) -> Iterable[Transfer]:
        """Nobody asks any more; returns who waited. May be called twice."""
        self._is_closed = True
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def _has_room(self) -> bool:
        now_s = time.monotonic()
        while self._dallying and self._dallying[0][0] < now_s:
            self._dallying.popleft()
        if len(self.live) < self._limit and len(self._dallying) > self._limit:
            # A socket that only waits for a lost ACK is worth less than a transfer that waits for a socket.
            self._engine.abort(self._dallying.popleft()[1])
        return len(self.live) < self._limit

    def _ask_or_wait(self, transfer: Transfer) -> None:
        """Where no descriptor is left (the caller's own files count too), one that is under way gives some back."""
        try:
            self._asking.send(transfer)
        except OSError as error:
            if not is_no_descriptor(error) or not (self.live or self._dallying):
                raise
            self._end_dallying()
            self._waiting.appendleft(transfer)
        else:
            self.live.add(transfer)

    def _end_dallying(self) -> None:
        """Their sockets are wanted; until these are closed for certain, there is something to wait for."""
        soon_s = time.monotonic() + _CLOSING_S
        for due_s, transfer_id in self._dallying:
            if due_s > soon_s:
                self._engine.abort(transfer_id)
        self._dallying = deque((min(due_s, soon_s), transfer_id) for due_s, transfer_id in self._dallying)
