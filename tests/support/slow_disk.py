"""A local file system on a disk that can be made slow: ext4 on a loop device on one file of a FUSE file system.

    with slow_disk(Path("files"), Path("at")) as disk:     # at/ holds what files/ held, read only
        disk.delay_s = 1.0                                 # from now on each read of the disk takes so long

To the server it is a disk like any other (FUSE itself is treated as a file server's). The FUSE file system is a process
of its own, so that a thread that waits for the disk cannot keep it from answering.

May know: mount(2), /dev/fuse and its protocol (linux/fuse.h), the `mkfs.ext4` and `mount` commands. Must not: know
TFTP.
Invariants: everything is mounted in the caller's mount namespace, so call leave_mounts() in a process of its own first:
mounts and loop device go with that process, however it ends.
"""

import ctypes
import errno
import mmap
import os
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x20000  # linux/sched.h
MNT_FORCE, MNT_DETACH = 1, 2  # sys/mount.h
MS_REC_PRIVATE = 0x44000  # linux/mount.h: MS_REC | MS_PRIVATE
INIT, LOOKUP, GETATTR, OPEN, READ, RELEASE, FLUSH, DESTROY = 26, 1, 3, 14, 15, 18, 25, 38  # linux/fuse.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SILENT = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET: no answer
FOPEN_DIRECT_IO = 1  # every read of the loop device asks us, nothing is cached
LONG_S = 10**9  # or, where one was left behind, whoever lists loop devices an hour later waits for its answer
THREADS = 8
LIBC = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):  # noqa: N818 - a state of the machine
    """This machine cannot have a slow disk; says why."""


def _call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        raise Unavailable(f"{name}: {os.strerror(ctypes.get_errno())}")


def leave_mounts() -> None:
    """A mount namespace of this process's own. Call it before there are threads."""
    _call("unshare", CLONE_NEWNS)
    _call("mount", b"none", b"/", None, MS_REC_PRIVATE, None)


class _Fuse:
    """One file, `disk`, of the bytes of `image`; a read takes as long as `delay` says."""

    def __init__(self, fd: int, image: int, delay: mmap.mmap) -> None:
        self.fd, self.image, self.delay = fd, image, delay
        self.size = os.fstat(image).st_size

    def attributes(self, node: int) -> bytes:
        mode, size = (0o40755, 0) if node == 1 else (0o100600, self.size)
        return struct.pack("<6Q10I", node, size, size >> 9, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, code: int, node: int, body: bytes) -> bytes | int:
        if code == INIT:
            return struct.pack("<IIIIHHIIHHI", 7, 31, 131072, 0, 64, 48, 131072, 1, 32, 0, 0) + bytes(28)
        if code == LOOKUP and body == b"disk\0":
            return struct.pack("<QQQQII", 2, 1, LONG_S, LONG_S, 0, 0) + self.attributes(2)
        if code == GETATTR:
            return struct.pack("<QII", LONG_S, 0, 0) + self.attributes(node)
        if code == OPEN:
            return struct.pack("<QII", 1, FOPEN_DIRECT_IO, 0)
        if code == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            time.sleep(struct.unpack_from("<d", self.delay)[0])
            return os.pread(self.image, size, offset)
        if code in {RELEASE, FLUSH, DESTROY}:
            return b""
        return errno.ENOENT if code == LOOKUP else errno.ENOSYS

    def run(self) -> None:
        while True:
            try:
                request = os.read(self.fd, 1 << 20)
            except OSError as error:
                if error.errno in {errno.EINTR, errno.EAGAIN, errno.ENOENT}:
                    continue
                return  # unmounted
            _, code, unique, node = struct.unpack_from("<IIQQ", request)
            if code in SILENT:
                continue
            answer = self.answer(code, node, request[40:])
            error_number, data = (-answer, b"") if isinstance(answer, int) else (0, answer)
            os.write(self.fd, struct.pack("<IiQ", 16 + len(data), error_number, unique) + data)


class SlowDisk:
    """Where it is mounted, and how slow it is."""

    def __init__(self, path: Path, delay: mmap.mmap) -> None:
        self.path = path
        self._delay = delay

    @property
    def delay_s(self) -> float:
        return float(struct.unpack_from("<d", self._delay)[0])

    @delay_s.setter
    def delay_s(self, seconds: float) -> None:
        struct.pack_into("<d", self._delay, 0, seconds)


def _make_image(files: Path, image: Path, megabytes: int) -> None:
    command = shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if command is None:
        raise Unavailable("there is no mkfs.ext4")
    subprocess.run([command, "-q", "-d", files, image, f"{megabytes}M"], check=True, capture_output=True)


def _start_daemon(point: Path, image: Path, delay: mmap.mmap) -> int:
    """Mounts the FUSE file system at `point`; the process that answers for it."""
    try:
        fd = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        raise Unavailable(f"/dev/fuse: {error.strerror}") from None
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
    _call("mount", b"slow", os.fsencode(point), b"fuse", 0, options)
    child = os.fork()
    if child:
        os.close(fd)
        return child
    try:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        fuse = _Fuse(fd, os.open(image, os.O_RDONLY), delay)
        for _ in range(THREADS - 1):
            threading.Thread(target=fuse.run, daemon=True).start()
        fuse.run()
    finally:
        os._exit(0)


@contextmanager
def slow_disk(files: Path, path: Path, scratch: Path, megabytes: int) -> Iterator[SlowDisk]:
    """What `files` holds, mounted at `path` from a disk of `megabytes`; `scratch` is a folder to work in.

    Raises:
        Unavailable: This machine has no /dev/fuse, loop devices, mkfs.ext4, or we may not mount.
    """
    delay = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the daemon
    image, point = scratch / "image", scratch / "fuse"
    point.mkdir()
    path.mkdir(exist_ok=True)
    _make_image(files, image, megabytes)
    daemon = _start_daemon(point, image, delay)
    try:
        done = subprocess.run(
            ["mount", "-o", "ro,noload,loop", point / "disk", path], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Unavailable(f"mount -o loop: {done.stderr.strip()}")
        yield SlowDisk(path, delay)
    finally:
        delay[:8] = bytes(8)
        subprocess.run(["umount", "-l", path], check=False, capture_output=True)
        LIBC.umount2(os.fsencode(point), MNT_FORCE | MNT_DETACH)  # by force: nobody waits for an answer any more
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)
