"""Closing descriptors.

May know: numbers of descriptors. Must not know what they are of.
"""

import os
from contextlib import suppress

__all__ = ["close_descriptor"]


def close_descriptor(fd: int) -> None:
    """Close a descriptor, whatever the kernel says about it.

    On Linux it is gone when close(2) fails too, so there is nothing to do about an errno, and it must not keep anybody
    from closing the next one. EIO, ENOSPC and EDQUOT may come from a file server and tell of what was written: whoever
    has promised that it is on the disk has asked fsync(2) before.

    Args:
        fd: Open, and not used by anybody from now on.
    """
    with suppress(OSError):
        os.close(fd)
