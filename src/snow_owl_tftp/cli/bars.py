"""What a person sees while transfers run: bars on a terminal, else a line where a server keeps silent.

    12 of 41 files                                          only where there is no room for a bar each
    vmlinuz ━━━━━━━━━━━━━━━━━━━━ 2.0/2.0 MB 0.8 MB/s 0:00:00
    initrd: no answer from 10.0.0.1:69 yet, asked 3 times

May know: terminals. Must not know: transfers.
Invariants: while bars are drawn, other lines go through `say`, so that neither breaks the other. There are never more
bars than fit the terminal, since a line that has scrolled away cannot be redrawn. One thread calls everything.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Bar", "Bars"]

_MAX_BARS: Final = 10
_LINES_KEPT: Final = 3
"""Of the terminal: for the total, the line of a failure, and the cursor."""
_WORTH_SAYING_TRIES: Final = 2
"""One lost datagram is normal."""
_WORTH_A_LINE_S: Final = 5.0
"""Of silence, where a line cannot be redrawn."""


class Bars:
    """A bar for each transfer, as far as there is room.

    Args:
        drawn: Whether there are bars at all; without them rich is not even imported.
        expected: How many transfers there will be.
        clock: Seconds, monotonic.
    """

    def __init__(self, drawn: bool, expected: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._progress = _make_progress() if drawn else None
        self._expected = expected
        self._ended = 0
        self._room = expected
        self._undrawn: deque[Bar] = deque()
        self._told_of: set[str] = set()

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._room = min(_MAX_BARS, max(1, self._progress.console.height - _LINES_KEPT))
            self._count()
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, line: str) -> None:
        """One line of text, however narrow the terminal is."""
        if self._progress is None:
            print(line, file=sys.stderr)
        else:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def add(self, url: str) -> "Bar":
        """What to tell about one transfer."""
        bar = Bar(self, url)
        if self._progress is not None:
            self._undrawn.append(bar)
            self._fill()
        return bar

    def draw(self, bar: "Bar") -> None:
        """Show what `bar` says now, if there is room for it."""
        if self._progress is None:
            self._tell_once(bar)
        elif bar.task is not None:
            self._progress.update(bar.task, completed=bar.done_bytes, total=bar.size_bytes, silence=bar.silence)

    def end(self, bar: "Bar") -> None:
        """A transfer is over; where there is not room for all, the next one gets its place."""
        self._ended += 1
        self.draw(bar)
        if self._progress is None or not self._progress.count:
            return
        self._count()
        if bar.task is None:
            self._undrawn.remove(bar)
            return
        self._progress.remove_task(bar.task)
        bar.task = None
        self._room += 1
        self._fill()

    def _fill(self) -> None:
        assert self._progress is not None
        while self._undrawn and self._room:
            bar = self._undrawn.popleft()
            bar.task = self._progress.add_task(bar.name, total=None, silence="")
            self._room -= 1
            self.draw(bar)

    def _count(self) -> None:
        if self._progress is not None and (self._progress.count or self._expected > self._room):
            self._progress.count = f"{self._ended} of {self._expected} files"

    def _tell_once(self, bar: "Bar") -> None:
        """Once for each server, not once for each transfer that waits for it."""
        since_s = bar.silent_since_s
        if since_s is None or bar.server in self._told_of or self.clock() - since_s < _WORTH_A_LINE_S:
            return
        self._told_of.add(bar.server)
        self.say(f"snow-owl-tftp: {bar.url}: {bar.silence}")


class Bar:
    """One transfer: its progress callback, which is told of silence too.

    Attributes:
        url: For messages.
        name: The end of it.
        task: Of rich, while it is drawn.
        server: Who is silent.
        silence: What to say about that; "": nothing.
        silent_since_s: When it began to be worth saying, by the clock; None: the server has answered.
    """

    def __init__(self, bars: Bars, url: str) -> None:
        self._bars = bars
        self.url = url
        self.name = url.rpartition("/")[2] or url
        self.task: Any = None
        self.done_bytes = 0
        self.size_bytes: int | None = None
        self.server = ""
        self.silence = ""
        self.silent_since_s: float | None = None

    def __call__(self, done_bytes: int, size_bytes: int | None) -> None:
        self.done_bytes, self.size_bytes = done_bytes, size_bytes
        self.silence, self.silent_since_s = "", None
        self._bars.draw(self)

    def unanswered(self, server: str, asked: int) -> None:
        """Nothing came from `server` yet, though it was asked so often."""
        if asked < _WORTH_SAYING_TRIES:
            return
        if self.silent_since_s is None:
            self.silent_since_s = self._bars.clock()
        self.server = server
        self.silence = f"no answer from {server} yet, asked {asked} times"
        self._bars.draw(self)

    def end(self) -> None:
        """It is over, well or not."""
        self.silence, self.silent_since_s = "", None
        self._bars.end(self)


def _make_progress() -> Any:
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.text import Text

    class Lines(Progress):
        """A silent server has a line of words for a bar."""

        count = ""

        def get_renderables(self) -> Iterable[RenderableType]:
            if self.count:
                yield Text(self.count)
            yield self.make_tasks_table([task for task in self.tasks if not task.fields["silence"]])
            for task in self.tasks:
                if task.fields["silence"]:
                    line = f"{task.description}: {task.fields['silence']}"
                    yield Text(line, no_wrap=True, overflow="ellipsis")

    return Lines(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
