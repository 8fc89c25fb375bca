"""`snow-owl-tftp get`: URLs to files, all at once.

May know: flags, paths. Must not know: how a file arrives, or appears.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from snow_owl_tftp.cli.transfers import (
    EXIT_STATUSES,
    Hashing,
    Job,
    client_flags,
    run_jobs,
    settings_of,
    sha256_of_file,
    stream,
)

if TYPE_CHECKING:
    from snow_owl_tftp.client.faces import AsyncClient
    from snow_owl_tftp.client.transfer import ProgressCallback, TransferResult

__all__ = ["command"]


@click.command("get", epilog=EXIT_STATUSES)
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="A file, a folder, or - for standard output.")
@client_flags
def command(urls: tuple[str, ...], output: str | None, as_json: bool, **flags: Any) -> int:
    """Download tftp://HOST[:PORT]/PATH[;mode=octet|netascii].

    A file appears under its name only when it is complete. Without -o that is the last part of the path, here.
    """
    jobs = [_job(url, output, several=len(urls) > 1) for url in urls]
    paths = [job.local for job in jobs if job.local is not None]
    if len(set(paths)) < len(paths):
        raise click.UsageError("two of the URLs would be written to one file")
    to_stdout = output == "-"
    json_file = stream("stderr" if to_stdout else "stdout") if as_json else None
    return run_jobs(jobs, settings_of(flags), json_file=json_file, in_turn=to_stdout)


def _job(url: str, output: str | None, *, several: bool) -> Job:
    from snow_owl_tftp.client.url import parse_url

    try:
        name = parse_url(url).path.rpartition("/")[2]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if output == "-":
        stdout = Hashing(stream("stdout").buffer)
        return Job(url, None, functools.partial(_run, url, cast(BinaryIO, stdout)), stdout.hexdigest)
    path = _path(url, name, output, several=several)
    return Job(url, str(path), functools.partial(_run, url, path), functools.partial(sha256_of_file, path))


def _path(url: str, name: str, output: str | None, *, several: bool) -> Path:
    folder = Path(output or ".")
    if output is not None and not folder.is_dir():
        if several:
            raise click.UsageError("-o must be a folder or - for several URLs")
        return folder
    if name in ("", ".", ".."):
        raise click.UsageError(f"{url} names no file; say one with -o")
    return folder / name


async def _run(
    url: str, to: "Path | BinaryIO", client: "AsyncClient", progress: "ProgressCallback | None"
) -> "TransferResult":
    return await client.get(url, to, progress=progress)
