"""Where a download goes: bytes, a path, a device or a file object.

May know: files, netascii. Must not know: sockets or packets.
Invariants:
- `fd` takes what the engine writes; nobody sees it before `complete` has returned.
- A path appears complete, by a rename within its directory, or not at all.
- `discard` may come at any time, also while the engine still writes: it takes the name, and only `close` the
  descriptor, since a number given back too early would be somebody else's file.
- Only what the caller asked for as bytes stays in memory.
"""

import contextlib
import errno
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from snow_owl_tftp.linux.memfd import memory_file
from snow_owl_tftp.linux.unnamed import give_name, open_unnamed
from snow_owl_tftp.linux.write_all import pwrite_all
from snow_owl_tftp.protocol import netascii

__all__ = ["BytesTarget", "FileObjectTarget", "PathTarget", "Target", "hand_over", "target_for"]

_CHUNK_BYTES = 1 << 20


class Target(Protocol):
    """What the core needs of a destination.

    Attributes:
        fd: Open for writing at any offset, until `close`.
        is_slow: `complete` copies or may block: call it where nobody waits.
    """

    fd: int
    is_slow: bool

    def complete(self) -> bytes | None:
        """Make the content visible; returns it where bytes were asked for. Raises: OSError."""

    def discard(self) -> None:
        """What `complete` has not made visible never will be; may be called twice."""

    def close(self) -> None:
        """Close the descriptor; the engine is done with it."""


def target_for(destination: "str | os.PathLike[str] | BinaryIO | None", mode: str) -> Target:
    """The target of what a caller named: None (bytes), a path, or a file object open for writing bytes.

    Raises:
        OSError: The path cannot be written.
        TypeError: It is none of these.
    """
    text = mode == "netascii"
    if destination is None:
        return BytesTarget(text)
    if isinstance(destination, str | os.PathLike):
        if os.fspath(destination).endswith("/"):  # a folder, which a Path would forget
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(destination))
        return _path_target(Path(destination), text)
    if hasattr(destination, "write"):
        return FileObjectTarget(destination, text)
    raise TypeError(f"expected a path or a file object, not {type(destination).__name__}")


class BytesTarget:
    """Memory, named by nobody."""

    def __init__(self, text: bool) -> None:
        self.fd = memory_file("tftp-get")
        self.is_slow = False
        self._text = text

    def complete(self) -> bytes:
        if self._text:
            return b"".join(netascii.decode_chunks(_chunks(self.fd)))
        size_bytes = os.fstat(self.fd).st_size
        data = os.pread(self.fd, size_bytes, 0)
        # One read returns at most 2 GiB less a page (read(2)).
        return data if len(data) == size_bytes else b"".join(_chunks(self.fd))

    def discard(self) -> None:
        """Nothing: it has no name."""

    def close(self) -> None:
        self.fd = _close(self.fd)


class PathTarget:
    """A file that appears under its name when it is complete.

    The bytes gather in a file without a name in the same directory, since a rename cannot cross file systems: whatever
    ends the process, nothing is left. Where the file system has no such files it has a hidden name from the start.
    """

    def __init__(self, path: Path, text: bool) -> None:
        # A link stays a link, and the file that it leads to is replaced.
        self._path = Path(os.path.realpath(path)) if path.is_symlink() else path.absolute()
        self._hidden: Path | None = None
        self._discarded = False
        self._text = text
        self.is_slow = text
        try:
            self.fd = self._open()
        except OSError as error:  # with the user's name for it, not ours
            raise OSError(error.errno, error.strerror, str(path)) from None

    def _open(self) -> int:
        """The umask decides about its mode, as for any file a program makes."""
        if (fd := open_unnamed(self._path.parent, 0o666)) < 0:
            hidden = self._hidden_path()
            fd = os.open(hidden, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
            self._hidden = hidden
        return fd

    def _hidden_path(self) -> Path:
        """Short, whatever the file is called: a name may have 255 bytes."""
        return self._path.with_name(f".tftp-get.{secrets.token_hex(6)}.part")

    def complete(self) -> None:
        if self._text:
            _decode_in_place(self.fd)
        if self._discarded:
            raise InterruptedError(errno.EINTR, "cancelled while it was decoded")
        if self._hidden is None and self._give_name(self._path):
            return
        with contextlib.suppress(FileNotFoundError):
            os.fchmod(self.fd, stat.S_IMODE(self._path.stat().st_mode))
        if self._hidden is None:
            while not self._give_name(hidden := self._hidden_path()):
                continue
            self._hidden = hidden
        self._hidden.replace(self._path)
        self._hidden = None

    def _give_name(self, path: Path) -> bool:
        """False: there is such a file already."""
        try:
            give_name(self.fd, path)
        except FileExistsError:
            return False
        return True

    def discard(self) -> None:
        self._discarded = True
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)

    def close(self) -> None:
        self.discard()
        self.fd = _close(self.fd)


