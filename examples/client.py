"""Fetch, store and watch, blocking and with asyncio. Usage: client.py tftp://HOST[:PORT]/FILE"""

import asyncio
import sys
import tempfile
from pathlib import Path

import snow_owl_tftp as tftp


def blocking(url: str) -> None:
    data = tftp.get(url)
    print(f"{len(data)} bytes")
    with tempfile.TemporaryDirectory() as folder:
        result = tftp.get(url, Path(folder) / "copy", progress=lambda done, size: print(f"{done} of {size}"))
        print(f"blksize {result.blksize}, windowsize {result.windowsize}, {result.retransmits} retransmits")


async def concurrent(url: str) -> None:
    async with tftp.AsyncClient(windowsize=32) as client, asyncio.timeout(10):
        files = await asyncio.gather(*[client.get(url) for _ in range(10)])
        print(f"{len(files)} copies of {len(files[0])} bytes")
        try:
            await client.get(url + ".missing")
        except tftp.TransferRefused as refused:
            print(refused)


if __name__ == "__main__":
    blocking(sys.argv[1])
    asyncio.run(concurrent(sys.argv[1]))
