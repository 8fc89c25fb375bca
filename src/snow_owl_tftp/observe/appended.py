"""A file that lines are appended to, under the name that it was opened by.

    log, audit ──follow──► the descriptor of what has the name now ──► write(2)

May know one path. Must not know lines, levels or signals.

Invariants:
- The name is looked up before every write, about 1 µs: a file that logrotate has moved away gets no
  further line, whether or not a signal says so.
- Where the name cannot be opened any more the open file stays, and this is told once until it works again.
- The number of the descriptor never changes.

Not for several threads at once.
"""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from snow_owl_tftp.errors import ConfigError

__all__ = ["AppendedFile"]

# O_APPEND: several processes, and logrotate's copytruncate, may share the file.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_MODE: Final = 0o640
_TRY_AGAIN_S: Final = 1.0
"""How long a name that could not be opened is left alone."""


class AppendedFile:
    """One file, followed by its name.

    Attributes:
        fd: Open for appending, close-on-exec; -1 once closed.
        identity: Device and inode of the file that is open.
    """

    def __init__(self, path: str, key: str, *, nonblocking: bool) -> None:
        """Open or create it.

        Args:
            path: Its name.
            key: The setting that gave it, for the error.
            nonblocking: A FIFO whose reader is stuck makes a write fail instead of wait.

        Raises:
            ConfigError: It cannot be opened.
        """
        self._path = Path(path)
        self._nonblocking = nonblocking
        self._in_trouble = False
        self._try_again_s = 0.0
        try:
            self.fd = _open(path)
            os.set_blocking(self.fd, not nonblocking)
        except OSError as error:
            raise ConfigError(f"{key}: {path}: {error.strerror}; name a file in a writable directory") from error
        self.identity = _identity_of(os.fstat(self.fd))

    def follow(self, *, at_once: bool = False) -> str:
        """Go over to the file that has the name now, made if there is none.

        Args:
            at_once: Try although it failed a moment ago, and tell of it again.

        Returns:
            Why that cannot be done, where it was not told before; else "".
        """
        if self.fd < 0 or (self._in_trouble and not at_once and time.monotonic() < self._try_again_s):
            return ""
        try:
            if not self._has_the_name():
                self._go_over()
        except OSError as error:
            is_told = self._in_trouble and not at_once
            self._in_trouble = True
            self._try_again_s = time.monotonic() + _TRY_AGAIN_S
            return "" if is_told else error.strerror or str(error)
        self._in_trouble = False
        return ""

    def close(self) -> None:
        """Close it; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def _has_the_name(self) -> bool:
        try:
            return _identity_of(self._path.stat()) == self.identity
        except FileNotFoundError:
            return False

    def _go_over(self) -> None:
        fd = _open(self._path)
        try:
            os.set_blocking(fd, not self._nonblocking)
            identity = _identity_of(os.fstat(fd))
            os.dup2(fd, self.fd, inheritable=False)
            self.identity = identity
        finally:
            with suppress(OSError):
                os.close(fd)


def _open(path: str | Path) -> int:
    """Open for appending, made if there is none; nobody is waited for.

    A FIFO that nobody reads takes what fits until somebody comes: open(2) to write would wait for him, and with
    O_NONBLOCK fails with ENXIO. Who also could read it himself has it at once, on Linux (fifo(7)).
    """
    try:
        return os.open(path, _FLAGS | os.O_NONBLOCK, _MODE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    return os.open(path, (_FLAGS & ~os.O_WRONLY) | os.O_RDWR | os.O_NONBLOCK)


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
