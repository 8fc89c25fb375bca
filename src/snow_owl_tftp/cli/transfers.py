"""What `get` and `put` share: flags, progress, the result as JSON, one line and an exit status for a failure.

May know: flags, terminals, the client's names. Must not know: packets or the engine.
Invariants: standard output carries content (`-o -`) or JSON, never both; progress and complaints go to standard error;
nothing is drawn unless that is a terminal; Ctrl-C, SIGTERM and SIGHUP end every transfer with an ERROR and leave no
file, within a second.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import click

from snow_owl_tftp.cli.bars import Bars
from snow_owl_tftp.errors import (
    TransferChanged,
    TransferDiskFull,
    TransferError,
    TransferRefused,
    TransferTimedOut,
    TransferUnreachable,
)

if TYPE_CHECKING:
    from snow_owl_tftp.client.api import AsyncClient
    from snow_owl_tftp.client.transfer import ProgressCallback, TransferResult

__all__ = ["EXIT_STATUSES", "Hashing", "Job", "client_flags", "run_jobs", "settings_of", "sha256_of_file", "stream"]

_FAILED: Final = 1
_NO_READER: Final = 128 + signal.SIGPIPE
"""As a shell reports a program that does not catch the signal."""
_GRACE_S: Final = 0.3
"""For the ERRORs to leave, and for threads that are not stuck to end."""
_STATUS: Final[tuple[tuple[type[TransferError], str, int], ...]] = (
    (TransferRefused, "refused", 3),
    (TransferTimedOut, "timed out", 4),
    (TransferChanged, "changed", 5),
    (TransferDiskFull, "disk full", 6),
    (TransferUnreachable, "unreachable", 7),
)
_STREAMS: Final = {"stdin": "standard input", "stdout": "standard output", "stderr": "standard error"}
EXIT_STATUSES: Final = (
    "Exit status: 0 done, 1 failed otherwise, 2 wrong usage, 3 refused by the server, 4 timed out, "
    "5 changed while it was sent, 6 disk full, 7 nothing listens on the server's port, 130 interrupted (128 and the "
    "number of any signal), 141 nobody reads the output. With several transfers: the first failure's."
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def client_flags(command: _Command) -> _Command:
    """Adds the flags that every transfer has."""
    flags = [
        click.option("--blksize", type=int, metavar="BYTES", help="Ask for blocks of 8..65464; default: the path MTU."),
        click.option("--windowsize", type=int, metavar="BLOCKS", help="Ask for windows of 1..65535; default: 64."),
        click.option("--no-options", is_flag=True, help="Ask for nothing, as RFC 1350 has it: blocks of 512 bytes."),
        click.option("--timeout", type=float, metavar="S", help="Repeat after so long; default: as measured."),
        click.option("--retries", type=int, metavar="N", help="Repeat so often before giving up; default: 5."),
        click.option("--mode", type=click.Choice(["octet", "netascii"]), help="Default: octet; a URL's comes first."),
        click.option("--port-range", metavar="A-B", help="Local UDP ports, for firewalls."),
        click.option("--bind", metavar="ADDRESS", help="Local address to send from."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object a transfer."),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def settings_of(flags: dict[str, Any]) -> dict[str, Any]:
    """The client's settings that the flags name.

    Raises:
        click.BadParameter: The port range is none.
    """
    settings = {name: value for name, value in flags.items() if value is not None}
    if "port_range" in settings:
        low, _, high = settings["port_range"].partition("-")
        if not (low.isdigit() and (high or low).isdigit()):
            raise click.BadParameter("expected A-B", param_hint="--port-range")
        settings["port_range"] = (int(low), int(high or low))
    return settings


class Hashing:
    """A file object that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        from snow_owl_tftp.client.targets import hand_over

        hand_over(data, self._file)
        self._digest.update(data)
        return len(data)

    def read(self, size_bytes: int = -1) -> bytes:
        data = self._file.read(size_bytes)
        self._digest.update(data)
        return data

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


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


def sha256_of_file(path: Path) -> str | None:
    """Of a regular file; a device is not asked for what it was given."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stream(name: str) -> Any:
    """`sys.stdin`, `sys.stdout` or `sys.stderr`.

    Raises:
        click.UsageError: The shell has closed it (`>&-`).
    """
    if (file := getattr(sys, name)) is None:
        raise click.UsageError(f"{_STREAMS[name]} is closed")
    return file


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
    """What it did not take would be tried again at the exit, which fails with a traceback of Python's own."""
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
        """A thread that reads an idle standard input, or writes to a stalled output, would be waited for for ever."""
        os._exit(_FAILED if self._status is None else self._status)

    async def _one(self, client: "AsyncClient", job: Job, bars: Bars) -> int:
        bar = bars.add(job.url)
        try:
            result = await job.run(client, bar)
            digest = await asyncio.to_thread(job.sha256) if self._json_file is not None else None
        except (TransferError, OSError, ValueError) as error:
            if job.local is None and isinstance(error.__cause__, BrokenPipeError):
                self._end(_NO_READER)
                return _NO_READER
            status, record = _failure(job, error)
            bars.say(f"snow-owl-tftp: {job.url}: {record['text']}")
        else:
            status, record = 0, _success(job, result, digest)
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
                bars.say(f"snow-owl-tftp: the output cannot be written: {_text_of(error)}")
                status = _status_of(error)[1]
            self._end(status)
            return status
        return 0


def _success(job: Job, result: "TransferResult", digest: str | None) -> dict[str, Any]:
    return {
        "url": job.url,
        "file": job.local,
        "bytes": result.payload_bytes,
        "seconds": round(result.seconds, 6),
        "options": result.options,
        "blksize": result.blksize,
        "windowsize": result.windowsize,
        "blocks": result.blocks,
        "retransmits": result.retransmits,
        "server": result.server,
        "sha256": digest,
    }


def _failure(job: Job, error: Exception) -> tuple[int, dict[str, Any]]:
    kind, status = _status_of(error)
    record: dict[str, Any] = {"url": job.url, "file": job.local, "error": kind, "text": _text_of(error)}
    if isinstance(error, TransferRefused):
        record["code"] = error.code
    return status, record


def _status_of(error: Exception) -> tuple[str, int]:
    from snow_owl_tftp.client.transfer import is_no_room

    if isinstance(error, OSError) and is_no_room(error):
        return "disk full", 6
    return next(((name, code) for cls, name, code in _STATUS if isinstance(error, cls)), ("failed", _FAILED))


def _text_of(error: Exception) -> str:
    """For people: without the number of an errno."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
