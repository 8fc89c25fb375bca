"""What `get` and `put` share: flags, progress, the result as JSON, one line and an exit status for a failure.

May know: flags, terminals, the client's names. Must not know: packets or the engine.
Invariants: standard output carries content (`-o -`) or JSON, never both; progress and complaints go to standard error;
nothing is drawn unless that is a terminal; Ctrl-C and SIGTERM end every transfer with an ERROR and leave no file.
"""

import asyncio
import hashlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeVar

import click

from snow_owl_tftp.errors import (
    TransferChanged,
    TransferDiskFull,
    TransferError,
    TransferRefused,
    TransferTimedOut,
)

if TYPE_CHECKING:
    from snow_owl_tftp.client.faces import AsyncClient
    from snow_owl_tftp.client.transfer import ProgressCallback, TransferResult

__all__ = ["EXIT_STATUSES", "Hashing", "Job", "client_flags", "run_jobs", "settings_of", "sha256_of_file"]

_FAILED: Final = 1
_STATUS: Final[tuple[tuple[type[TransferError], str, int], ...]] = (
    (TransferRefused, "refused", 3),
    (TransferTimedOut, "timed out", 4),
    (TransferChanged, "changed", 5),
    (TransferDiskFull, "disk full", 6),
)
EXIT_STATUSES: Final = (
    "Exit status: 0 done, 1 failed otherwise, 2 wrong usage, 3 refused by the server, 4 timed out, "
    "5 changed while it was sent, 6 disk full, 130 interrupted. With several transfers: the first failure's."
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def client_flags(command: _Command) -> _Command:
    """Adds the flags that every transfer has."""
    flags = [
        click.option("--blksize", type=int, metavar="BYTES", help="Ask for blocks of 8..65464; default: the path MTU."),
        click.option("--windowsize", type=int, metavar="BLOCKS", help="Ask for windows of 1..65535; default: 64."),
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
        from snow_owl_tftp.client.targets import write_all

        write_all(self._file, data)
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
    run: "Callable[[AsyncClient, ProgressCallback | None], Coroutine[Any, Any, TransferResult]]"
    sha256: Callable[[], str | None]


def sha256_of_file(path: Path) -> str | None:
    """Of a regular file; a device is not asked for what it was given."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_jobs(
    jobs: Sequence[Job], settings: dict[str, Any], *, as_json: bool, json_file: IO[str], in_turn: bool = False
) -> int:
    """Do all of them and report each.

    Args:
        jobs: What to do.
        settings: Of the client.
        as_json: Report as JSON, to `json_file`.
        json_file: Where to.
        in_turn: One after the other, since they share an output.

    Returns:
        The exit status.
    """
    return asyncio.run(_run_all(jobs, settings, as_json=as_json, json_file=json_file, in_turn=in_turn))


async def _run_all(
    jobs: Sequence[Job], settings: dict[str, Any], *, as_json: bool, json_file: IO[str], in_turn: bool
) -> int:
    from snow_owl_tftp.client.faces import AsyncClient

    main = asyncio.current_task()
    terminated: list[int] = []

    def on_sigterm() -> None:
        terminated.append(128 + signal.SIGTERM)
        if main is not None:
            main.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm)
    drawn = sys.stderr.isatty() and not as_json
    try:
        async with AsyncClient(**settings) as client:
            with _Bars(drawn) as bars:
                runs = [_run_one(client, job, bars, json_file if as_json else None) for job in jobs]
                if in_turn:
                    statuses = [await run for run in runs]
                else:
                    statuses = await asyncio.gather(*runs)
    except asyncio.CancelledError:
        if terminated:
            return terminated[0]
        raise
    return next((status for status in statuses if status), 0)


async def _run_one(client: "AsyncClient", job: Job, bars: "_Bars", json_file: IO[str] | None) -> int:
    try:
        result = await job.run(client, bars.add(job.url))
        digest = await asyncio.to_thread(job.sha256) if json_file is not None else None
    except (TransferError, OSError, ValueError) as error:
        return _report_failure(job, error, json_file)
    if json_file is not None:
        _print_json(json_file, _success(job, result, digest))
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


def _report_failure(job: Job, error: Exception, json_file: IO[str] | None) -> int:
    kind, status = next(((name, code) for cls, name, code in _STATUS if isinstance(error, cls)), ("failed", _FAILED))
    print(f"snow-owl-tftp: {job.url}: {error}", file=sys.stderr)
    if json_file is not None:
        failure: dict[str, Any] = {"url": job.url, "file": job.local, "error": kind, "text": str(error)}
        if isinstance(error, TransferRefused):
            failure["code"] = error.code
        _print_json(json_file, failure)
    return status


def _print_json(file: IO[str], record: dict[str, Any]) -> None:
    print(json.dumps(record), file=file, flush=True)


class _Bars:
    """A progress bar a transfer, on a terminal; elsewhere nothing, and rich is not even imported."""

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
