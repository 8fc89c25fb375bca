"""What an operator can do where the operating system says no.

May know errno. Must not know what was asked for, which whoever tells it names.
"""

import errno
import os
from typing import Final

__all__ = ["with_remedy"]

_DESCRIPTORS: Final = "raise the limit of open files (ulimit -n, LimitNOFILE=), or lower workers and tid_sockets"
_MEMORY: Final = "free memory or raise its limit (ulimit -v, MemoryMax=), or lower workers and tid_sockets"
_DISK: Final = "look at the disk, or the file server, behind it (dmesg)"
_REMEDIES: Final = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: "the whole machine has too many open files; raise fs.file-max, or close some",
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _MEMORY,
    errno.EAGAIN: "raise the limit of threads (ulimit -u, TasksMax=), or lower workers and io_threads",
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there, or raise the quota",
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.EACCES: "give this user the permission",
    errno.EPERM: "give this user the permission; a sandbox may be in the way",
    errno.EROFS: "name a place that is not read-only",
}
_ELSE: Final = "the operating system refused it; start again, and look at dmesg"


def with_remedy(what: str, error: BaseException) -> str:
    """Return one line: what could not be done, why, and what to do about it.

    Args:
        what: In a few words.
        error: An OSError, or what was made of one.
    """
    cause = error if isinstance(error, OSError) else error.__context__
    number = (cause.errno if isinstance(cause, OSError) else None) or (
        errno.ENOMEM if isinstance(error, MemoryError) else errno.EAGAIN if _is_of_thread(error) else 0
    )
    reason = (cause.strerror if isinstance(cause, OSError) else None) or (os.strerror(number) if number else str(error))
    where = f"{cause.filename}: " if isinstance(cause, OSError) and isinstance(cause.filename, str) else ""
    return f"{what}: {where}{reason}; {_REMEDIES.get(number, _ELSE)}"


def _is_of_thread(error: BaseException) -> bool:
    return "thread" in str(error)  # RuntimeError("can't start new thread") is all that Python says
