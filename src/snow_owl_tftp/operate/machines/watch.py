"""Whose turn it is to be looked at: files when inotify says so, and now and then; neighbours when the kernel has news.

    inotify ─► a file is due in 20 ms ─┐
    SIGHUP ──► all are due ────────────┼─► a thread looks ─► log, and when the next look is due
    30 s ────► all are due ────────────┘

May know: what is gathered, the event loop, the log. Must not know what a file holds.

Invariants: the event loop waits for no file; one look at a file at a time, and behind it a rest of nine times its
length (2 s at most), however often a file is written; a watch that is gone, or never came, costs freshness (2 s), and
no knowledge.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from snow_owl_tftp.config.machines import MachinesSettings
from snow_owl_tftp.linux.folder_news import ANY_WATCH, FolderNews
from snow_owl_tftp.operate.machines.followed import FollowOutcome, Told
from snow_owl_tftp.operate.machines.turn import Turn, Watched, watch_folders
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.server.patient import PatientThreads

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from snow_owl_tftp.operate.machines.gathered import Gathered
    from snow_owl_tftp.operate.machines.hearing import Hearing

__all__ = ["MachineWatch", "Prepared"]

_THREADS: Final = 8
_SOON_S: Final = 0.02
"""What is written in several calls is read once; DHCP's client asks for its file later than that."""
_BLIND_S: Final = 2.0
"""Between two looks at a file of which no watch tells."""
_USUAL_S: Final = 30.0
"""Between two looks anyway: leases end, and a network file system tells of no change that another machine made."""
_SHARE: Final = 9
"""A look is followed by so many times its own length without one, ..."""
_MOST_REST_S: Final = 2.0
"""... but no longer than this: one that hung for an hour must not cost nine more."""


class Prepared:
    """What is known by one [machines] table.

    Attributes:
        settings: The table; None: nobody asks for any machine.
        gathered: What it names, open; None: nothing.
    """

    __slots__ = ("gathered", "settings")

    def __init__(self, settings: MachinesSettings | None, gathered: "Gathered | None") -> None:
        self.settings = settings
        self.gathered = gathered

    @property
    def machines(self) -> Machines:
        """What requests are asked of."""
        return NO_MACHINES if self.gathered is None else self.gathered.machines

    def close(self) -> None:
        """Give up what is open, without waiting; a second call does nothing."""
        if self.gathered is not None:
            self.gathered.close()


