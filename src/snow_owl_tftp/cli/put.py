"""`snow-owl-tftp put`: a file to a URL.

May know: flags, paths. Must not know: how a file is sent.
"""

import functools
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


@click.command("put", epilog=EXIT_STATUSES)
@click.argument("file", metavar="FILE")
@click.argument("url", metavar="URL")
@client_flags
def command(file: str, url: str, as_json: bool, **flags: Any) -> int:
    """Upload FILE (- for standard input) to tftp://HOST[:PORT]/PATH[;mode=octet|netascii].

    After a path that ends in a slash comes the file's own name. In a URL %XX stands for a byte: write ; as %3B, and a %
    before two hexadecimal digits as %25.
    """
    if file == "-":
        stdin = Hashing(stream("stdin").buffer)
        job = Job(url, None, functools.partial(_run, _checked(url, ""), cast(BinaryIO, stdin)), stdin.hexdigest)
    else:
        path = Path(file)
        name = _checked(url, path.name)
        job = Job(name, file, functools.partial(_run, name, path), functools.partial(sha256_of_file, path))
    return run_jobs([job], settings_of(flags), json_file=stream("stdout") if as_json else None)


def _checked(url: str, file_name: str) -> str:
    from snow_owl_tftp.client.url import parse_url

    try:
        return str(parse_url(url, file_name=file_name))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


async def _run(
    url: str, content: "Path | BinaryIO", client: "AsyncClient", progress: "ProgressCallback"
) -> "TransferResult":
    return await client.put(url, content, progress=progress)
