"""Where lines go, and the thread that takes them there: what does not take them holds up nobody.

    log, audit ──write──► queue, 4 MiB ──► thread ──► the file that has the name now, whole lines, write(2)
                     └────► beyond: lost, counted, and told once lines are taken again

A file lies on a mount that hangs, a disk's journal waits, a terminal was stopped with ^S: write(2) then waits for as
long as they do, and with it whoever called it.

May know: one file. Must not know what lines say, nor who writes them.

Invariants:
- Whoever writes waits `_PROMPT_S` at most, and once that was in vain not at all for `_TRY_AGAIN_S`: a hundredth of his
  time. So what was told is in the file when `write` returns, as a rule.
- Until `begin` there is no thread: the caller writes, in the order of the calls.
- Lines are written in the order in which they came, or lost; each lost one is counted once.
- Nothing raises once the file is open.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from snow_owl_tftp.observe.appended import AppendedFile
from snow_owl_tftp.observe.whole import WholeLines, Write

__all__ = ["Outlet"]

OnLost = Callable[[int], None]

_MAX_QUEUED_BYTES: Final = 4 << 20
_PROMPT_S: Final = 0.01
_TRY_AGAIN_S: Final = 1.0
_HANGS_S: Final = 1.0
_END_S: Final = 1.0
"""How long the end waits for what is still to be written."""
_STANDARD_ERROR: Final = 2


class Outlet:
    """One file, or standard error.

    Attributes:
        on_trouble: Told why the file's name cannot be opened any more; may write here. Called in the thread.
    """

    def __init__(self, path: str, key: str, write: Write, *, nonblocking: bool = False) -> None:
        """Open for appending.

        Args:
            path: Empty: standard error.
            key: The setting that gave it, for the error.
            write: How to write to a descriptor.
            nonblocking: See AppendedFile.

        Raises:
            ConfigError: The file cannot be opened.
        """
        self.on_trouble: Callable[[str], None] = lambda reason: None
        self._file = AppendedFile(path, key, nonblocking=nonblocking) if path else None
        self._whole = WholeLines(write)
        if self._file:
            self._whole.begin(self._file.fd)
        self._writing = threading.Lock()  # held while the file is written to
        lock = threading.RLock()  # guards all below, and is never held for long
        self._told = threading.Condition(lock)
        self._done = threading.Condition(lock)
        self._parcels: list[tuple[Sequence[bytes], OnLost | None]] = []
        self._queued_bytes = self._overflown_lines = 0
        self._reopens = self._is_closed = self._has_ended = False
        self._asked = self._carried_out = 0
        self._begun_s = self._no_wait_until_s = 0.0
        self._thread: threading.Thread | None = None

    @property
    def fd(self) -> int:
        """Where lines go now; -1: nowhere any more."""
        return self._file.fd if self._file else _STANDARD_ERROR

    @property
    def lost_total(self) -> int:
        """Lines that never arrived, in all."""
        with self._told:
            return self._whole.lost_total + self._overflown_lines

    @property
    def owes(self) -> bool:
        """Whether there is anything to write although nothing new has come."""
        return self._whole.owes

    @property
    def hangs(self) -> bool:
        """Whether the thread waits for what it writes to."""
        with self._told:
            if self._thread is None or self._has_ended:
                return False
            return self._is_closed or bool(self._begun_s and time.monotonic() - self._begun_s > _HANGS_S)

    def tell_losses_by(self, make_line: Callable[[int], bytes]) -> None:
        """Say how many lines were lost, once lines are taken again, in the words of `make_line`."""
        self._whole.tell = make_line

    def begin(self, start: Callable[[threading.Thread], None]) -> None:
        """Have a thread write from now on.

        Args:
            start: Starts it.

        Raises:
            RuntimeError: The system has no more threads.
        """
        thread = threading.Thread(target=self._run, name="lines", daemon=True)
        with self._told:
            self._thread = thread
        try:
            start(thread)
        except RuntimeError:
            self._thread = None
            raise

    def write(self, lines: Sequence[bytes], on_lost: OnLost | None = None) -> None:
        """Write lines, their ends included, or lose them; none: what is owed.

        Args:
            lines: In their order.
            on_lost: Told how many of these were lost, as soon as that is known.
        """
        with self._told:
            if self._is_closed:
                return
            size_bytes = sum(map(len, lines))
            if self._queued_bytes and self._queued_bytes + size_bytes > _MAX_QUEUED_BYTES:
                self._overflown_lines += len(lines)
                if on_lost:
                    on_lost(len(lines))
            elif lines:
                self._parcels.append((lines, on_lost))
                self._queued_bytes += size_bytes
        self._have_it_done()

    def reopen(self) -> None:
        """Go over to the file that has the name now, without waiting for the next line."""
        with self._told:
            if self._is_closed:
                return
            self._reopens = True
        self._have_it_done()

    def close(self) -> None:
        """Write what is owed, if that is possible within a second, and close the file; standard error stays open."""
        with self._told:
            self._is_closed = True
            if self._thread is not None:
                self._told.notify()
                self._done.wait_for(lambda: self._has_ended, _END_S)
                return
        self._end()

    def _have_it_done(self) -> None:
        if self._thread is None:
            self._carry_out()
            return
        with self._told:
            self._asked += 1
            asked = self._asked
            self._told.notify()
            if self._thread is threading.current_thread() or time.monotonic() < self._no_wait_until_s:
                return
            if not self._done.wait_for(lambda: self._carried_out >= asked, _PROMPT_S):
                self._no_wait_until_s = time.monotonic() + _TRY_AGAIN_S

    def _run(self) -> None:
        while self._wait_for_work():
            with suppress(Exception):  # a bug costs lines, not all that come later
                self._carry_out()
        self._end()
        with self._told:
            self._has_ended = True
            self._done.notify_all()

    def _wait_for_work(self) -> bool:
        with self._told:
            self._told.wait_for(lambda: self._carried_out < self._asked or self._is_closed)
            return self._carried_out < self._asked

    def _carry_out(self) -> None:
        with self._writing:
            with self._told:
                parcels, self._parcels, self._queued_bytes = self._parcels, [], 0
                reopens, self._reopens = self._reopens, False
                overflown, asked, self._begun_s = self._overflown_lines, self._asked, time.monotonic()
            try:
                trouble = self._follow(at_once=reopens)
                self._write(parcels)
            finally:
                with self._told:
                    # Behind those that came before them, and before those that come now.
                    self._whole.lose(overflown)
                    self._overflown_lines -= overflown
                    self._carried_out, self._begun_s = asked, 0.0
                    self._done.notify_all()
        if trouble:
            self.on_trouble(trouble)

    def _write(self, parcels: Sequence[tuple[Sequence[bytes], OnLost | None]]) -> None:
        if self.fd < 0:
            return
        for lines, on_lost in parcels or [((), None)]:
            before = self._whole.lost_total
            self._whole.write(self.fd, lines)
            lost = self._whole.lost_total - before
            if lost and on_lost:
                with self._told:
                    on_lost(lost)

    def _follow(self, *, at_once: bool) -> str:
        if self._file is None or self._file.fd < 0:
            return ""
        before = self._file.identity
        trouble = self._file.follow(at_once=at_once)
        if self._file.identity != before:
            self._whole.begin(self._file.fd)
        return trouble

    def _end(self) -> None:
        with self._writing:
            if self._whole.owes and self.fd >= 0:
                self._whole.write(self.fd, [])
            if self._file:
                self._file.close()
