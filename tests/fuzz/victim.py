"""A server in a process of its own, for who attacks it: it tells what it counts and what it holds.

    python -m tests.fuzz.victim ROOT '{"settings": "by key path"}'
        ── [40123, 40124, 40125, …] ──►                the request port, then the TID ports
        ◄── a line ──
        ── {"counts": {…}, "events": {…}, …} ──►       and so on; at "stop" it stops, and tells once more

May know: how to start a Server, and its engine's events. Must not: answer anything by itself.
"""

import asyncio
import contextlib
import gc
import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.server import make_server

from snow_owl_tftp._engine.engine import Completion, Engine
from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.server import engine as assemble
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import TransferContext
from snow_owl_tftp.server.writes import UploadAnswerer

EVENTS: Counter[str] = Counter()
SO_MEMINFO = 55
"""socket(7) does not name it: nine numbers; the first is the bytes that wait, the last the datagrams dropped."""


class CountedEngine(Engine):
    """Counts what goes up and down, as no counter of its own does."""

    def poll(self) -> list[Any]:
        events = super().poll()
        for event in events:
            EVENTS[type(event).__name__] += 1
            if isinstance(event, Completion):
                EVENTS["begun"] += event.peer != ("", 0)
                EVENTS["flow_hits"] += event.flow_hit
        return events

    def start(self, plan: Any, flow: Any = None, **more: Any) -> None:
        super().start(plan, flow, **more)
        EVENTS["started"] += 1

    def refuse(self, transfer_id: int, datagram: bytes) -> None:
        super().refuse(transfer_id, datagram)
        EVENTS["refused"] += 1

    def refuse_all(self, answers: Iterable[tuple[int, bytes]]) -> None:
        answers = list(answers)
        super().refuse_all(answers)
        EVENTS["refused"] += len(answers)


def open_names() -> dict[int, str]:
    """What this process's descriptors lead to; threads of the server close some meanwhile."""
    names = {}
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names[int(fd.name)] = str(fd.readlink())
    return names


def udp_sockets() -> list[socket.socket]:
    """This process's UDP sockets over IPv4: duplicates, for the caller to close."""
    found = []
    for fd, name in open_names().items():
        if name.startswith("socket:"):
            sock = socket.socket(fileno=os.dup(fd))
            if (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_DGRAM):
                found.append(sock)
            else:
                sock.close()
    return found


def udp_ports() -> list[int]:
    ports = []
    for sock in udp_sockets():
        with sock:
            ports.append(int(sock.getsockname()[1]))
    return ports


def kernel_queues() -> dict[str, int]:
    """What the kernel holds for the sockets, and what it has dropped for want of room."""
    queues = {"queued_bytes": 0, "dropped": 0}
    for sock in udp_sockets():
        with sock:
            queued, *_, dropped = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
        queues["queued_bytes"] += queued
        queues["dropped"] += dropped
    return queues


def descriptors() -> int:
    """Without those of netascii copies: how many of them are kept is a bound of their cache, with tests of its own."""
    return sum(not name.startswith("/memfd:netascii") for name in open_names().values())


def resident_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def count_contexts() -> int:
    gc.collect()
    return sum(isinstance(one, TransferContext) for one in gc.get_objects())


async def serve(root: Path, overrides: dict[str, Any]) -> None:
    settings = override(Settings(), {"root_dir": str(root), **overrides}, source="test")
    desk = UploadAnswerer(settings) if settings.write_config.enabled else None
    decider = FileDecider(settings, desk.answer) if desk else FileDecider(settings)
    server, close = make_server(root, {"logging.level": "info", **overrides}, decider=decider)
    ended = asyncio.Event()
    descriptors_before = descriptors()

    def tell(engine: Engine, *, is_last: bool = False) -> None:
        told = {
            "kernel": {} if is_last else kernel_queues(),  # the queues first: what has left them is counted
            "counts": engine.counters(),
            "events": EVENTS,
            "live": engine.live_objects(),
            "rss_kb": resident_kb(),
            "descriptors": descriptors(),
            "descriptors_before": descriptors_before,
            "dropped": server.tally.dropped_total,
            "contexts": count_contexts() if is_last else -1,
        }
        print(json.dumps(told), flush=True)

    async with server:
        ports = udp_ports()
        ports.sort(key=lambda port: port != server.addresses[0][1])
        print(json.dumps(sorted(set(ports), key=ports.index)), flush=True)
        engine = server._serving.engine
        assert engine is not None

        def on_input() -> None:
            line = os.read(0, 4096)
            if line.strip() == b"stop" or not line:
                ended.set()
            else:
                tell(engine)

        loop = asyncio.get_running_loop()
        loop.add_reader(0, on_input)
        await ended.wait()
        loop.remove_reader(0)
    tell(engine, is_last=True)
    if desk:
        desk.close()
    decider.close()
    close()


if __name__ == "__main__":
    assemble.Engine = CountedEngine  # type: ignore[misc]
    asyncio.run(serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
