"""Lines that arrive whole or not at all, in a file whose disk may be full for a while.

    lines ─write─► all of them                     the disk takes them
                 └► a beginning; the rest is kept   it is full within a line: the rest is written first, later
                 └► none                            counted, and told in a line of its own once it takes some again

May know one descriptor at a time and how it is written to. Must not know what the lines say, nor wait.

Invariants:
- A line that was cut is finished before anything else is written, or, where that cannot be, ended: when its file was
  truncated or written to by somebody else meanwhile, or when another process was cut off in it.
- At most the rest of one line is kept.
- Each lost line is counted once in `lost_total`, and told once.

Not for several threads at once.
"""

import os
import stat
from collections.abc import Callable, Sequence

__all__ = ["WholeLines"]

Write = Callable[[int, bytes], int]
"""Writes to a descriptor what it takes at once; returns how many bytes, 0 and more, and never raises."""


class WholeLines:
    """What is owed to one file, or to what has its name next.

    Attributes:
        lost_total: Lines that never arrived, in all.
        tell: Makes the line that says how many were lost; b"": none.
    """

    def __init__(self, write: Write) -> None:
        """Owe nothing.

        Args:
            write: How to write.
        """
        self._write = write
        self._rest = b""
        self._rest_at_bytes = -1  # how long the file was when the rest was kept; -1: it is none that has a length
        self._owes_end = False
        self._untold = 0
        self.lost_total = 0
        self.tell: Callable[[int], bytes] = lambda count: b""

    @property
    def owes(self) -> bool:
        """Whether there is anything to write although nothing new has come."""
        return bool(self._rest or self._untold)

    def begin(self, fd: int) -> None:
        """Go over to a file that was just opened: what is kept of a line belongs to the one before."""
        self._drop_rest()
        self._owes_end = _ends_within_a_line(fd)

    def write(self, fd: int, lines: Sequence[bytes]) -> None:
        """Write lines, their ends included, behind what is owed."""
        if not (self._finish(fd) and self._say(fd)):
            self.lose(len(lines))
            return
        written_bytes = self._write(fd, b"".join(lines)) if lines else 0
        for number, line in enumerate(lines):
            if written_bytes < len(line):
                self._keep(fd, line[written_bytes:] if written_bytes else b"")
                self.lose(len(lines) - number - bool(written_bytes))
                return
            written_bytes -= len(line)

    def _say(self, fd: int) -> bool:
        """Say how many lines were lost, if any were; tell whether the next line may follow."""
        told = self._untold
        notice = self.tell(told) if told else b""
        if not notice:
            return True
        written_bytes = self._write(fd, notice)
        if written_bytes == 0:
            return False
        self._untold -= told
        if written_bytes < len(notice):
            self._keep(fd, notice[written_bytes:])
            return False
        return True

    def _finish(self, fd: int) -> bool:
        """Write what is owed of a line; tell whether the next one may follow."""
        if self._rest and self._rest_at_bytes != _length_of(fd):
            self._drop_rest()
            self._owes_end = _ends_within_a_line(fd)
        owed = self._rest or (b"\n" if self._owes_end else b"")
        if not owed:
            return True
        written_bytes = self._write(fd, owed)
        if written_bytes < len(owed):
            self._keep(fd, self._rest[written_bytes:])
            return False
        self._rest, self._owes_end = b"", False
        return True

    def _keep(self, fd: int, rest: bytes) -> None:
        self._rest = rest
        self._rest_at_bytes = _length_of(fd) if rest else -1

    def _drop_rest(self) -> None:
        if self._rest:
            self._rest = b""
            self.lose(1)

    def lose(self, count: int) -> None:
        """Count lines that did not come this far."""
        self.lost_total += count
        self._untold += count


def _length_of(fd: int) -> int:
    status = os.fstat(fd)
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _ends_within_a_line(fd: int) -> bool:
    """Whether the last byte of a file is no line end; False where that cannot be read."""
    length = _length_of(fd)
    if length <= 0:
        return False
    try:
        # Our own descriptor is for writing only.
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.pread(reading, 1, length - 1) not in (b"\n", b"")
    except OSError:
        return False
    finally:
        os.close(reading)
