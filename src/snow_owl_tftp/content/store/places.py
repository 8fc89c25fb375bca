"""Where an upload goes: the directory, what has the name already, and the version that is kept of it.

May know one directory at a time, by descriptor, and the terms that the rules set. Must not know roots:
that a directory lies beneath one was made sure when it was opened.

What goes wrong is an OSError, but for a name that may not be replaced.
"""

import errno
import os
import re
import stat
from typing import Literal, Protocol

from snow_owl_tftp.content.store.overwrite import copy_bytes
from snow_owl_tftp.content.store.permissions import give_new, keep_or_give
from snow_owl_tftp.content.store.refusals import UploadError, refuse_upload
from snow_owl_tftp.content.store.staging import StagedFile
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = [
    "UploadTerms",
    "check_disk",
    "check_present",
    "fsync_directory",
    "keep_version",
    "look",
    "make_directory",
    "may_make_files",
]


class UploadTerms(Protocol):
    """What the rules say about one upload; `policy.decision.WriteDecision` is such an object."""

    @property
    def path(self) -> bytes:
        """Normalised, relative to the root, without `..`."""

    @property
    def on_existing(self) -> Literal["refuse", "replace", "version", "replace_writable"]:
        """What to do where a file has the name."""

    @property
    def create_directories(self) -> bool:
        """Whether missing directories are made."""

    @property
    def file_mode_bits(self) -> int:
        """Permissions of the new file, 0..0o777, whatever the umask."""

    @property
    def fsync(self) -> bool:
        """Whether the file must be on the disk before `commit` returns."""


def look(name: bytes, directory_fd: int) -> os.stat_result | None:
    """Return what has a name, links not followed, or None."""
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def check_present(status: os.stat_result | None, terms: UploadTerms) -> None:
    """Refuse a name that may not be written. A link is no file: replacing what it leads to, or the link
    itself, would both surprise somebody.
    """
    needs_permission = terms.on_existing == "replace_writable"
    if status is None:
        if needs_permission:
            raise UploadError(ErrorCode.FILE_NOT_FOUND, "File not found", errno.ENOENT)
        return
    if not stat.S_ISREG(status.st_mode):
        raise refuse_upload(OSError(errno.EISDIR, "not a regular file"))
    is_writable_for_all = bool(status.st_mode & stat.S_IWOTH)
    # "touch name; chmod 666 name" asks for an upload in every guide to switches, and an empty file has nothing to lose.
    if terms.on_existing == "refuse" and not (is_writable_for_all and status.st_size == 0):
        raise refuse_upload(FileExistsError(errno.EEXIST, "the file exists"))
    # The rule of BSD's tftpd: whoever made the file gave the permission, to everybody or to nobody.
    if needs_permission and not is_writable_for_all:
        raise UploadError(ErrorCode.ACCESS_VIOLATION, "File is not writable for everybody", errno.EACCES)


def may_make_files(directory_fd: int) -> bool:
    """Tell whether files can be made in a directory, by its permissions; a read-only file system permits none."""
    return os.access(".", os.W_OK | os.X_OK, dir_fd=directory_fd, effective_ids=True)


def check_disk(fd: int, announced_bytes: int | None) -> None:
    """Refuse at once what cannot fit, rather than when most of it has been sent."""
    if announced_bytes is None:
        return
    disk = os.fstatvfs(fd)
    free_blocks = disk.f_bavail if os.geteuid() else disk.f_bfree
    if disk.f_blocks and announced_bytes > free_blocks * disk.f_frsize:  # 0: a file system that does not tell
        raise OSError(errno.ENOSPC, "the disk has less room than was announced")


def make_directory(name: bytes, parent_fd: int, terms: UploadTerms) -> None:
    """Make a directory that whoever may read the files may enter; that it is there already is fine."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        return
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        readable = terms.file_mode_bits & 0o444
        inherited = os.fstat(fd).st_mode & stat.S_ISGID  # which chmod would take away again
        give_new(fd, parent_fd, 0o700 | terms.file_mode_bits | readable >> 2 | inherited)
    finally:
        close_descriptor(fd)
    if terms.fsync:
        fsync_directory(parent_fd)


def keep_version(name: bytes, directory_fd: int) -> bytes:
    """Give a file a second name, `name.~N~` with the next N as GNU cp numbers its backups.

    A file that is mounted by itself lies on another mount than its directory, so that name gets a copy.
    """
    pattern = re.compile(re.escape(os.fsdecode(name)) + r"\.~([1-9][0-9]{0,17})~")
    with os.scandir(directory_fd) as entries:
        matches = [pattern.fullmatch(entry.name) for entry in entries]
    number = max((int(match[1]) for match in matches if match), default=0)
    while True:
        number += 1
        version = b"%s.~%d~" % (name, number)
        try:
            os.link(name, version, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=False)
        except FileExistsError:  # made since we looked
            continue
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_version(name, version, directory_fd)
        return version


def _copy_version(name: bytes, version: bytes, directory_fd: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        copy = StagedFile(directory_fd)
        try:
            copy_bytes(fd, copy.fd)
            keep_or_give(copy.fd, name, directory_fd, 0o600)
            os.fsync(copy.fd)
            copy.publish_new(directory_fd, version)
        finally:
            copy.close()
    finally:
        close_descriptor(fd)


def fsync_directory(directory_fd: int) -> None:
    """Make the entries of a directory durable, where the file system knows how."""
    try:
        os.fsync(directory_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that know no fsync of a directory (CIFS, some FUSE)
            raise
