"""A file system that falls ill when told to: read-only, one folder, spoken over /dev/fuse without a library.

    with SickMount(folder, {"boot.img": b"..."}) as sick:     # in a mount namespace of the test's own
        sick.hang("read")                                      # from now on nobody's read returns ...
        sick.recover()                                         # ... before this

May know: fuse(4) and linux/fuse.h. Must not: know the server.
Invariants: nothing hangs longer than the `with`, whose end answers all that waits; threads are bounded, and what
exceeds them waits in the kernel, as it does before a file server that has died.
"""

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

THREADS: Final = 16
MAX_REQUEST_BYTES: Final = 1 << 20
MNT_DETACH: Final = 2  # sys/mount.h
ROOT: Final = 1  # FUSE_ROOT_ID
VALID_S: Final = 3600  # the kernel need not ask again; `hang` is about what is asked for the first time

# linux/fuse.h, enum fuse_opcode
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, OPENDIR, INTERRUPT, DESTROY, BATCH_FORGET = (
    *(1, 2, 3, 14, 15, 17, 18, 25, 26, 27, 36, 38, 42),
)
SILENT: Final = {FORGET, INTERRUPT, BATCH_FORGET}
NAMES: Final = {LOOKUP: "lookup", GETATTR: "getattr", OPEN: "open", READ: "read", FLUSH: "flush"}

IN_HEADER: Final = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
OUT_HEADER: Final = struct.Struct("<IiQ")  # length, -errno, unique
ATTR: Final = struct.Struct("<6Q10I")
INIT_OUT: Final = struct.Struct("<IIIIHHIIHH32x")
LIBC: Final = ctypes.CDLL(None, use_errno=True)


class SickMount:
    """The mount, and the threads that answer for it."""

    def __init__(self, folder: Path, files: Mapping[str, bytes]) -> None:
        """Mount over `folder`.

        Raises:
            OSError: No /dev/fuse, or no right to mount here.
        """
        self._folder = folder
        self._names = list(files)
        self._contents = list(files.values())
        self._hanging: frozenset[str] = frozenset()
        self._well = threading.Condition()
        self.asked_total = 0
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
        if LIBC.mount(b"sick", bytes(folder), b"fuse", 0, options) != 0:
            problem = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(problem, f"mount of FUSE: {os.strerror(problem)}")
        for _ in range(THREADS):
            threading.Thread(target=self._serve, daemon=True).start()

    def hang(self, *operations: str) -> None:
        """From now on these never return: "lookup", "getattr", "open", "read", "flush"."""
        with self._well:
            self._hanging = frozenset(operations)

    def recover(self) -> None:
        """Answer what waits, and everything that follows."""
        with self._well:
            self._hanging = frozenset()
            self._well.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.recover()
        LIBC.umount2(bytes(self._folder), MNT_DETACH)
        os.close(self._fd)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._fd, MAX_REQUEST_BYTES)
            except OSError as problem:
                if problem.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):  # ENOENT: a request that was interrupted
                    continue
                return  # ENODEV, EBADF: unmounted
            _, opcode, unique, node, *_ = IN_HEADER.unpack_from(message)
            if opcode in SILENT:
                continue
            self._wait_while_ill(NAMES.get(opcode, ""))
            code, answer = self._answer(opcode, node, message[IN_HEADER.size :])
            try:
                os.write(self._fd, OUT_HEADER.pack(OUT_HEADER.size + len(answer), -code, unique) + answer)
            except OSError as problem:
                if problem.errno != errno.ENOENT:  # who asked has been killed meanwhile
                    return

    def _wait_while_ill(self, operation: str) -> None:
        with self._well:
            self.asked_total += 1
            while operation in self._hanging:
                self._well.wait()

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        """Returns an errno and what follows the header."""
        if opcode == INIT:
            return 0, INIT_OUT.pack(7, 31, 1 << 17, 0, 64, 48, 1 << 17, 1, 32, 0)
        if opcode == LOOKUP:
            name = body.rstrip(b"\0").decode()
            if name not in self._names:
                return errno.ENOENT, b""
            node = self._names.index(name) + ROOT + 1
            return 0, struct.pack("<QQQQII", node, 1, VALID_S, VALID_S, 0, 0) + self._attributes(node)
        if opcode == GETATTR:
            return 0, struct.pack("<QII", VALID_S, 0, 0) + self._attributes(node)
        if opcode in (OPEN, OPENDIR):
            return 0, struct.pack("<QII", 1, 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return 0, self._contents[node - ROOT - 1][offset : offset + size]
        if opcode == STATFS:
            return 0, struct.pack("<5Q4I24x", 1000, 1000, 1000, 1000, 1000, 4096, 255, 4096, 0)
        return (0 if opcode in (RELEASE, FLUSH) else errno.ENOSYS), b""

    def _attributes(self, node: int) -> bytes:
        is_root = node == ROOT
        size = 0 if is_root else len(self._contents[node - ROOT - 1])
        mode = 0o40755 if is_root else 0o100644
        return ATTR.pack(node, size, 8, 1, 1, 1, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)
