"""A server in a process of its own that tells what it counts: the one that a tracer can be compared with exactly.

    python -m tests.support.counted_server ROOT '{"settings": "by key path"}'
        ── ["127.0.0.1", 40123] ──►
        ◄── a line ──
        ── {"engine": {…}, "loop_waits": 17, "loop_wakes": 0} ──►       and so on, until standard input ends

May know: how to start a Server. Must not: use signals or threads of its own, whose calls nobody would count.
"""

import asyncio
import json
import os
import selectors
import sys
from pathlib import Path
from typing import Any

from tests.support.server import make_server


class CountedSelector(selectors.EpollSelector):
    """Counts what Python's own loop waits: a tracer cannot tell its epoll_wait from the engine's."""

    waits = 0

    def select(self, timeout: float | None = None) -> Any:
        self.waits += 1
        return super().select(timeout)


class CountedLoop(asyncio.SelectorEventLoop):
    """Counts the bytes that other threads send to wake it: those are a sendto and some recvfrom."""

    wakes = 0

    def _write_to_self(self) -> None:
        self.wakes += 1
        super()._write_to_self()  # type: ignore[misc]


async def serve(root: Path, overrides: dict[str, Any], loop: CountedLoop, selector: CountedSelector) -> None:
    server, close = make_server(root, overrides)
    ended = asyncio.Event()

    def on_input() -> None:
        if not os.read(0, 4096):
            ended.set()
            return
        said = {"engine": dict(server.counters()), "loop_waits": selector.waits, "loop_wakes": loop.wakes}
        print(json.dumps(said), flush=True)

    async with server:
        print(json.dumps(server.addresses[0]), flush=True)
        loop.add_reader(0, on_input)
        await ended.wait()
        loop.remove_reader(0)
    close()


if __name__ == "__main__":
    counted_selector = CountedSelector()
    counted_loop = CountedLoop(counted_selector)
    counted_loop.run_until_complete(serve(Path(sys.argv[1]), json.loads(sys.argv[2]), counted_loop, counted_selector))
    counted_loop.run_until_complete(counted_loop.shutdown_default_executor())
    counted_loop.close()
