"""What belongs to the process before a server is in it: its descriptors, and the process beside it for what may hang.

May know: the operating system. Must not know servers. For the main thread of a process of its own.
"""

import asyncio
import os
import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from snow_owl_tftp._engine.disk import apart
from snow_owl_tftp.server.narrate import Report

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["begin_host", "occupy_standard_descriptors", "raise_descriptor_limit", "watch_host"]

_HOST_ENDED: Final = 70
"""EX_SOFTWARE of sysexits.h."""


def occupy_standard_descriptors() -> None:
    """Put /dev/null where whoever started us closed 0, 1 or 2: what is opened next would be taken for one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def raise_descriptor_limit() -> None:
    """Let the process open as many files as the system permits it: every file being sent takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # cannot fail: the hard limit is always allowed


def begin_host(log: "FilteringBoundLogger") -> int:
    """Have what may hang in a process of its own, which lets this one end; returns its id, 0: there is none."""
    try:
        return apart.begin()
    except OSError as error:
        log.info("threads for files are in this process: it does not end while one of them hangs", reason=str(error))
        return 0


def watch_host(host: int, report: Report) -> None:
    """Without it no file is read any more; whoever started us starts us again."""

    def on_ended() -> None:
        report.log.error("the process of the threads for files was killed, so this one ends too", pid=host)
        os._exit(_HOST_ENDED)

    with suppress(OSError):  # before Linux 5.3
        asyncio.get_running_loop().add_reader(os.pidfd_open(host), on_ended)
