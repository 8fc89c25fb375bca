"""How a received file gets its name: its permissions first, then the step that makes it visible.

    look at the old file ─► permissions ─► fsync ─► still the same file? ─► rename
                  ▲                                        │ no
                  └────────────────────────────────────────┘

May know: one directory, by descriptor, and the terms. Must not know the area, or how much room there is.

Invariants:
- What has the name is whole: the old file until the step, then the new one. But a file that cannot be replaced, only
  written, is written in place then (see `overwrite`).
- A file that replaces another keeps the owner and permissions of the one that it does replace, and of no other.
"""

import errno
import os
import threading
from collections.abc import Callable
from typing import Final

from snow_owl_tftp.content.store.overwrite import overwrite
from snow_owl_tftp.content.store.permissions import FileIdentity, identity_of, keep_or_give
from snow_owl_tftp.content.store.places import UploadTerms, check_present, keep_version, look
from snow_owl_tftp.content.store.reception import NOTHING_NEW
from snow_owl_tftp.content.store.staging import StagedFile

__all__ = ["Publication"]

_NOT_REPLACED: Final = NOTHING_NEW | {errno.EBUSY}
"""EBUSY: something is mounted on the name."""
_MAX_LOOKS: Final = 8
"""How often somebody else may change what has the name while an upload takes over its permissions."""


class Publication:
    """One file on its way to its name.

    Attributes:
        is_done: It has the name.
    """

    def __init__(
        self, staged: StagedFile, directory_fd: int, terms: UploadTerms, changing_hands: threading.RLock
    ) -> None:
        """Do nothing yet.

        Args:
            staged: The file, whole; nobody sees it.
            directory_fd: Where it goes; stays the caller's.
            terms: Under which name, and on which conditions.
            changing_hands: Held while a name of this directory changes hands, for a few metadata calls. Otherwise two
                uploads that replace a file at the same time would keep it as a version twice, and one of them not at
                all.
        """
        self._staged = staged
        self._directory_fd = directory_fd
        self._terms = terms
        self._name = terms.path.rpartition(b"/")[2]
        self._changing_hands = changing_hands
        self.is_done = False

    def publish(self, check_wanted: Callable[[], None]) -> tuple[bytes, int]:
        """Give the file its permissions, then its name.

        Args:
            check_wanted: Asked at the last moment; raises where the upload was given up.

        Returns:
            The name under which an older version was kept, b"" for none; and how many bytes went with the old file.

        Raises:
            OSError: The file system says no, or what has the name does not come to rest.
            RefusedError: What has the name may not be replaced.
        """
        published = self._try(check_wanted)  # not under the lock: an fsync takes its time
        looks = 1
        while published is None:
            if looks == _MAX_LOOKS:
                raise BlockingIOError(errno.EAGAIN, "what has the name does not come to rest")
            looks += 1
            with self._changing_hands:  # now other uploads of this name wait
                published = self._try(check_wanted)
        return published

    def _try(self, check_wanted: Callable[[], None]) -> tuple[bytes, int] | None:
        seen = keep_or_give(self._staged.fd, self._name, self._directory_fd, self._terms.file_mode_bits)
        if self._terms.fsync:
            os.fsync(self._staged.fd)
        return self._step(seen, check_wanted)

    def _step(self, seen: FileIdentity | None, check_wanted: Callable[[], None]) -> tuple[bytes, int] | None:
        """As `publish`; None: the name has changed hands since the permissions were taken over."""
        with self._changing_hands:
            check_wanted()
            old = look(self._name, self._directory_fd)
            check_present(old, self._terms)
            if old is not None and identity_of(old) != seen:
                return None
            kept_as = b""
            if old is None:
                self._staged.publish_new(self._directory_fd, self._name)
            else:
                is_kept = self._terms.on_existing == "version"
                kept_as = keep_version(self._name, self._directory_fd) if is_kept else b""
                self._publish_over()
            self.is_done = True
        return kept_as, 0 if old is None or kept_as else old.st_size

    def _publish_over(self) -> None:
        try:
            self._staged.publish_over(self._directory_fd, self._name)
        except OSError as error:
            if error.errno not in _NOT_REPLACED:
                raise
            overwrite(self._name, self._directory_fd, self._staged.fd, fsync=self._terms.fsync)
