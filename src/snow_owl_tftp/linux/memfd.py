"""Files that live in memory and have no name (memfd_create(2)).

    memory_file("get")                              empty, to be written
    memory_file("text", pieces, seals=READ_ONLY)    filled, and nobody changes it any more

May know: descriptors and bytes. Must not know what is in them.
Invariant: a file that could not be filled leaves no descriptor behind.
"""

import fcntl
import os
from collections.abc import Iterable
from typing import Final

from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.write_all import write_all

__all__ = ["FULL", "READ_ONLY", "memory_file"]

READ_ONLY: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Seals (fcntl(2)): its size and its bytes stay as they are."""
FULL: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Seals: whoever writes to it is told EPERM."""


def memory_file(name: str, chunks: Iterable[bytes] = (), *, seals: int = 0) -> int:
    """Return a descriptor of a file in memory, close-on-exec, open for reading and writing.

    Args:
        name: What /proc/PID/fd calls it; need not be its own.
        chunks: What is written to it.
        seals: What nobody may do to it afterwards: F_SEAL_…; 0: it stays as writable as it is.

    Raises:
        OSError: Memory or descriptors are short.
        Exception: Whatever `chunks` raises.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if seals else 0))
    try:
        for chunk in chunks:
            write_all(fd, chunk)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        close_descriptor(fd)
        raise
    return fd
