"""What the kernel says of neighbours, into the table of policy: all of them at first, then each change as it comes.

May know: netlink's words and the table. Must not wait: it is called by the event loop, and by whoever meets an address
that is not known, in any thread.

Invariants: one thread reads at a time, and whoever would be the second goes on without; a turn reads a bounded number
of datagrams; where changes were lost, all is asked for again, and who is not named then is forgotten.
"""

import errno
import threading
from typing import Final

from snow_owl_tftp.linux.neighbours import AllTold, Neighbour, NeighbourSocket
from snow_owl_tftp.policy.machines.neighbours import NeighbourTable

__all__ = ["Hearing"]

_AT_ONCE: Final = 4
"""Datagrams that somebody reads who only wants to know of one address; each takes some 20 µs."""
_A_TURN: Final = 32
_AT_THE_START: Final = 10_000
"""A dump of a full table."""


class Hearing:
    """Keeps one table fresh.

    Attributes:
        lost_total: How often changes were lost, so that all was asked for again.
    """

    def __init__(self, table: NeighbourTable) -> None:
        """Learn what is known now.

        Raises:
            OSError: There is no netlink for us.
        """
        self._table = table
        self._socket = NeighbourSocket()
        self._is_reading = threading.Lock()
        self._named: set[str] | None = None
        self._must_ask = True
        self.lost_total = 0
        try:
            self._read(_AT_THE_START)
        except BaseException:
            self._socket.close()
            raise
        table.look = self.look

    def fileno(self) -> int:
        """For an event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear nothing any more; what is known stays."""
        self._table.look = lambda: None
        with self._is_reading:  # for as long as a few datagrams take
            self._socket.close()

    def look(self) -> None:
        """Learn what has come, a little of it."""
        self._read_unless_busy(_AT_ONCE)

    def on_readable(self) -> None:
        """Learn what has come; the rest of much has another turn."""
        self._read_unless_busy(_A_TURN)

    def refresh(self) -> None:
        """Ask for all, in case something was missed."""
        self._must_ask = True
        self._read_unless_busy(_A_TURN)

    def _read_unless_busy(self, max_datagrams: int) -> None:
        if self._is_reading.acquire(blocking=False):
            try:
                if self._socket.fileno() >= 0 and (self._must_ask or self._socket.has_news()):
                    self._read(max_datagrams)
            except OSError:  # what netlink refuses now it may grant at the next refresh
                self._named = None
            finally:
                self._is_reading.release()

    def _read(self, max_datagrams: int) -> None:
        for _ in range(max_datagrams):
            if self._must_ask and self._named is None and self._socket.ask():
                self._must_ask, self._named = False, set()
            try:
                said = self._socket.read()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost_total += 1
                self._must_ask, self._named = True, None
                continue
            if said is None:
                return
            for what in said:
                self._learn(what)

    def _learn(self, what: Neighbour | AllTold) -> None:
        if isinstance(what, AllTold):
            if self._named is not None and what.is_consistent:
                self._table.keep_only(self._named)
            self._named = None
        elif what.mac is not None:
            self._table.seen(what.address, what.mac)
            if self._named is not None:
                self._named.add(what.address)
        else:
            self._table.gone(what.address)
            if self._named is not None:
                self._named.discard(what.address)
