"""Every machine gets a boot configuration of its own, made when it asks. Usage: dynamic_server.py [HOST:PORT]"""

import asyncio
import sys
from collections.abc import AsyncIterator

import snow_owl_tftp as tftp


async def numbers() -> AsyncIterator[bytes]:
    """A length that nobody knows before the end: sent as it is made, no faster than the client takes it."""
    for i in range(100_000):
        yield b"%d\n" % i


async def answer(request: tftp.ReadRequest) -> tftp.Response | tftp.Refuse:
    if request.path == "boot.cfg":
        return tftp.Response(f"kernel vmlinuz\nappend host={request.client}\n".encode())
    if request.path == "numbers":
        return tftp.Response(numbers())
    return tftp.Refuse(1, "File not found")


async def main(bind: str) -> None:
    host, _, port = bind.rpartition(":")
    async with tftp.Server(bind=(host, int(port)), read=answer) as server:
        print(server.url("boot.cfg"), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:6969"))
