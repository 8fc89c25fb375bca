"""Whose turn it is to be looked at: files when inotify says so, and now and then; neighbours when the kernel has news.

    inotify ─► a file is due in 20 ms ─┐
    SIGHUP ──► all are due ────────────┼─► a thread looks ─► log, and when the next look is due
    30 s ────► all are due ────────────┘

May know: what is gathered, the event loop, the log. Must not know what a file holds.

Invariants: the event loop waits for no file; one look at a file at a time, and looks take at most a tenth of the time,
however often a file is written; a watch that is gone, or never came, costs freshness (2 s), not knowledge.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from snow_owl_tftp.config.machines import MachinesSettings
from snow_owl_tftp.linux.folder_news import ANY_WATCH, FolderNews
from snow_owl_tftp.operate.machines.files import FollowedFile, Outcome, Told
from snow_owl_tftp.operate.machines.gathered import Gathered
from snow_owl_tftp.policy.machines import Machines
from snow_owl_tftp.server.patient import PatientThreads

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["MachineWatch"]

_THREADS: Final = 8
_SOON_S: Final = 0.02
"""What is written in several calls is read once; DHCP's client asks for its file later than that."""
_BLIND_S: Final = 2.0
"""Between two looks at a file of which no watch tells."""
_USUAL_S: Final = 30.0
"""Between two looks anyway: leases end, and a network file system tells of no change that another machine made."""
_SHARE: Final = 9
"""A look is followed by so many times its own length without one."""


class _Turn:
    """When a file is due."""

    def __init__(self, file: FollowedFile) -> None:
        self.file = file
        self.due_s = 0.0
        self.not_before_s = 0.0
        self.is_busy = False
        self.is_stale = False  # something has changed since the look under way began
        self.watches: frozenset[int] = frozenset()
        self.names: frozenset[bytes] = frozenset()


class _Followed(NamedTuple):
    """What is watched of a file: folders, and its names in them; `refused`: why nothing is."""

    watches: frozenset[int] = frozenset()
    names: frozenset[bytes] = frozenset()
    refused: OSError | None = None


