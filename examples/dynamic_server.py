"""Every machine gets a boot configuration of its own, made when it asks; other files come from a directory.

Usage: dynamic_server.py [ADDR:PORT [DIRECTORY]], by default a free port of 127.0.0.1 and the directory tftpboot
beside this file. Uploads are printed.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import snow_owl_tftp as tftp


async def numbers() -> AsyncIterator[bytes]:
    """A length that nobody knows before the end: sent as it is made, no faster than the client takes it."""
    for i in range(100_000):
        yield b"%d\n" % i


def print_upload(upload: tftp.Upload) -> None:
    print(f"{upload.client} sent {len(upload.data)} bytes as {upload.path}", flush=True)


async def main(bind: str = "127.0.0.1:0", root: str = str(Path(__file__).parent / "tftpboot")) -> None:
    async def answer(request: tftp.ReadRequest) -> tftp.Response | tftp.Refuse:
        if request.path == "boot.cfg":
            return tftp.Response(f"kernel vmlinuz\nappend host={request.client}\n")
        if request.path == "numbers":
            return tftp.Response(numbers())
        return tftp.Response(request.under(root))

    async with tftp.Server(bind=bind, read=answer, write=print_upload, root=root) as server:
        print(server.url("boot.cfg"), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