class MachineWatch:
    """Keeps what is known of machines fresh, and exchanges it when the settings change."""

    def __init__(self, settings: MachinesSettings | None) -> None:
        """Read everything once.

        Args:
            settings: Of the machines; None: nobody asks for any, and they cost nothing.

        Raises:
            ConfigError: See Gathered.
        """
        self._threads = PatientThreads(_THREADS, 1, "tftp-machines")
        self._wakes: asyncio.Event | None = None
        self._log: Callable[[], FilteringBoundLogger] | None = None  # returns the one in force
        self._news: FolderNews | None = None
        self._refresh_s = 0.0
        self._turns: list[Turn] = []
        self._to_tell: list[Told] = []
        self._is_watch_refused = False
        try:
            self._known = Prepared(settings, self._gather(settings))
        except BaseException:
            self._threads.shutdown(cancel_futures=True)
            raise
        self._adopt()

    @property
    def machines(self) -> Machines:
        """What requests are asked of now."""
        return self._known.machines

    @property
    def in_force(self) -> "Prepared":
        """What is known now; to be put back where a reload comes to nothing."""
        return self._known

    @property
    def busy_total(self) -> int:
        """Threads at work; after `close` those that hang."""
        return self._threads.busy_total

    def figures(self) -> dict[str, int]:
        """See Gathered.figures; empty where nobody is to be known."""
        return {} if self._known.gathered is None else self._known.gathered.figures()

    def prepare(self, settings: MachinesSettings | None) -> "Prepared":
        """Read what settings name, for `take`; runs in a thread, several at once if need be.

        Returns:
            What is known by them: where they are those in force, the same.

        Raises:
            ConfigError: See Gathered; nothing stays open.
        """
        known = self._known
        return known if settings == known.settings else Prepared(settings, self._gather(settings))

    def take(self, prepared: "Prepared") -> None:
        """Go on with what was prepared; where that is what is known already, look at all files again.

        Called by the event loop. What was known before stays open: `discard` it once it is not to come back.

        Raises:
            OSError: The kernel takes no more descriptors to watch.
        """
        if prepared is self._known:
            for turn in self._turns:
                self._make_due(turn, 0.0)
            return
        self._let_go()
        self._known = prepared
        self._adopt()
        if self._wakes is not None:
            self._attach()
            self._wakes.set()

    def discard(self, prepared: "Prepared") -> None:
        """Give up what was prepared, or known before, unless it is what is known now."""
        if prepared is not self._known:
            prepared.close()

    def close(self) -> None:
        """Give everything up; what hangs is left behind."""
        self._threads.shutdown(cancel_futures=True)
        self._known.close()
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
                hearing = self._hearing
                if hearing is not None and self._refresh_s <= now_s:
                    self._refresh_s = now_s + _USUAL_S
                    hearing.refresh()
        finally:
            self._let_go()
            self._wakes = None

    # ---- what is gathered

    def _gather(self, settings: MachinesSettings | None) -> "Gathered | None":
        if settings is None:
            return None
        from snow_owl_tftp.operate.machines.gathered import Gathered  # lazy: most servers have no use for it

        return Gathered(settings, self._threads.submit_for)

    @property
    def _hearing(self) -> "Hearing | None":
        return None if self._known.gathered is None else self._known.gathered.hearing

    def _adopt(self) -> None:
        """Begin with what was gathered."""
        gathered = self._known.gathered
        self._turns = [] if gathered is None else [Turn(file) for file in gathered.files]
        self._refresh_s = time.monotonic() + _USUAL_S
        self._news = None
        self._to_tell = [] if gathered is None else list(gathered.told)
        if self._turns:
            try:
                self._news = FolderNews()
            except OSError as error:
                self._note_refused(error)

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if self._news is not None:
            loop.add_reader(self._news.fileno(), self._on_news)
        if (hearing := self._hearing) is not None:
            loop.add_reader(hearing.fileno(), hearing.on_readable)
        self._tell(self._to_tell)
        self._to_tell = []

    def _let_go(self) -> None:
        if self._wakes is not None:
            loop = asyncio.get_running_loop()
            if self._news is not None:
                loop.remove_reader(self._news.fileno())
            if (hearing := self._hearing) is not None:
                loop.remove_reader(hearing.fileno())
        self._news = None

    # ---- turns

    def _rest_s(self) -> float | None:
        """How long there is nothing to do; None: until somebody wakes us."""
        due_s = [turn.due_s for turn in self._turns if not turn.is_busy]
        if self._hearing is not None:
            due_s.append(self._refresh_s)
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _make_due(self, turn: Turn, in_s: float) -> None:
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
        known = {watch for turn in self._turns for watch in turn.watches} | {ANY_WATCH}
        for news in self._news.read():
            for turn in self._turns:
                if news.watch not in known:
                    turn.is_stale = True  # of a look under way, which has not said yet what it watches; else of none
                elif turn.is_about(news):
                    self._make_due(turn, _SOON_S)

    def _look(self, turn: Turn) -> None:
        turn.is_busy, turn.is_stale = True, False
        news, loop, began_s = self._news, asyncio.get_running_loop(), time.monotonic()

        def look() -> tuple[Watched, FollowOutcome]:
            followed = watch_folders(news, turn.file.path)  # first: what changes from here on is heard of
            return followed, turn.file.look()

        def on_done(done: "Future[Any]") -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._on_looked, turn, began_s, done)

        try:
            self._threads.submit_for(turn.file.path, look).add_done_callback(on_done)
        except RuntimeError:  # no thread is to be had
            turn.is_busy = False
            turn.due_s = began_s + _BLIND_S

    def _on_looked(self, turn: Turn, began_s: float, done: "Future[Any]") -> None:
        turn.is_busy = False
        now_s = time.monotonic()
        turn.not_before_s = now_s + min(_SHARE * (now_s - began_s), _MOST_REST_S)
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
