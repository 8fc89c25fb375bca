"""Which file systems answer from the kernel's own caches.

May know: statfs(2). Must not look anything up.
"""

import ctypes
from typing import Final

__all__ = ["is_on_local_file_system"]

# statfs(2) f_type, include/uapi/linux/magic.h: what answers from the dentry cache without asking
# another machine or a process. Anything else (NFS, CIFS, FUSE) may revalidate, so it may block.
_LOCAL_FILE_SYSTEMS: Final = frozenset(
    {
        0x0000EF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x794C7630,  # overlayfs
        0x73717368,  # squashfs
        0xF2F52010,  # f2fs
        0xE0F5E1E2,  # erofs
    }
)
_STATFS_BYTES: Final = 256
"""struct statfs has 120 bytes on 64-bit Linux, at most 88 on 32-bit; f_type is its first word."""


def is_on_local_file_system(fd: int) -> bool:
    """Tell whether what is open answers from the kernel's caches, and nobody changes it but by this kernel."""
    return _file_system_type(fd) in _LOCAL_FILE_SYSTEMS


def _file_system_type(fd: int) -> int:
    """Return statfs f_type, or 0 where it cannot be told, which is no local file system."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).fstatfs(fd, buffer) != 0:
        return 0
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
