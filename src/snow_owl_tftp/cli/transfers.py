"""The transfers of a command line: run, shown while they run, reported, and ended early by a signal.

May know: terminals, signals, the client's names. Must not know: packets or the engine.
Invariants: standard output carries content (`-o -`) or JSON, never both; progress and complaints go to standard error;
nothing is drawn unless that is a terminal; Ctrl-C, SIGTERM and SIGHUP end every transfer with an ERROR and leave no
file, within a second.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from snow_owl_tftp.cli.bars import Bars
from snow_owl_tftp.cli.outcomes import FAILED, failure_record, status_of, success_record, text_of
from snow_owl_tftp.errors import TransferError

if TYPE_CHECKING:
    from snow_owl_tftp.client.api import AsyncClient
    from snow_owl_tftp.client.progress import ProgressCallback
    from snow_owl_tftp.client.transfer import TransferResult

__all__ = ["Job", "run_jobs"]

_NO_READER: Final = 128 + signal.SIGPIPE
"""As a shell reports a program that does not catch the signal."""
_GRACE_S: Final = 0.3
"""For the ERRORs to leave, and for threads that are not stuck to end."""


@dataclass(frozen=True, slots=True)
class Job:
    """One transfer of a command line.

    Attributes:
        url: As given, for messages.
        local: The local file's name; None: a stream.
        run: Does it.
        sha256: Of the content, once it is done; None: there is none to be had.
    """

    url: str
    local: str | None
    run: "Callable[[AsyncClient, ProgressCallback], Coroutine[Any, Any, TransferResult]]"
    sha256: Callable[[], str | None]


def run_jobs(jobs: Sequence[Job], settings: dict[str, Any], *, json_file: IO[str] | None, in_turn: bool = False) -> int:
    """Do all of them and report each.

    Args:
        jobs: What to do.
        settings: Of the client.
        json_file: Where to report as JSON; None: nowhere.
        in_turn: One after the other, since they share standard output.

    Returns:
        The exit status.
    """
    try:
        return asyncio.run(_Run(json_file).all(jobs, settings, in_turn=in_turn))
    finally:
        _give_up_stdout_if_broken()


def _give_up_stdout_if_broken() -> None:
    """Python flushes it again at the exit, and would fail with a traceback."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


class _Run:
    """All transfers of one command, and what ends them early: a signal, or an output that takes no more."""

    def __init__(self, json_file: IO[str] | None) -> None:
        self._json_file = json_file
        self._status: int | None = None
        self._main: asyncio.Task[Any] | None = None

    async def all(self, jobs: Sequence[Job], settings: dict[str, Any], *, in_turn: bool) -> int:
        from snow_owl_tftp.client.api import AsyncClient

        self._main = asyncio.current_task()
        self._printing = asyncio.Lock()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it to be
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        drawn = sys.stderr.isatty() and self._json_file is None and not (in_turn and sys.stdout.isatty())
        try:
            async with AsyncClient(**settings) as client:
                with Bars(drawn, len(jobs)) as bars:
                    if in_turn:
                        statuses = [await self._one(client, job, bars) for job in jobs]
                    else:
                        statuses = await asyncio.gather(*[self._one(client, job, bars) for job in jobs])
        except asyncio.CancelledError:
            if self._status is None:
                raise
            return self._status
        return next((status for status in statuses if status), 0)

    def _on_signal(self, number: int) -> None:
        if self._status is not None:
            self._leave()
        self._end(128 + number)

    def _end(self, status: int) -> None:
        """Cancel everything: servers are told, nothing is left."""
        if self._status is None and self._main is not None:
            self._status = status
            self._main.cancel()
            asyncio.get_running_loop().call_later(_GRACE_S, self._leave)

    def _leave(self) -> None:
        """Exit without waiting for a thread that reads an idle standard input, or writes to a stalled output."""
        os._exit(FAILED if self._status is None else self._status)

    async def _one(self, client: "AsyncClient", job: Job, bars: Bars) -> int:
        bar = bars.add(job.url)
        try:
            result = await job.run(client, bar)
            digest = await asyncio.to_thread(job.sha256) if self._json_file is not None else None
        except (TransferError, OSError, ValueError) as error:
            if job.local is None and isinstance(error.__cause__, BrokenPipeError):
                self._end(_NO_READER)
                return _NO_READER
            status, record = failure_record(job.url, job.local, error)
            bars.say(f"snow-owl-tftp: {job.url}: {record['text']}")
        else:
            status, record = 0, success_record(job.url, job.local, result, digest)
        finally:
            bar.end()
        return await self._print_json(record, bars) or status

    async def _print_json(self, record: dict[str, Any], bars: Bars) -> int:
        """In a thread: a pipe that is full must not hold up the signals."""
        if self._json_file is None:
            return 0
        try:
            async with self._printing:
                await asyncio.to_thread(print, json.dumps(record), file=self._json_file, flush=True)
        except OSError as error:
            status = _NO_READER
            if not isinstance(error, BrokenPipeError):
                bars.say(f"snow-owl-tftp: the output cannot be written: {text_of(error)}")
                status = status_of(error)[1]
            self._end(status)
            return status
        return 0