class DeviceTarget:
    """A device that takes writes at any offset, such as /dev/null or a disk: there is no name to keep back."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.is_slow = False

    def complete(self) -> None:
        """Nothing: it was written where it belongs."""

    def discard(self) -> None:
        """Nothing: what a device took it keeps."""

    def close(self) -> None:
        self.fd = _close(self.fd)


class FileObjectTarget:
    """A file object: it is given everything, in order, once everything has arrived."""

    def __init__(self, file: BinaryIO, text: bool) -> None:
        self._file = file
        self._text = text
        self._discarded = False
        self.is_slow = True
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close
        self.fd = self._spool.fileno()

    def complete(self) -> None:
        for chunk in netascii.decode_chunks(_chunks(self.fd)) if self._text else _chunks(self.fd):
            if self._discarded:
                raise InterruptedError(errno.EINTR, "cancelled while it was copied")
            hand_over(chunk, self._file)
        if hasattr(self._file, "flush"):
            self._file.flush()

    def discard(self) -> None:
        """The file object is given no more; what it has it keeps."""
        self._discarded = True

    def close(self) -> None:
        self._spool.close()


def hand_over(data: bytes, file: BinaryIO) -> None:
    """Write all of `data` to a file object: a raw one may take less in one call, and says how much it took.

    Raises:
        BlockingIOError: It is raw and non-blocking, and takes no more now.
        OSError: As `file.write`.
    """
    rest: bytes | memoryview = data
    while rest:
        written_bytes = file.write(rest)
        if written_bytes is None and not isinstance(file, io.RawIOBase):
            return  # a class of the caller's that returns no count: it took everything
        if not written_bytes:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        rest = memoryview(rest)[written_bytes:]


def _path_target(path: Path, text: bool) -> Target:
    """By what is there now: /dev/null must not be replaced by a file."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return PathTarget(path, text)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISREG(kind):
        return PathTarget(path, text)
    if (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)) and not text:
        target = DeviceTarget(path)
        try:
            os.lseek(target.fd, 0, os.SEEK_CUR)
        except OSError:
            target.close()
        else:
            return target
    return _OwnedFileTarget(path.open("wb", buffering=0), text)


class _OwnedFileTarget(FileObjectTarget):
    """A pipe or terminal that we opened ourselves."""

    def close(self) -> None:
        super().close()
        self._file.close()


def _close(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


def _chunks(fd: int) -> Iterator[bytes]:
    offset_bytes = 0
    while chunk := os.pread(fd, _CHUNK_BYTES, offset_bytes):
        offset_bytes += len(chunk)
        yield chunk


def _decode_in_place(fd: int) -> None:
    """Decoding never makes netascii grow so writing cannot overtake reading."""
    written_bytes = 0
    for chunk in netascii.decode_chunks(_chunks(fd)):
        written_bytes = pwrite_all(fd, chunk, written_bytes)
    os.ftruncate(fd, written_bytes)
