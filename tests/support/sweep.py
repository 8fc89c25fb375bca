"""Servers whose system calls fail one by one: sweep.c built, preloaded and steered.

    with Nursery(folder) as nursery, nursery.server(root, toml) as server:
        nursery.control.arm("PWRITE", errno.ENOSPC, skip=3)
        ...                                         # what a client does meanwhile
        nursery.control.disarm()

May know: sweep.c, nursery.py and the command line. Must not: know what a server answers.
Invariant: every process that was begun here is ended here.
"""

import ctypes
import errno
import json
import mmap
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.server import DEADLINE_S, READY, Address, wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "tests/support/sweep.c"
HALF = 0
"""Instead of an errno: a write does half."""

_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SICK_DISK = (errno.EIO, errno.ENOMEM, errno.ESTALE)

ERRORS: dict[str, Sequence[int]] = {
    "OPEN": (*_NO_DESCRIPTORS, *_NO_ROOM, errno.EIO, errno.EACCES, errno.EROFS, errno.EINTR, errno.EOPNOTSUPP),
    "OPENAT2": (*_NO_DESCRIPTORS, errno.EIO, errno.EACCES, errno.EAGAIN, errno.EINTR, errno.EXDEV, errno.ENOSYS),
    "CLOSE": (errno.EIO, errno.EINTR, *_NO_ROOM),
    "READ": (errno.EIO, errno.EINTR),
    "PREAD": (errno.EIO, errno.EINTR, errno.ESTALE),
    "WRITE": (*_NO_ROOM, errno.EIO, errno.EINTR, errno.EAGAIN, errno.EPIPE, HALF),
    "PWRITE": (*_NO_ROOM, errno.EIO, errno.EFBIG, errno.EINTR, HALF),
    "FSYNC": (errno.EIO, *_NO_ROOM, errno.EINVAL, errno.EROFS, errno.EINTR),
    "LINK": (*_NO_ROOM, *_SICK_DISK, errno.EMLINK, errno.EPERM, errno.EACCES, errno.EXDEV, errno.ENOENT),
    "RENAME": (*_NO_ROOM, *_SICK_DISK, errno.EBUSY, errno.EPERM, errno.EXDEV, errno.EROFS),
    "RENAMEAT2": (*_NO_ROOM, *_SICK_DISK, errno.EINVAL, errno.ENOSYS),
    "UNLINK": (*_SICK_DISK, errno.EBUSY, errno.EPERM, errno.EROFS),
    "MKDIR": (*_NO_ROOM, *_SICK_DISK, errno.EMLINK, errno.EACCES),
    "FSTAT": _SICK_DISK,
    "STAT": (*_SICK_DISK, errno.EACCES),
    "STATX": (*_SICK_DISK, errno.ENOSYS),
    "FSTATVFS": (*_SICK_DISK, errno.ENOSYS),
    "FSTATFS": (*_SICK_DISK, errno.ENOSYS),
    "FTRUNCATE": (errno.EIO, errno.EFBIG, errno.EPERM),
    "FALLOCATE": (*_NO_ROOM, errno.EIO, errno.EOPNOTSUPP),
    "FCHMOD": (errno.EIO, errno.EPERM, errno.EROFS, errno.ENOMEM),
    "FCHOWN": (errno.EIO, errno.EPERM, errno.EDQUOT),
    "GETXATTR": (errno.EIO, errno.EOPNOTSUPP, errno.ENODATA, errno.ERANGE),
    "SETXATTR": (*_NO_ROOM, errno.EOPNOTSUPP, errno.EPERM),
    "READLINK": _SICK_DISK,
    "READDIR": (errno.EIO,),
    "FLOCK": (errno.ENOLCK, errno.EWOULDBLOCK, errno.EINTR),
    "FCNTL": (errno.EMFILE, errno.EINVAL, errno.EPERM),
    "DUP": (errno.EMFILE, errno.EBUSY),
    "MEMFD": _NO_DESCRIPTORS,
    "MMAP": (errno.ENOMEM, errno.ENODEV, errno.EAGAIN, errno.ENFILE),
    "MADVISE": (errno.ENOMEM, errno.EAGAIN, errno.EFAULT, errno.EIO),
    "LSEEK": (errno.EINVAL, errno.EIO, errno.ENXIO),
    "ACCESS": (*_SICK_DISK, errno.EACCES),
    "SOCKET": (*_NO_DESCRIPTORS, errno.ENOBUFS, errno.EACCES, errno.EAFNOSUPPORT),
    "BIND": (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.ENOMEM),
    "SETSOCKOPT": (errno.ENOMEM, errno.EPERM, errno.ENOPROTOOPT),
    "GETSOCKOPT": (errno.ENOPROTOOPT, errno.ENOMEM),
    "GETSOCKNAME": (errno.ENOBUFS,),
    "SOCKETPAIR": _NO_DESCRIPTORS,
    "EPOLL_CREATE": _NO_DESCRIPTORS,
    "EPOLL_CTL": (errno.ENOMEM, errno.ENOSPC),
    "EPOLL_WAIT": (errno.EINTR,),
    "EVENTFD": _NO_DESCRIPTORS,
    "PIPE": _NO_DESCRIPTORS,
    "POLL": (errno.ENOMEM, errno.EINTR),
    "SENDMMSG": (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR, errno.EPERM, errno.ENETUNREACH),
    "RECVMMSG": (errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.ECONNREFUSED),
    "RECVMSG": (errno.EAGAIN, errno.EINTR, errno.ENOMEM),
    "THREAD": (errno.EAGAIN,),
    "MALLOC": (errno.ENOMEM,),
}
"""By call, in the order of sweep.c: what its manual page allows, and HALF. Several calls of one kind share a name."""


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("call", "skip", "error", "times", "hits")),
        ("what", ctypes.c_char * 236),
        ("counts", ctypes.c_int * len(ERRORS)),
    )


