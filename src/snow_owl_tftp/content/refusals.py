"""Why a file cannot be read, in the words of an ERROR.

RFC 1350's codes as clients use them: boot loaders go on with the next candidate at ERROR 1 and stop at others, so only
"there is no such file" may say 1; what a retry may cure says 0.

May know: errno. Must not look at a file.
Invariant: the text of a RefusedError holds no path and no name; `why` is for the operator.
"""

import errno
from typing import Final

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = [
    "DENIED",
    "IO_ERROR",
    "NOT_REGULAR",
    "FileTooLargeError",
    "OutsideRootError",
    "RequirementError",
    "refusal_of_errno",
]

_NOT_FOUND: Final = (ErrorCode.FILE_NOT_FOUND, "File not found")
_BUSY: Final = (ErrorCode.NOT_DEFINED, "Server busy, try again")
IO_ERROR: Final = (ErrorCode.NOT_DEFINED, "I/O error")
DENIED: Final = (ErrorCode.ACCESS_VIOLATION, "Access violation")
NOT_REGULAR: Final = (ErrorCode.ACCESS_VIOLATION, "Not a regular file")

_REFUSAL_OF_ERRNO: Final = {
    errno.ENOENT: _NOT_FOUND,
    errno.ENOTDIR: _NOT_FOUND,
    errno.ENAMETOOLONG: _NOT_FOUND,
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.ENXIO: NOT_REGULAR,  # a socket, or a device without a driver
    errno.ENODEV: NOT_REGULAR,
    errno.EMFILE: _BUSY,
    errno.ENFILE: _BUSY,
    errno.ENOMEM: _BUSY,
    errno.EAGAIN: _BUSY,  # a writer holds a lease, or renames would not end
}


class OutsideRootError(RefusedError):
    """The name leads out of the root, or nowhere along links.

    Attributes:
        by_link: A symbolic link does it; otherwise the `..` of the name itself.
    """

    def __init__(self, *, by_link: bool, why: str = "") -> None:
        super().__init__(*DENIED, why=why)
        self.by_link = by_link


class FileTooLargeError(RefusedError):
    """The file is larger than `max_file_size_bytes` allows.

    Attributes:
        size_bytes: How large it is.
    """

    def __init__(self, size_bytes: int) -> None:
        super().__init__(ErrorCode.ACCESS_VIOLATION, "File too large to serve")
        self.size_bytes = size_bytes


class RequirementError(RefusedError):
    """It is there, and not as whoever decides about it requires."""

    def __init__(self, why: str) -> None:
        super().__init__(*DENIED, why=why)


def refusal_of_errno(error_number: int, why: str = "") -> RefusedError:
    """Return what a client is told when a file cannot be opened for this reason, and the operator."""
    return RefusedError(*_REFUSAL_OF_ERRNO.get(error_number, IO_ERROR), why=why)
