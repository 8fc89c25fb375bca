"""The directory that an upload goes to: found below the root, looked up again, made if the terms say so.

May know: the root, through a Resolver that confines, and the terms. Must not know uploads, or what is in a file.

Invariants:
- Every descriptor that leaves here is of a directory below the root, and the caller's to close.
- What is refused leaks nothing: the text of a RefusedError holds no path and no name.
"""

import errno
import os
import stat
from collections.abc import Sequence

from snow_owl_tftp.content.confine import Resolver
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.content.store.places import UploadTerms, check_present, look, make_directory
from snow_owl_tftp.content.store.refusals import refuse_upload
from snow_owl_tftp.linux.descriptors import close_descriptor

__all__ = ["Directories"]


class Directories:
    """All directories below one root, as uploads see them."""

    def __init__(self, resolver: Resolver) -> None:
        """Look below the root of this resolver."""
        self._resolver = resolver

    def holds(self, path: bytes) -> bool:
        """Tell whether something has a path already."""
        fd = self._resolver.open(path)
        if fd >= 0:
            close_descriptor(fd)
        return fd not in (-errno.ENOENT, -errno.ENOTDIR, -errno.ENAMETOOLONG)

    def open_place(self, terms: UploadTerms) -> tuple[int, os.stat_result | None]:
        """Return the deepest directory of a path that exists, for the caller to close, and what has the name now.

        Raises:
            RefusedError: The directory or the name is not what the terms ask for.
        """
        *parents, name = terms.path.split(b"/")
        directory_fd, missing = self._open_deepest(parents)
        try:
            if missing and not terms.create_directories:
                raise refuse_upload(OSError(errno.ENOENT, "no such directory"))
            present = None if missing else look(name, directory_fd)
            check_present(present, terms)
        except BaseException as error:
            close_descriptor(directory_fd)
            if isinstance(error, OSError):
                raise refuse_upload(error, where=terms.path) from error
            raise
        return directory_fd, present

    def open_directory(self, terms: UploadTerms) -> int:
        """Open the directory of a path, making what is missing if the terms allow.

        Returns:
            A descriptor that the caller closes.

        Raises:
            OSError: It cannot be opened, or made.
            RefusedError: It is not below the root.
        """
        parents = terms.path.split(b"/")[:-1]
        directory_fd, missing = self._open_deepest(parents)
        if missing and not terms.create_directories:
            close_descriptor(directory_fd)
            raise FileNotFoundError(errno.ENOENT, "no such directory")
        for depth in range(len(parents) - len(missing), len(parents)):
            try:
                make_directory(parents[depth], directory_fd, terms)
            finally:
                close_descriptor(directory_fd)
            directory_fd = self._open_at(parents[: depth + 1])
            if directory_fd < 0:
                raise OSError(-directory_fd, os.strerror(-directory_fd))
        return directory_fd

    def _open_deepest(self, parents: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        """Return a descriptor of the deepest directory that exists, and the parts below that do not."""
        for depth in range(len(parents), -1, -1):
            fd = self._open_at(parents[:depth])
            if fd >= 0:
                return fd, parents[depth:]
            if fd != -errno.ENOENT:
                break
        where = b"/".join(parents[:depth])
        why = self._resolver.explain(where or b".")
        if fd in (-errno.EXDEV, -errno.ELOOP):
            raise OutsideRootError(by_link=True, why=why)
        raise refuse_upload(OSError(-fd, os.strerror(-fd)), where=where, why=why)

    def _open_at(self, parts: Sequence[bytes]) -> int:
        """Return a descriptor of a directory below the root, or a negative errno."""
        fd = self._resolver.open(b"/".join(parts) or b".")
        if fd < 0:
            return fd
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        except OSError as error:
            close_descriptor(fd)
            return -(error.errno or errno.EIO)
        if not is_directory:
            close_descriptor(fd)
            return -errno.ENOTDIR
        return fd
