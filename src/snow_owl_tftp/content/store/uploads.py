"""Uploads: a file that nobody sees until it is whole, durable and accounted for.

    WRQ ──begin──► OpenUpload ──open──► fd, written by the engine ──commit──► the name
                      └───────────────────close──► nothing (unless committed before)

May know the root, through a Resolver that confines, and the terms that the rules set. Must not know
peers or packets, nor who may write what: `begin` takes a path that was allowed before.

Invariants:
- What has the name is whole: the old file until `commit` returns, then the new one; never a part (`publishing`).
- `commit` returns only when the file and its directory entry are on the disk (with `fsync`), so the
  last ACK may be sent.
- An upload that has not begun to arrive holds no descriptor and no room: `open` comes with its first byte. What can be
  refused without a file is refused by `begin`.
- Two uploads of one name have a file each; which of them is kept is decided when they commit.
- Missing directories are made by `commit`, so a WRQ that nothing follows leaves nothing behind.
- The directory is looked up again by `commit`: should it have been moved meanwhile, the file still
  lands where the client asked, beneath the root, or nowhere.
- What is refused leaks nothing: the text of a RefusedError holds no path and no name.
- Every method may be called by any thread.

One server at a time may keep versions below one root: two that replace a file at the same instant
could keep the same version twice and lose the other's.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from snow_owl_tftp.content.confine import Resolver, choose_resolver
from snow_owl_tftp.content.devices import device_of, device_of_descriptor
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.content.store.directories import Directories
from snow_owl_tftp.content.store.leftovers import Survey, survey
from snow_owl_tftp.content.store.places import (
    UploadTerms,
    check_disk,
    fsync_directory,
    may_make_files,
)
from snow_owl_tftp.content.store.publishing import Publication
from snow_owl_tftp.content.store.reception import Reception, may_write_only
from snow_owl_tftp.content.store.refusals import UploadError, UploadTooLargeError, refuse_upload
from snow_owl_tftp.content.store.space import Space
from snow_owl_tftp.content.store.staging import StagedFile, is_staging_name
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import InternalError, RefusedError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["OpenUpload", "StoredFile", "UploadArea", "UploadError", "UploadTerms"]


class StoredFile(Struct, frozen=True):
    """An upload in its place.

    Attributes:
        real_path: Absolute, links on the way resolved.
        size_bytes: Of the file; smaller than what was received for netascii.
        kept_as: Name, in the same directory, under which the file it replaced was kept; b"": none.
    """

    real_path: Path
    size_bytes: int
    kept_as: bytes


class UploadArea:
    """All that may be written: files below one directory."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        max_file_size_bytes: int = 0,
        max_total_bytes: int = 0,
        counts: Callable[[bytes], bool] = lambda _: True,
        make_resolver: Callable[[int, Sequence[Place]], Resolver] = choose_resolver,
        place: Place | None = None,
        run_count: Callable[["UploadArea", Callable[[], None]], None] = lambda area, count: count(),
    ) -> None:
        """Open the root.

        Args:
            root: A directory.
            max_file_size_bytes: Most bytes on the wire of one upload; 0: no limit.
            max_total_bytes: Most bytes of all files that count; 0: no limit.
            counts: Whether a path counts for `max_total_bytes`: those that may be uploaded should, so
                that boot images beside them do not. Older versions count as the file itself.
            make_resolver: How to confine; by default, as this kernel can do best.
            place: The root, if it is open already; taken over.
            run_count: See Space; the area comes with it.

        Raises:
            ConfigError: The root is no directory that can be opened.
        """
        self.root = Path(root).absolute()
        self._place = place or Place(root, "root_dir")
        self._root_fd = self._place.fd
        # Only the root: what links may lead to outside is there to be read.
        self.directories = Directories(make_resolver(self._root_fd, (self._place,)))
        self._counts = counts
        self.max_file_size_bytes = max_file_size_bytes
        self.space = Space(
            max_total_bytes,
            lambda: self._survey(removes_leftovers=False).counted_bytes,
            run=lambda count: run_count(self, count),
        )
        self._publishing: dict[int, threading.RLock] = {}  # by device: one that hangs holds up its own names only

    def close(self) -> None:
        """Close the root. Uploads must be closed before."""
        self._root_fd = -1
        self._place.close()

    def is_current(self) -> bool:
        """Tell whether the path of the root still leads to this root. Raises: ConfigError if it leads nowhere."""
        place = Place(self.root, "root_dir")
        return (place.identity, place.paths) == (self._place.identity, self._place.paths)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the root."""
        return self._place.identity

    def sweep(self) -> Survey:
        """Remove what a crash left, and count what lies in the area; call it before the first upload."""
        found = self.remove_leftovers()
        self.space.set_counted(found.counted_bytes)
        return found

    def remove_leftovers(self) -> Survey:
        """Remove what a crash left; uploads may be under way. See `sweep`."""
        return self._survey(removes_leftovers=True)

    def device_of(self, path: bytes, may_wait_on: int | None = None) -> int:
        """Return on which device a path has to be waited for next; see devices.device_of."""
        return device_of([self._place], path, may_wait_on)

    def publishing(self, directory_fd: int) -> threading.RLock:
        """Return what to hold while a name of a directory changes hands, for a few metadata calls.

        See Publication.
        """
        return self._publishing.setdefault(device_of_descriptor(directory_fd)[0], threading.RLock())

    def begin(
        self, terms: UploadTerms, announced_bytes: int | None = None, *, is_netascii: bool = False
    ) -> "OpenUpload":
        """Make ready to receive a file.

        Args:
            terms: Where to, and under which conditions.
            announced_bytes: The client's tsize; None: it sent none.
            is_netascii: What is received is netascii and is stored as local text.

        Returns:
            The upload; the caller closes it, whether it was committed or not.

        Raises:
            RefusedError: What to answer instead; nothing was written, and nothing is held. UploadError, with its
                errno, where the file system or a limit says no; OutsideRootError.

        Deviates: a tsize of 0 counts as none, since curl announces 0 when it reads from a pipe
            (test_tsize_zero_is_no_announcement). With netascii tsize is a hint only: clients announce
            the size of their local file (test_netascii_upload_may_be_longer_than_its_tsize).
        """
        announced_bytes = None if is_netascii else announced_bytes or None
        *parents, name = terms.path.split(b"/")
        _check_name(parents, name)
        limit_bytes = self.max_file_size_bytes
        if announced_bytes is not None and 0 < self.max_file_size_bytes < announced_bytes:
            raise UploadTooLargeError(announced_bytes)
        directory_fd, present = self.directories.open_place(terms)
        try:
            if may_make_files(directory_fd):
                check_disk(directory_fd, announced_bytes)
            elif not may_write_only(name, directory_fd, present, terms):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise refuse_upload(error, where=terms.path) from error
        finally:
            close_descriptor(directory_fd)
        self.space.check(announced_bytes)
        return OpenUpload(self, terms, announced_bytes, limit_bytes, is_netascii=is_netascii)

    def receive(self, terms: UploadTerms) -> Reception:
        """Create a file to receive into.

        Raises:
            RefusedError: What to tell the client instead; nothing is left.
        """
        directory_fd, present = self.directories.open_place(terms)
        try:
            return Reception(terms, directory_fd, present)
        except BaseException as error:
            close_descriptor(directory_fd)
            if isinstance(error, OSError):
                raise refuse_upload(error, where=terms.path) from error
            raise

    def _survey(self, *, removes_leftovers: bool) -> Survey:
        return survey(self._root_fd, counts=self._counts, removes_leftovers=removes_leftovers)


class OpenUpload:
    """One file that was asked for, or is being received.

    Attributes:
        fd: Where to write, with pwrite from offset 0; from `open` until `close`, else -1.
        announced_bytes: How many bytes will come, no more and no less; None: nobody knows.
        limit_bytes: How many may come at most; 0: no limit. `open` may lower it.
    """

    def __init__(
        self,
        area: UploadArea,
        terms: UploadTerms,
        announced_bytes: int | None,
        limit_bytes: int,
        *,
        is_netascii: bool,
    ) -> None:
        """Keep what was decided; nothing is opened."""
        self._area = area
        self._terms = terms
        self._is_netascii = is_netascii
        self._lock = threading.Lock()  # one of open, commit and close at a time
        self._is_abandoned = False
        self._is_committed = False
        self._reception: Reception | None = None
        self.fd = -1
        self.announced_bytes = announced_bytes
        self.limit_bytes = limit_bytes

    def open(self) -> int:
        """Create the file to receive into, and reserve its room; a second call changes nothing.

        Returns:
            `fd`.

        Raises:
            RefusedError: What to tell the client instead. What was true when the upload was asked for may have changed
                since, and what only the attempt shows comes here: no descriptor or inode left, a file system that
                refuses in spite of its permissions.
        """
        with self._lock:
            self._check_wanted()
            if self._reception is None:
                self._open()
            return self.fd

    def _open(self) -> None:
        reception = self._area.receive(self._terms)
        fd = reception.received.fd
        try:
            check_disk(fd, self.announced_bytes)
            reception.reservation, room_bytes = self._area.space.reserve(fd, self.announced_bytes)
        except BaseException as error:
            reception.close()
            if isinstance(error, OSError):
                raise refuse_upload(error, where=self._terms.path) from error
            raise
        self._reception = reception
        self.fd = fd
        self.limit_bytes = min(filter(None, (self.limit_bytes, room_bytes)), default=0)

    def _check_wanted(self) -> None:
        if self._is_abandoned:
            raise UploadError(ErrorCode.NOT_DEFINED, "Upload was aborted")

    def commit(self, received_bytes: int) -> StoredFile:
        """Make the file durable, then visible under its name.

        Args:
            received_bytes: How many bytes were written to `fd`.

        Returns:
            Where it is now; the client may be told that all went well.

        Raises:
            RefusedError: What to tell the client instead, an UploadError mostly; also where it was abandoned. The
                name is as it was, but for one case: if the directory cannot be made durable, the file is visible and
                whole, though it might not survive a power cut.
            InternalError: It was committed before, or never opened.
        """
        with self._lock:
            if self._is_committed:
                raise InternalError("an upload is stored once")
            self._check_wanted()
            if self._reception is None:
                raise InternalError("an upload is opened before it is stored")
            try:
                return self._commit(self._reception, received_bytes)
            except OSError as error:
                raise refuse_upload(error) from error

    def abandon(self) -> None:
        """Give up a commit that has not reached the file's name yet, and what would come after; does not wait."""
        self._is_abandoned = True

    def close(self) -> None:
        """Let go of everything; a file that was not committed is gone. A second call does nothing.

        While another thread commits, this waits for it; a commit that has not reached the file's name
        yet is given up.
        """
        self.abandon()
        with self._lock:
            reception, self._reception = self._reception, None
            self.fd = -1
            if reception is not None:
                if reception.reservation is not None:
                    self._area.space.release(reception.reservation)  # before its descriptor goes
                reception.close()

    def _commit(self, reception: Reception, received_bytes: int) -> StoredFile:
        reservation = reception.reservation
        assert reservation is not None, "an upload that was opened has one"
        self._area.space.finish(reservation)
        self._check_received(received_bytes)
        staged = reception.decode() if self._is_netascii else reception.received
        size_bytes = os.fstat(staged.fd).st_size
        self._area.space.claim(reservation, size_bytes)
        directory_fd = self._area.directories.open_directory(self._terms)
        try:
            kept_as, replaced_bytes = self._publish(staged, directory_fd)
            self._area.space.settle(reservation, size_bytes, replaced_bytes)
            if self._terms.fsync:
                fsync_directory(directory_fd)
            return StoredFile(self._real_path(directory_fd), size_bytes, kept_as)
        finally:
            close_descriptor(directory_fd)

    def _check_received(self, received_bytes: int) -> None:
        if os.fstat(self.fd).st_size != received_bytes:
            raise OSError(errno.EIO, "the file is not as long as what was received")
        if self.announced_bytes not in (None, received_bytes):
            # A block that is cut short ends a transfer (RFC 1350 section 6), so this is all we can tell it by.
            raise UploadError(ErrorCode.NOT_DEFINED, "Fewer or more bytes than announced by tsize")

    def _publish(self, staged: StagedFile, directory_fd: int) -> tuple[bytes, int]:
        publication = Publication(staged, directory_fd, self._terms, self._area.publishing(directory_fd))
        try:
            return publication.publish(self._check_wanted)
        finally:
            self._is_committed = publication.is_done

    def _real_path(self, directory_fd: int) -> Path:
        path = Path(os.fsdecode(self._terms.path))
        try:
            return Path(f"/proc/self/fd/{directory_fd}").readlink() / path.name
        except OSError:  # no /proc: the path as asked leads there too
            return self._area.root / path


def _check_name(parents: Sequence[bytes], name: bytes) -> None:
    if b".." in parents or name in (b"", b".", b".."):
        raise OutsideRootError(by_link=False)
    # A sweep removes such files; an acknowledged upload must never be among them.
    if is_staging_name(name):
        raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Illegal file name")
