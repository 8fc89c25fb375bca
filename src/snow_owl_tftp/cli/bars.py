"""Progress bars on standard error.

May know: terminals. Must not know: transfers.
Invariant: while bars are drawn, other lines go through `say`, which keeps them apart and whole.
"""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from snow_owl_tftp.client.transfer import ProgressCallback

__all__ = ["Bars"]


class Bars:
    """A progress bar a transfer.

    Args:
        drawn: Else nothing is, and rich is not even imported.
    """

    def __init__(self, drawn: bool) -> None:
        self._progress = _make_progress() if drawn else None

    def __enter__(self) -> Self:
        if self._progress is not None:
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

    def add(self, url: str) -> "ProgressCallback | None":
        """What to tell the progress of one transfer to."""
        progress = self._progress
        if progress is None:
            return None
        task = progress.add_task(url.rpartition("/")[2] or url, total=None)

        def tell(done_bytes: int, size_bytes: int | None) -> None:
            progress.update(task, completed=done_bytes, total=size_bytes)

        return tell


def _make_progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
