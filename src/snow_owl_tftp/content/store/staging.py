"""One file that nobody sees yet, and the one step that makes it visible.

    create ──► fd, written by whoever ──► publish_new | publish_over ──► the name, whole

May know directories by descriptor and one name within each. Must not know paths, peers, limits or
what to do where a name exists: that is chosen above, and each choice is one call here.

Invariants:
- Until it is published the file has no name (O_TMPFILE), or a hidden one that nobody can guess.
- Publishing is one rename or link, so a reader sees the old file or the new one, never a part.
- Whatever instant the process dies at, what it leaves is either nothing or a file whose name
  `is_staging_name` knows; its holder keeps it locked, so a sweep tells a leftover from a live one.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import tempfile
from typing import Final

from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.unnamed import give_name, open_unnamed, rename_new

__all__ = ["ScratchFile", "StagedFile", "is_staging_name"]

_STAGING_NAME: Final = re.compile(rb"\.snow-owl-[0-9a-f]{16}\.part")


def is_staging_name(name: bytes) -> bool:
    """Tell whether a directory entry's name is one of those made here."""
    return _STAGING_NAME.fullmatch(name) is not None


def _new_staging_name() -> bytes:
    # 64 random bits: a peer that could guess it might read a file that is not whole yet.
    return b".snow-owl-%s.part" % secrets.token_hex(8).encode()


class StagedFile:
    """A file on its way into a directory. Not for several threads at once.

    Attributes:
        fd: Open for reading and writing, close-on-exec, mode 0o600; -1 once closed.
    """

    __slots__ = ("_directory_fd", "_name", "fd")

    def __init__(self, directory_fd: int) -> None:
        """Create the file in a directory, or rather in its file system.

        Args:
            directory_fd: Remains the caller's and must stay open until `close`.

        Raises:
            OSError: It cannot be created there.
        """
        self._directory_fd = directory_fd
        self._name = b""
        self.fd = open_unnamed(b".", 0o600, dir_fd=directory_fd)
        if self.fd < 0:
            self._name = _new_staging_name()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.fd = os.open(self._name, flags, 0o600, dir_fd=directory_fd)
        # A file system without locks cannot tell leftovers from live files either; see `leftovers`.
        with contextlib.suppress(OSError):
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def publish_new(self, directory_fd: int, name: bytes) -> None:
        """Give the file its name unless something has that name.

        Raises:
            FileExistsError: Something has it.
            OSError: The file could not be named; it has no new name then.
        """
        if self._name:
            rename_new(self._name, name, src_dir_fd=self._directory_fd, dst_dir_fd=directory_fd)
            self._name = b""
        else:
            give_name(self.fd, name, dir_fd=directory_fd)

    def publish_over(self, directory_fd: int, name: bytes) -> None:
        """Give the file its name, which its present holder loses in the same instant.

        Raises:
            OSError: The file could not be named; the present holder keeps the name then.
        """
        source_fd = self._directory_fd
        if not self._name:
            # link(2) replaces nothing and rename(2) needs a name, hence a hidden one in between.
            hidden = _new_staging_name()
            give_name(self.fd, hidden, dir_fd=directory_fd)
            self._name, self._directory_fd = hidden, directory_fd
            source_fd = directory_fd
        try:
            os.rename(self._name, name, src_dir_fd=source_fd, dst_dir_fd=directory_fd)
        except OSError:
            self._unlink()
            raise
        self._name = b""

    def close(self) -> None:
        """Close the file; unless it was published nothing of it remains. A second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._unlink()
            close_descriptor(fd)

    def _unlink(self) -> None:
        """Take the hidden name away; if that fails the next start's sweep does it."""
        name, self._name = self._name, b""
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._directory_fd)


class ScratchFile(StagedFile):
    """A file to receive into where none can be made beside its name; its content has to be copied there.

    It lies in the directory for temporary files (TMPDIR), without a name.
    """

    __slots__ = ()

    def __init__(self) -> None:
        """Create it.

        Raises:
            OSError: It cannot be created.
        """
        self._directory_fd = -1
        self._name = b""
        with tempfile.TemporaryFile(buffering=0) as file:
            self.fd = os.dup(file.fileno())

    def publish_new(self, directory_fd: int, name: bytes) -> None:
        """Raises: PermissionError."""
        raise PermissionError(errno.EACCES, "the directory takes no new file")

    def publish_over(self, directory_fd: int, name: bytes) -> None:
        """Raises: PermissionError."""
        raise PermissionError(errno.EACCES, "the directory takes no new file")
