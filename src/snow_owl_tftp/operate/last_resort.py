"""The process ends in time, whatever hangs: a disk, a file server, a thread that nobody thought of.

    begin(12 s) ─► a thread that waits ─► the log says what hangs ─► sockets and pipes are closed ─► _exit(0)

May know: the process. Must not know what hangs, but how much of it.

Invariants:
- What was asked to end ends with status 0, since everything that could be done was done.
- Before, nobody is made to wait for us: what others hold the other end of is closed, for threads that hang (see
  `apart`) keep the descriptors of the process for as long as they do.
- Nothing here waits longer than a moment, log included.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from snow_owl_tftp.server.narrate import Report

__all__ = ["LastResort"]

_LOG_S: Final = 0.1
"""What the log may take: its file may be what hangs."""
_OF_OTHERS: Final = ("socket:", "pipe:", "/dev/pts/", "/dev/tty")


class LastResort:
    """Ends the process."""

    def __init__(self, report: Report, count_hung: Callable[[], int]) -> None:
        """Prepare.

        Args:
            report: Told.
            count_hung: How many threads hang now.
        """
        self._report = report
        self._count_hung = count_hung

    def begin(self, timeout_s: float) -> None:
        """End the process when `timeout_s` are over and it has not ended by itself."""
        timer = threading.Timer(timeout_s, self._end_late)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no thread is to be had; the kernel needs none, and has no words
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, timeout_s)

    def tell(self) -> None:
        """Log what is left behind, if anything is."""
        if hung := self._count_hung():
            self._report.log.warning("left behind what hangs", threads=hung)

    def leave(self) -> None:
        """Let go of what others wait for, and end the process if something hangs; call it when all else is done."""
        let_go_of_others()
        if self._count_hung():
            os._exit(0)

    def _end_late(self) -> None:
        telling = threading.Thread(target=self._tell_late, daemon=True)
        with suppress(RuntimeError):  # no thread is to be had
            telling.start()
            telling.join(_LOG_S)
        let_go_of_others()
        os._exit(0)

    def _tell_late(self) -> None:
        with suppress(Exception):
            self._report.log.warning("not everything has ended in time", threads=self._count_hung())


def let_go_of_others() -> None:
    """Close what others may wait for: sockets, pipes, terminals. Files stay: their end may hang."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            # A file may be on a mount that hangs, and closing it asks that.
            if os.readlink(f"/proc/self/fd/{fd}").startswith(_OF_OTHERS):  # noqa: PTH115 - nothing may fail here
                os.dup2(null, fd)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - nothing may fail here
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(_OF_OTHERS):  # noqa: PTH115 - as above
                    os.close(int(name))