def fault(call: str, error: int, skip: int = 0, times: int = 1) -> dict[str, int]:
    """What fails: of the calls of one kind from now on, so many after the first `skip`."""
    return {"call": list(ERRORS).index(call), "skip": skip, "error": error, "times": times}


class Control:
    """What a preloaded process looks at, at every call."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(ctypes.sizeof(_Block)))
        with path.open("r+b") as file:
            self._block = _Block.from_buffer(mmap.mmap(file.fileno(), 0))
        self.disarm()

    @property
    def hits(self) -> int:
        return int(self._block.hits)

    @property
    def what(self) -> str:
        """Which call was the first to fail."""
        return bytes(self._block.what).decode(errors="replace")

    def arm(self, call: str, error: int, skip: int = 0, times: int = 1) -> None:
        self.clear()
        for name in ("skip", "error", "times", "call"):  # the call last
            setattr(self._block, name, fault(call, error, skip, times)[name])

    def disarm(self) -> None:
        self._block.call = -1

    def clear(self) -> None:
        """Forget what was counted and hit."""
        self._block.hits, self._block.what = 0, b""
        ctypes.memset(ctypes.addressof(self._block.counts), 0, ctypes.sizeof(self._block.counts))

    def counts(self) -> dict[str, int]:
        return dict(zip(ERRORS, self._block.counts, strict=True))


@dataclass(slots=True)
class Server:
    """One life of a server."""

    nursery: "Nursery"
    pid: int
    folder: Path
    address: Address = ("", 0)
    status: int | None = None
    log_path: Path | None = None
    _seen: dict[Path, int] = field(default_factory=dict)

    @property
    def log(self) -> str:
        """Standard error, and the log where it is a file."""
        return "".join(path.read_text(errors="replace") for path in self._logs())

    def log_since(self) -> str:
        """What was added since this was asked last."""
        text = b""
        for path in self._logs():
            with path.open("rb") as file:
                file.seek(self._seen.get(path, 0))
                text += file.read()
                self._seen[path] = file.tell()
        return text.decode(errors="replace")

    def _logs(self) -> list[Path]:
        return [path for path in (self.folder / "stderr", self.log_path) if path and path.exists()]

    def descriptors(self) -> list[str]:
        """What is open, each as /proc shows it; but for netascii copies, which a cache of its own keeps."""
        links = (_readlink(entry.path) for entry in os.scandir(f"/proc/{self.pid}/fd"))
        return sorted(link for link in links if link and not link.startswith("/memfd:netascii"))

    def wait(self, within_s: float = DEADLINE_S) -> int | None:
        """Exit status, or None when it lives yet."""
        if self.status is None:
            self.status = self.nursery.ask({"wait": self.pid, "within_s": within_s})
        return self.status

    def end(self, number: signal.Signals = signal.SIGTERM, within_s: float = DEADLINE_S) -> int | None:
        if self.status is None:
            os.kill(self.pid, number)
        return self.wait(within_s)

    def is_ready(self) -> bool:
        match = READY.search((self.folder / "stdout").read_bytes()) if (self.folder / "stdout").exists() else None
        if match:
            self.address = match[1].decode(), int(match[2])
        return match is not None or "server started" in self.log

    def live_objects(self) -> list[dict[str, int]]:
        """Of each engine, once the server has ended."""
        found: list[dict[str, int]] = json.loads((self.folder / "live.json").read_text())
        return found


class Nursery:
    """A process that has a server's modules, and forks servers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        library = folder / "sweep.so"
        flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, "-o", library, SOURCE, "-ldl"], check=True)
        self.control = Control(folder / "control")
        preload = " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(library))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery"],
            cwd=REPOSITORY,
            env={**os.environ, "LD_PRELOAD": preload, "SNOW_OWL_SWEEP": str(folder / "control")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lives = 0
        self._read_answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(DEADLINE_S)
        assert self._process.stdout
        self._process.stdout.close()

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def begin(self, *arguments: str, **more: Any) -> Server:
        """Begin a server, which may or may not get ready."""
        self._lives += 1
        folder = self._folder / f"life{self._lives}"
        folder.mkdir()
        self.control.disarm()
        self.control.clear()
        pid = self.ask({"arguments": arguments, "folder": str(folder), **more})
        return Server(self, pid, folder)

    @contextmanager
    def server(self, *arguments: str) -> Iterator[Server]:
        """A server that has to get ready; it is killed at the end if it has not been ended by then."""
        server = self.begin(*arguments)
        try:
            wait_for(lambda: server.is_ready() or server.wait(0) is not None, "ready")
            assert server.status is None, server.log
            yield server
        finally:
            self.control.disarm()
            if server.status is None:
                server.end(signal.SIGKILL)


def _readlink(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def tracebacks(text: str) -> list[str]:
    """Lines of a log that only a bug of ours writes."""
    return re.findall(r".*(?:Traceback|internal error|Exception ignored|never retrieved).*", text)
