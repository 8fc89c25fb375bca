"""openat2(2), Linux 5.6: open a path, and let the kernel see to it that it leads nowhere else.

Called through ctypes, because Python has no wrapper. Errors are negative numbers, as system calls have them: whoever
asks for files that are not there, again and again, cannot pay an exception for each.

May know: descriptors, paths and flags. Must not know what they are confined for.
"""

import ctypes
from typing import Final

__all__ = [
    "RESOLVE_BENEATH",
    "RESOLVE_CACHED",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_XDEV",
    "OpenHow",
    "openat2",
    "openat2_at_once",
]

# include/uapi/asm-generic/unistd.h; the same number on every architecture but Alpha.
_SYS_OPENAT2: Final = 437
# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08
RESOLVE_CACHED: Final = 0x20  # Linux 5.12


class _Struct(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_STRUCT_BYTES: Final = ctypes.sizeof(_Struct)

# A library object of our own: argtypes set here must not change the `syscall` of anybody else.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
# Keeps the GIL, for what never waits: given up for a microsecond it has to be won back from whoever took it meanwhile,
# and threads that look up names by the thousand would take it each time.
_syscall_at_once = ctypes.PyDLL(None, use_errno=True).syscall
for _call in (_syscall, _syscall_at_once):
    _call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    _call.restype = ctypes.c_long
_get_errno = ctypes.get_errno


class OpenHow:
    """How to open: made once and used for every call, since the kernel only reads it, and to make one costs 1 µs.

    Attributes:
        address: Where the kernel finds it.
    """

    __slots__ = ("_struct", "address")

    def __init__(self, flags: int, resolve: int) -> None:
        """Take O_… and RESOLVE_…; nothing is ever created, so there is no mode."""
        self._struct = _Struct(flags, 0, resolve)
        self.address = ctypes.addressof(self._struct)


def openat2(directory_fd: int, path: bytes, how: OpenHow) -> int:
    """Return a descriptor, or a negative errno.

    Args:
        directory_fd: What `path` is relative to.
        path: Without a zero byte.
        how: Flags, and what confines it.
    """
    fd: int = _syscall(_SYS_OPENAT2, directory_fd, path, how.address, _STRUCT_BYTES)
    return fd if fd >= 0 else -_get_errno()


def openat2_at_once(directory_fd: int, path: bytes, how: OpenHow) -> int:
    """Do the same by flags that never wait (RESOLVE_CACHED), without letting other threads of Python in between."""
    fd: int = _syscall_at_once(_SYS_OPENAT2, directory_fd, path, how.address, _STRUCT_BYTES)
    return fd if fd >= 0 else -_get_errno()
