"""What a client is told when an upload cannot be taken: errno to ERROR, in one table.

May know errno and ERROR codes. Must not name a path or a rule: the reader is whoever sent a datagram.

"Disk full" covers every kind of no room (RFC 1350's own words are "Disk full or allocation
exceeded"), so an operator's limit and a full disk look alike to a client, as they should.
"""

import errno
import os
from typing import Final

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["UploadError", "UploadTooLargeError", "refuse_upload"]

_NO_DIRECTORY: Final = (ErrorCode.FILE_NOT_FOUND, "No such directory")
_NO_ROOM: Final = (ErrorCode.DISK_FULL, "Disk full or allocation exceeded")
_DENIED: Final = (ErrorCode.ACCESS_VIOLATION, "Access violation")
_NOT_REGULAR: Final = (ErrorCode.ACCESS_VIOLATION, "Not a regular file")
_BUSY: Final = (ErrorCode.NOT_DEFINED, "Server busy, try again")
_IO_ERROR: Final = (ErrorCode.NOT_DEFINED, "I/O error")

_REFUSAL_OF_ERRNO: Final = {
    # Like tftp-hpa, whose users know that 1 means "make the directory first" and 2 "you may not".
    errno.ENOENT: _NO_DIRECTORY,
    errno.ENOTDIR: _NO_DIRECTORY,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.EMLINK: _NO_ROOM,
    errno.EEXIST: (ErrorCode.FILE_EXISTS, "File already exists"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENAMETOOLONG: (ErrorCode.ACCESS_VIOLATION, "File name too long"),
    errno.EISDIR: _NOT_REGULAR,
    errno.ENXIO: _NOT_REGULAR,
    errno.ENODEV: _NOT_REGULAR,
    errno.EMFILE: _BUSY,
    errno.ENFILE: _BUSY,
    errno.ENOMEM: _BUSY,
    errno.EAGAIN: _BUSY,
}


class UploadError(RefusedError):
    """An upload cannot begin, or cannot be made durable and visible.

    Attributes:
        errno: Why, for the log and the engine; 0 where no system call is to blame.
    """

    def __init__(self, code: int, text: str, errno: int = 0, *, why: str = "") -> None:
        super().__init__(code, text, why=why)
        self.errno = errno


class UploadTooLargeError(UploadError):
    """The client announced more than `max_file_size_bytes` allows.

    Attributes:
        size_bytes: How much it announced.
    """

    def __init__(self, size_bytes: int) -> None:
        super().__init__(*_NO_ROOM, errno=errno.EFBIG)
        self.size_bytes = size_bytes


def refuse_upload(error: OSError, *, where: bytes = b"", why: str = "") -> UploadError:
    """Turn what the file system said into what the client is told, and the operator.

    Args:
        error: What it said.
        where: The path that it said so about.
        why: Words that say more than path and error do.
    """
    number = error.errno or errno.EIO
    if not why:
        why = f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"
        why = f"{os.fsdecode(where)}: {why}" if where else why
    return UploadError(*_REFUSAL_OF_ERRNO.get(number, _IO_ERROR), errno=number, why=why)
