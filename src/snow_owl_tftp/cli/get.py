"""`snow-owl-tftp get`: URLs to files, all at once.

May know: flags, paths. Must not know: how a file arrives, or appears.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from snow_owl_tftp.cli.digests import Hashing, sha256_of_file
from snow_owl_tftp.cli.flags import client_flags, settings_of, stream
from snow_owl_tftp.cli.outcomes import EXIT_STATUSES
from snow_owl_tftp.cli.transfers import Job, run_jobs

if TYPE_CHECKING:
    from snow_owl_tftp.client.api import AsyncClient
    from snow_owl_tftp.client.progress import ProgressCallback
    from snow_owl_tftp.client.transfer import TransferResult

__all__ = ["command"]


@click.command("get", epilog=EXIT_STATUSES)
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="A file; FOLDER/, made if absent; - for standard output.")
@client_flags
def command(urls: tuple[str, ...], output: str | None, as_json: bool, **flags: Any) -> int:
    """Download tftp://HOST[:PORT]/PATH[;mode=octet|netascii].

    A file appears under its name only when it is complete. Without -o its name is the last part of the path (after a
    slash or backslash), in the current directory. In a URL %XX stands for a byte: write ; as %3B, and a % before two
    hexadecimal digits as %25.
    """
    to_stdout = output == "-"
    folder = None if to_stdout else _folder(output, several=len(urls) > 1)
    jobs = [_job(url, output, folder) for url in urls]
    paths = [job.local for job in jobs if job.local is not None]
    if len(set(paths)) < len(paths):
        raise click.UsageError("two of the URLs would be written to one file")
    json_file = stream("stderr" if to_stdout else "stdout") if as_json else None
    settings = settings_of(flags)
    with _made(folder):
        return run_jobs(jobs, settings, json_file=json_file, in_turn=to_stdout)


def _folder(output: str | None, *, several: bool) -> Path | None:
    """Where files get the names of their URLs; None: `output` is the name of the only one."""
    if output is None:
        return Path()
    if output.endswith("/") or Path(output).is_dir():
        return Path(output)
    if several:
        raise click.UsageError("-o must be a folder (end it in a slash) or - for several URLs")
    return None


@contextlib.contextmanager
def _made(folder: Path | None) -> Iterator[None]:
    """Make the folders that are missing; remove those that stay empty, since a download that fails leaves nothing."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()] if folder is not None else []
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"-o {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def _job(url: str, output: str | None, folder: Path | None) -> Job:
    from snow_owl_tftp.client.url import parse_url

    try:
        name = re.split(r"[/\\]", parse_url(url).path)[-1]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if output == "-":
        stdout = Hashing(stream("stdout").buffer)
        return Job(url, None, functools.partial(_run, url, cast(BinaryIO, stdout)), stdout.hexdigest)
    if folder is not None and name in ("", ".", ".."):
        raise click.UsageError(f"{url} names no file; say one with -o")
    path = folder / name if folder is not None else Path(output or "")
    return Job(url, str(path), functools.partial(_run, url, path), functools.partial(sha256_of_file, path))


async def _run(
    url: str, to: "Path | BinaryIO", client: "AsyncClient", progress: "ProgressCallback"
) -> "TransferResult":
    return await client.get(url, to, progress=progress)
