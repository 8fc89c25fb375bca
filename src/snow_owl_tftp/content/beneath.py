"""Open a path that cannot leave a directory, whatever `..` and links it holds.

Two ways that give the same answers, chosen once at start by `choose_resolver`:
- KernelResolver asks openat2(2), Linux 5.6 and later: the kernel confines while it walks, so no
  rename between a check and an open can be used against us. Called through ctypes, because Python
  has no wrapper and the engine's own code is out of reach for this layer.
- WalkResolver opens part after part itself, for older kernels and for seccomp filters that do not
  know openat2 (container runtimes before 2021 answer EPERM).

A resolver returns a descriptor, or a negative errno as system calls do: boot ROMs probe for dozens
of files that do not exist, and an exception for each would cost more than the call.

Both are used by several threads at once: nothing here changes after construction.

Descriptors come opened with O_NONBLOCK, so a FIFO or a leased file cannot block, and may be of any
type: the caller looks with fstat and serves regular files only. A device node is opened before that
look. Opening O_PATH first, then looking, then opening again costs 2.8 µs on top of 3.1 µs (openat2,
fstat and close of a file in the cache), and only root can put a device node below the root; where
even that must be without effect, mount the root nodev.
"""

import ctypes
import errno
import os
import stat
from typing import Protocol

__all__ = ["KernelResolver", "Resolver", "WalkResolver", "choose_resolver"]

# include/uapi/asm-generic/unistd.h; the same number on every architecture but Alpha.
_SYS_OPENAT2 = 437
# include/uapi/linux/openat2.h
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_RESOLVE_CACHED = 0x20  # Linux 5.12

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_LOOK = os.O_PATH | os.O_CLOEXEC
_CONFINED = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS

_MAX_ATTEMPTS = 8
"""openat2 answers EAGAIN when a rename elsewhere in the system raced with a `..`: ask again."""
_MAX_LINKS = 40
"""MAXSYMLINKS of the kernel."""
_NOT_KNOWN_YET = frozenset({-errno.EXDEV, -errno.EINVAL, -errno.EINTR})
"""What open_cached cannot take for an answer, beside EAGAIN. EXDEV says "another mount" as well as
"out of the root"; EINVAL comes from kernels before 5.12, which do not know RESOLVE_CACHED."""


class Resolver(Protocol):
    """One way to open files below a directory."""

    def open(self, path: bytes) -> int:
        """Open for reading; may block on a slow file system.

        Args:
            path: A normalised path relative to the root.

        Returns:
            A descriptor of a file of any type, or a negative errno: -EXDEV means that the path
            leaves the root, -ELOOP that its links do not end.
        """

    def open_cached(self, path: bytes) -> int:
        """Do the same without ever blocking; -EAGAIN means that this cannot be said so."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_BYTES = ctypes.sizeof(_OpenHow)
# Built once: the kernel only reads them. A call that built its own would cost a microsecond more.
_HOW_READ = _OpenHow(_READ, 0, _CONFINED)
_HOW_READ_CACHED = _OpenHow(_READ, 0, _CONFINED | _RESOLVE_CACHED | _RESOLVE_NO_XDEV)
_AT_READ = ctypes.addressof(_HOW_READ)
_AT_READ_CACHED = ctypes.addressof(_HOW_READ_CACHED)

# A library object of our own: argtypes set here must not change the `syscall` of anybody else.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long
_get_errno = ctypes.get_errno


def _openat2(root_fd: int, path: bytes, at_how: int) -> int:
    fd: int = _syscall(_SYS_OPENAT2, root_fd, path, at_how, _HOW_BYTES)
    return fd if fd >= 0 else -_get_errno()


class KernelResolver:
    """The kernel confines: openat2 with RESOLVE_BENEATH."""

    def __init__(self, root_fd: int) -> None:
        """Take the directory to stay in; the descriptor remains the caller's."""
        self._root_fd = root_fd

    def open(self, path: bytes) -> int:
        """See Resolver.open."""
        for _ in range(_MAX_ATTEMPTS):
            fd = _openat2(self._root_fd, path, _AT_READ)
            if fd != -errno.EAGAIN and fd != -errno.EINTR:
                break
        return fd

    def open_cached(self, path: bytes) -> int:
        """See Resolver.open_cached."""
        fd = _openat2(self._root_fd, path, _AT_READ_CACHED)
        return -errno.EAGAIN if fd in _NOT_KNOWN_YET else fd


class WalkResolver:
    """We confine: every part is opened relative to the one before, and no link is followed blindly.

    Invariant: `..` goes back to the descriptor we came from and never asks the file system for a
    parent, so a directory that is moved out of the root under our feet takes nobody along.
    """

    def __init__(self, root_fd: int) -> None:
        """Take the directory to stay in; the descriptor remains the caller's."""
        self._root_fd = root_fd

    def open(self, path: bytes) -> int:
        """See Resolver.open."""
        directories = [self._root_fd]
        try:
            return self._walk(path, directories)
        except OSError as error:
            return -(error.errno or errno.EIO)
        finally:
            for fd in directories[1:]:
                os.close(fd)

    def open_cached(self, path: bytes) -> int:
        """See Resolver.open_cached; a walk cannot know what is in the cache."""
        return -errno.EAGAIN

    def _walk(self, path: bytes, directories: list[int]) -> int:
        pending = path.split(b"/")[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(directories) == 1:
                    raise OSError(errno.EXDEV, "above the root")
                os.close(directories.pop())
                continue
            fd, mode = _look_at(part, directories[-1])
            if stat.S_ISDIR(mode):
                directories.append(fd)
            elif stat.S_ISLNK(mode):
                links += 1
                pending += _read_link(fd, links)
            else:
                return _open_last(part, directories[-1], fd, mode, is_last=not pending)
        return os.open(b".", _READ, dir_fd=directories[-1])


def _look_at(part: bytes, directory: int) -> tuple[int, int]:
    """Return a descriptor that can only be looked at, and st_mode."""
    fd = os.open(part, _LOOK | os.O_NOFOLLOW, dir_fd=directory)
    try:
        return fd, os.fstat(fd).st_mode
    except OSError:
        os.close(fd)
        raise


def _read_link(fd: int, links: int) -> list[bytes]:
    """Return the parts of a link's target, last first, and close the link."""
    try:
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, "links without end")
        target = os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)
    if target.startswith(b"/"):
        raise OSError(errno.EXDEV, "an absolute link")
    return target.split(b"/")[::-1]


def _open_last(part: bytes, directory: int, fd: int, mode: int, *, is_last: bool) -> int:
    """Open what is no directory and no link; what is not regular is returned unopened, as O_PATH."""
    if is_last and not stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if not is_last:
        raise OSError(errno.ENOTDIR, "a file on the way")
    return os.open(part, _READ | os.O_NOFOLLOW, dir_fd=directory)


def choose_resolver(root_fd: int) -> Resolver:
    """Ask this kernel, under the filters this process runs with, for the better of the two ways."""
    fd = _openat2(root_fd, b".", _AT_READ)
    if fd >= 0:
        os.close(fd)
    unavailable = fd in (-errno.ENOSYS, -errno.EPERM, -errno.EINVAL)
    return WalkResolver(root_fd) if unavailable else KernelResolver(root_fd)
