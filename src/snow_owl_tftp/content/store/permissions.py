"""Who owns a stored file, and who may do what with it: as the file that it replaces, or as its directory has it.

    replaces a file   owner, group, mode, ACL, SELinux label and `user.` attributes of that file
    is new            the setting's mode; where the directory has a default ACL, what the kernel makes of the two

May know descriptors, one name in a directory, and the kernel's rules about both. Must not know what is in a file.

Invariants:
- Nothing is granted that was not granted before: where the group cannot be kept, the new one gets what others have.
- What the process may not set is left out in silence: an upload must not fail because a server without privileges
  replaces somebody else's file. A disk without room for an ACL does fail it.
- Set-id bits are never carried over; a write(2) by somebody without privileges takes them away as well.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from snow_owl_tftp.linux.descriptors import close_descriptor

__all__ = ["FileIdentity", "give_new", "identity_of", "keep_or_give"]

FileIdentity: TypeAlias = tuple[int, int, int]
"""Device, inode and ctime_ns: a chmod, a chown or a new ACL in between makes another one."""

_ACCESS: Final = "system.posix_acl_access"
_DEFAULT: Final = "system.posix_acl_default"
_LABEL: Final = "security.selinux"
_USER_ATTRIBUTES: Final = "user."
_MAY_NOT: Final = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODATA})
"""EINVAL: an owner who does not exist in this user namespace. ENODATA: there is nothing to take away."""

# include/uapi/linux/posix_acl_xattr.h: a version, then entries of tag, permissions and id, little-endian.
_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_PLAIN_MODES: Final = frozenset({0o644, 0o755})
"""What a umask of 022 leaves of 0666, with which nearly every program makes its files, and of 0777."""
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20  # include/uapi/linux/posix_acl.h


class _AclEntry(NamedTuple):
    tag: int
    permissions: int
    id: int


_Acl: TypeAlias = list[_AclEntry]


def identity_of(status: os.stat_result | None) -> FileIdentity | None:
    """Tell one state of a file from another; None: there is none."""
    return None if status is None else (status.st_dev, status.st_ino, status.st_ctime_ns)


def keep_or_give(fd: int, name: bytes, directory_fd: int, mode_bits: int) -> FileIdentity | None:
    """Make a file that nobody sees yet what it has to be under a name.

    Args:
        fd: The file, the process's own.
        name: What it will be called.
        directory_fd: Where.
        mode_bits: For a new file: 0..0o777.

    Returns:
        What had the name, None for nothing. Who publishes the file has to find the same.

    Raises:
        OSError: It cannot be done, the disk being full, say; but see the invariants.
    """
    try:
        old_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        give_new(fd, directory_fd, mode_bits)
        return None
    try:
        status = os.fstat(old_fd)
        if stat.S_ISREG(status.st_mode):  # anything else is not going to be replaced
            _keep(fd, status, Path(f"/proc/self/fd/{old_fd}"))
        return identity_of(status)
    finally:
        close_descriptor(old_fd)


def give_new(fd: int, directory_fd: int, mode_bits: int) -> None:
    """Set the permissions of a new file or directory, whatever the umask.

    With a default ACL they are what open(2) would give with that mode (acl(5), "object creation and default ACLs"):
    no more than either grants. The kernel leaves out the umask then, so a mode that stands for the usual one does not
    bound the ACL: named users keep what it gives them.

    Args:
        fd: The file or directory; it may have been made elsewhere.
        directory_fd: In which it lies, or will lie.
        mode_bits: Permissions; bits beyond 0o777 count only without a default ACL.

    Raises:
        OSError: It is not the process's own, or the disk has no room for an ACL.
    """
    default = _read_acl(directory_fd, _DEFAULT)
    if default is None:
        _set_permissions(fd, mode_bits, None)
    else:
        bounds = mode_bits | 0o022 if mode_bits & 0o777 in _PLAIN_MODES else mode_bits
        os.setxattr(fd, _ACCESS, _packed(_masked(default, bounds)))


def _keep(fd: int, old: os.stat_result, old_path: Path) -> None:
    # Attributes first, while the file is ours and writable for us; its owner last, who may not be us.
    for attribute in _attributes(old_path):
        _try(partial(_copy_attribute, old_path, fd, attribute))
    mode_bits, acl = old.st_mode & 0o777, _read_acl(old_path, _ACCESS)
    _set_permissions(fd, mode_bits, acl)
    if not _give_away(fd, old.st_uid, old.st_gid):
        _set_permissions(fd, _with_group_as_others(mode_bits), acl and _without_group(acl))


def _attributes(path: Path) -> list[str]:
    with suppress(OSError):  # no /proc, or a file system without any
        return [name for name in os.listxattr(path) if name == _LABEL or name.startswith(_USER_ATTRIBUTES)]
    return []


def _copy_attribute(path: Path, fd: int, name: str) -> None:
    os.setxattr(fd, name, os.getxattr(path, name))


def _give_away(fd: int, uid: int, gid: int) -> bool:
    """Return whether the file has the group now."""
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) != (uid, gid) and not _try(lambda: os.fchown(fd, uid, gid)):
        return mine.st_gid == gid or _try(lambda: os.fchown(fd, -1, gid))
    return True


def _set_permissions(fd: int, mode_bits: int, acl: _Acl | None) -> None:
    if acl is None:
        _try(lambda: os.removexattr(fd, _ACCESS))  # of the directory in which it was made
        os.fchmod(fd, mode_bits)
    elif not _try(lambda: os.setxattr(fd, _ACCESS, _packed(acl))):
        # With an ACL the group's bits are its mask, and say nothing about the group.
        os.fchmod(fd, _with_group_as_others(mode_bits))


def _with_group_as_others(mode_bits: int) -> int:
    return mode_bits & ~0o070 | (mode_bits & 0o007) << 3


def _without_group(acl: _Acl) -> _Acl:
    others = next(entry.permissions for entry in acl if entry.tag == _OTHER)
    return [entry._replace(permissions=others) if entry.tag == _GROUP_OBJ else entry for entry in acl]


def _masked(default: _Acl, mode_bits: int) -> _Acl:
    """What the kernel makes of a default ACL for a new file (posix_acl_create_masq in fs/posix_acl.c)."""
    group_tag = _MASK if any(entry.tag == _MASK for entry in default) else _GROUP_OBJ
    most = {_USER_OBJ: mode_bits >> 6 & 7, group_tag: mode_bits >> 3 & 7, _OTHER: mode_bits & 7}
    return [entry._replace(permissions=entry.permissions & most.get(entry.tag, 7)) for entry in default]


def _read_acl(file: int | Path, kind: str) -> _Acl | None:
    try:
        packed = os.getxattr(file, kind)
    except OSError:  # none, no /proc, or a file system without ACLs
        return None
    return [_AclEntry(*fields) for fields in _ENTRY.iter_unpack(packed[_VERSION.size :])]


def _packed(acl: _Acl) -> bytes:
    return _VERSION.pack(2) + b"".join(_ENTRY.pack(*entry) for entry in acl)


def _try(call: Callable[[], None]) -> bool:
    """Return whether the process may."""
    try:
        call()
    except OSError as error:
        if error.errno not in _MAY_NOT:
            raise
        return False
    return True