class MachineWatch:
    """Keeps what is known of machines fresh, and exchanges it when the settings change."""

    def __init__(self, settings: MachinesSettings) -> None:
        """Read everything once.

        Raises:
            ConfigError: See Gathered.
        """
        self._threads = PatientThreads(_THREADS, 1, "tftp-machines")
        self._wakes: asyncio.Event | None = None
        self._prepared: Gathered | None = None
        self._log: Callable[[], FilteringBoundLogger] | None = None  # returns the one in force
        self._news: FolderNews | None = None
        self._refresh_s = 0.0
        self._turns: list[_Turn] = []
        self._to_tell: list[Told] = []
        self._is_watch_refused = False
        try:
            self._gathered = Gathered(settings, self._threads.submit_for)
        except BaseException:
            self._threads.shutdown(cancel_futures=True)
            raise
        self._adopt()

    @property
    def machines(self) -> Machines:
        """What requests are asked of now."""
        return self._gathered.machines

    @property
    def coming(self) -> Machines:
        """What requests will be asked of once `take` was called."""
        return self._gathered.machines if self._prepared is None else self._prepared.machines

    @property
    def busy_total(self) -> int:
        """Threads at work; after `close` those that hang."""
        return self._threads.busy_total

    def figures(self) -> dict[str, int]:
        """See Gathered.figures."""
        return self._gathered.figures()

    def prepare(self, settings: MachinesSettings) -> None:
        """Read what other settings name, for `take`; runs in a thread.

        Raises:
            ConfigError: See Gathered; nothing has changed.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is not None:  # of a reload that was refused afterwards
            prepared.close()
        if settings != self._gathered.settings:
            self._prepared = Gathered(settings, self._threads.submit_for)

    def take(self) -> None:
        """Go on with what was prepared, if anything was; else look at all files again. Called by the event loop."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            for turn in self._turns:
                self._make_due(turn, 0.0)
            return
        self._let_go()
        self._gathered.close()
        self._gathered = prepared
        self._adopt()
        if self._wakes is not None:
            self._attach()
            self._wakes.set()

    def close(self) -> None:
        """Give everything up; what hangs is left behind."""
        self._threads.shutdown(cancel_futures=True)
        for gathered in (self._gathered, self._prepared):
            if gathered is not None:
                gathered.close()
        self._news = None

    async def run(self, log: "Callable[[], FilteringBoundLogger]") -> None:
        """Look until this is cancelled; `log` returns the one in force."""
        self._log, self._wakes = log, asyncio.Event()
        self._attach()
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wakes.wait(), self._rest_s())
                self._wakes.clear()
                now_s = time.monotonic()
                for turn in self._turns:
                    if turn.due_s <= now_s and not turn.is_busy:
                        self._look(turn)
                if self._gathered.hearing is not None and self._refresh_s <= now_s:
                    self._refresh_s = now_s + _USUAL_S
                    self._gathered.hearing.refresh()
        finally:
            self._let_go()
            self._wakes = None

    # ---- what is gathered

    def _adopt(self) -> None:
        """Begin with what was gathered."""
        self._turns = [_Turn(file) for file in self._gathered.files]
        self._refresh_s = time.monotonic() + _USUAL_S
        self._news = None
        self._to_tell = list(self._gathered.told)
        if self._turns:
            try:
                self._news = FolderNews()
            except OSError as error:
                self._note_refused(error)

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if self._news is not None:
            loop.add_reader(self._news.fileno(), self._on_news)
        if self._gathered.hearing is not None:
            loop.add_reader(self._gathered.hearing.fileno(), self._gathered.hearing.on_readable)
        self._tell(self._to_tell)
        self._to_tell = []

    def _let_go(self) -> None:
        if self._wakes is not None:
            loop = asyncio.get_running_loop()
            if self._news is not None:
                loop.remove_reader(self._news.fileno())
            if self._gathered.hearing is not None:
                loop.remove_reader(self._gathered.hearing.fileno())
        self._news = None

    # ---- turns

    def _rest_s(self) -> float | None:
        """How long there is nothing to do; None: until somebody wakes us."""
        due_s = [turn.due_s for turn in self._turns if not turn.is_busy]
        if self._gathered.hearing is not None:
            due_s.append(self._refresh_s)
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _make_due(self, turn: _Turn, in_s: float) -> None:
        due_s = max(time.monotonic() + in_s, turn.not_before_s)
        if turn.is_busy:
            turn.is_stale = True
        elif due_s < turn.due_s:
            turn.due_s = due_s
            if self._wakes is not None:
                self._wakes.set()

    def _on_news(self) -> None:
        if self._news is None:
            return
        for news in self._news.read():
            for turn in self._turns:
                is_its_folder = news.watch in turn.watches or news.watch == ANY_WATCH
                if is_its_folder and (not news.name or news.name in turn.names):
                    self._make_due(turn, _SOON_S)

    def _look(self, turn: _Turn) -> None:
        turn.is_busy, turn.is_stale = True, False
        news, loop, began_s = self._news, asyncio.get_running_loop(), time.monotonic()

        def look() -> tuple[_Followed, Outcome]:
            followed = _follow(news, turn.file.path)  # first: what changes from here on is heard of
            return followed, turn.file.look()

        def on_done(done: "Future[Any]") -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._on_looked, turn, began_s, done)

        try:
            self._threads.submit_for(turn.file.path, look).add_done_callback(on_done)
        except RuntimeError:  # no thread is to be had
            turn.is_busy = False
            turn.due_s = began_s + _BLIND_S

    def _on_looked(self, turn: _Turn, began_s: float, done: "Future[Any]") -> None:
        turn.is_busy = False
        now_s = time.monotonic()
        turn.not_before_s = now_s + _SHARE * (now_s - began_s)
        turn.due_s = now_s + _BLIND_S
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:  # a bug of ours must cost a look, not the next ones too
            self._tell([Told("error", "internal error", {"exc_info": error})])
        else:
            (turn.watches, turn.names, refused), outcome = done.result()
            if refused is not None:
                self._note_refused(refused)
            if turn.watches:
                turn.due_s = now_s + _USUAL_S
            self._tell([*self._to_tell, *outcome.told])
            self._to_tell = []
            if outcome.again_s is not None:
                turn.due_s = now_s + outcome.again_s
        if turn.is_stale:
            self._make_due(turn, _SOON_S)
        if self._wakes is not None:
            self._wakes.set()

    # ---- what is told

    def _note_refused(self, error: OSError) -> None:
        if not self._is_watch_refused:
            self._is_watch_refused = True
            fields: dict[str, object] = {"reason": error.strerror, "remedy": "raise fs.inotify.max_user_watches"}
            self._to_tell.append(Told("info", "files of machines are looked at every 2 s", fields))

    def _tell(self, told: list[Told]) -> None:
        if self._log is not None:
            for level, event, fields in told:
                getattr(self._log(), level)(event, **fields)


def _follow(news: FolderNews | None, path: str) -> _Followed:
    """Have the folders of a file watched: the one that its path names, and the one that links lead to."""
    if news is None:
        return _Followed()
    named = Path(path)
    try:
        real = named.resolve()
        watches = frozenset(news.follow(str(folder)) for folder in {named.parent, real.parent})
    except FileNotFoundError:
        return _Followed()  # the look itself says so
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return _Followed(refused=error if isinstance(error, OSError) else OSError(None, str(error)))
    return _Followed(watches, frozenset({os.fsencode(named.name), os.fsencode(real.name)}))
