"""What an upload sends: bytes, a path or a file object, always as a descriptor of exact size.

May know: files, netascii. Must not know: sockets or packets.
Invariants: `fd` holds `size_bytes` from offset 0 on; the size is known before the WRQ leaves, so tsize is exact.
"""

import errno
import io
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from snow_owl_tftp.linux.memfd import memory_file
from snow_owl_tftp.protocol import netascii

__all__ = ["Source", "source_for"]

_CHUNK_BYTES = 1 << 20


class Source:
    """An open file to send, and its size.

    Attributes:
        fd: Open for reading; this object's until `close`.
        size_bytes: What there is to send.
    """

    __slots__ = ("fd", "size_bytes")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size_bytes = os.fstat(fd).st_size

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def source_for(content: "bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO", mode: str) -> Source:
    """Open what a caller wants to send.

    Args:
        content: Bytes; a path; or a file object open for reading bytes, read from where it stands to its end.
        mode: 'netascii' converts a copy.

    Raises:
        OSError: It cannot be read, or is a directory.
        TypeError: It is none of these.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        chunks = [bytes(content)]
        return Source(memory_file("tftp-put", netascii.encode_chunks(chunks) if mode == "netascii" else chunks))
    if isinstance(content, str | os.PathLike):
        with Path(content).open("rb") as file:
            return _of_file(file, mode)
    if hasattr(content, "read"):
        return _of_file(content, mode)
    raise TypeError(f"expected bytes, a path or a file object, not {type(content).__name__}")


def _of_file(file: BinaryIO, mode: str) -> Source:
    if mode == "octet" and (fd := _plain_file(file)) is not None:
        return Source(fd)
    # A pipe has no size, and the engine reads at any offset: a copy has both.
    with tempfile.TemporaryFile() as spool:
        for chunk in _chunks(file):
            spool.write(netascii.encode(chunk) if mode == "netascii" else chunk)
        spool.flush()
        return Source(os.dup(spool.fileno()))


def _plain_file(file: BinaryIO) -> int | None:
    """A second descriptor of the file, where its bytes are those on disk and nothing of it was read.

    Only Python's own files count: the descriptor of a gzip.GzipFile holds compressed bytes.
    """
    raw = file.raw if isinstance(file, io.BufferedReader | io.BufferedRandom) else file
    if type(raw) is not io.FileIO:
        return None
    fd = file.fileno()
    try:
        plain = stat.S_ISREG(os.fstat(fd).st_mode) and file.tell() == 0 and _is_on_disk(fd)
    except OSError:  # it cannot be told where it stands, or cannot be mapped
        return None
    return os.dup(fd) if plain else None


def _is_on_disk(fd: int) -> bool:
    """Whether its size is true: the kernel writes the files of /proc and /sys while they are read.

    Raises:
        OSError: It is such a file.
    """
    if os.fstat(fd).st_size == 0:
        return os.pread(fd, 1, 0) == b""
    mmap.mmap(fd, 1, prot=mmap.PROT_READ).close()
    return True


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
    if chunk is None:  # a raw file that is non-blocking
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
