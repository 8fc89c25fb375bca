"""Writing all of something: write(2) may take a part, and says how much it took.

May know: descriptors. Must not know what they are of.
"""

import os

__all__ = ["pwrite_all", "write_all"]

_Bytes = bytes | bytearray | memoryview


def write_all(fd: int, data: _Bytes) -> None:
    """Write all of `data` where the descriptor stands.

    Args:
        fd: Of a file; a descriptor that may take nothing now (a pipe that is non-blocking) needs a loop of its own.
        data: Bytes.

    Raises:
        OSError: A part of it may have been written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def pwrite_all(fd: int, data: _Bytes, offset_bytes: int) -> int:
    """Write all of `data` at an offset; returns the offset behind it.

    Raises:
        OSError: A part of it may have been written.
    """
    rest = memoryview(data)
    while rest:
        written_bytes = os.pwrite(fd, rest, offset_bytes)
        offset_bytes += written_bytes
        rest = rest[written_bytes:]
    return offset_bytes
