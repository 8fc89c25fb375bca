"""Many TFTP clients in one process: the engine with the roles turned round.

    python -m snow_owl_tftp.bench.load '{"host": …}'
        ── {"ready": true} ──►    one transfer has been made, to learn the OACK
        ◄── go ──                 a line, any line
        ── {"done": 17} ──►       now and then, in transfers
        ── {"result": {…}} ──►

May know: the engine, plans and the protocol. Must not know servers, CPU accounting or reports.

All clients share one UDP socket. Transfer k speaks from loopback address 127.64.0.1 + k, and none is used twice in
four million: no echo of an old transfer can be taken for a new one's packet, and the load can batch its own calls.
The engine compares every byte with the file; Python is asked once a transfer, at its end.

It shares the engine with `client`, and nothing above it: a client's transfer has a socket, a file, a state and a future
of its own, and here each of them would be what is measured.
"""

import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from snow_owl_tftp.linux.memfd import memory_file
from snow_owl_tftp.linux.sockopts import enlarge, join_datagrams, tell_local_address
from snow_owl_tftp.plan.transfer import Outcome, Role, TransferPlan
from snow_owl_tftp.protocol.constants import DEFAULT_BLKSIZE_BYTES, DEFAULT_WINDOWSIZE_BLOCKS, ErrorCode, Opcode
from snow_owl_tftp.protocol.oack import accept_oack_untrusted
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Option, build_request

__all__ = ["Load", "main"]

FIRST_ADDRESS: Final = 0x7F400001
"""127.64.0.1: all of 127/8 is this machine's, without any set-up."""
ADDRESSES: Final = 1 << 22
"""127.64.0.0/10."""

_BUFFER_BYTES: Final = 32 << 20
_TRAIN_BYTES: Final = 65536
_DATAGRAM_BYTES: Final = 2048
_PROGRESS_S: Final = 0.2
_QUANTILES: Final = 100
_CUT_LIMIT_S: Final = 10.0
_LEARN_S: Final = 0.2
"""After that the first transfer is cut off: 10 MiB through a linger of 2 ms would take a minute."""


class Load:
    """Clients of one file of one server.

    Args:
        host: IPv4 address of the server.
        port: Where requests go.
        filename: As in the RRQ.
        content: What the file holds.
        clients: Transfers at any time.
        blksize_bytes: Asked for when it is not 512.
        windowsize_blocks: Asked for when it is not 1.
        client_timeout_s: When a client repeats its last packet.
    """

    def __init__(
        self,
        host: str,
        port: int,
        filename: str,
        content: bytes,
        *,
        clients: int,
        blksize_bytes: int,
        windowsize_blocks: int,
        client_timeout_s: float,
    ) -> None:
        # Imported here: whoever only wants to start this process must not need a built engine.
        from snow_owl_tftp._engine import engine as native

        self._native = native
        self._peer = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
        self._content_fd = memory_file("content", [content])
        self._size_bytes = len(content)
        self._clients = clients
        self._timeout_ns = round(client_timeout_s * 1e9)
        self._options = _options(blksize_bytes, windowsize_blocks)
        self._request = build_request(Opcode.RRQ, filename, "octet", self._options)
        self._agreed = Negotiated()
        self._next_address = 0
        self._running: set[object] = set()
        self._odd: set[object] = set()
        has_trains = windowsize_blocks > 1
        self._engine: Any = native.Engine(
            io_threads=1,
            max_batch=128,
            adaptive=True,
            slot_bytes=_TRAIN_BYTES if has_trains else max(_DATAGRAM_BYTES, blksize_bytes + 4),
            give_up_ns=round(60e9),
            min_retries=5,
        )
        self._engine.add_shared(0, _socket(with_gro=has_trains))
        self._engine.run()

    def close(self) -> None:
        """End the engine; its transfers end too."""
        self._engine.stop()
        os.close(self._content_fd)

    def learn(self, limit_s: float) -> None:
        """Make one transfer, whose OACK all others expect; a long one is cut off once it moves.

        Raises:
            RuntimeError: It failed; the text says how.
        """
        self._ask()
        (context,) = self._running
        began_s = time.monotonic()
        while (passed_s := time.monotonic() - began_s) < limit_s:
            if passed_s > _LEARN_S:
                self._engine.ask_progress(context)
            for event in self._events(_LEARN_S):
                if isinstance(event, self._native.Answer):
                    self._agreed = accept_oack_untrusted(self._options, event.datagram)
                    self._engine.resume(event.transfer_id, self._plan(context))
                elif isinstance(event, self._native.Progress):
                    if event.payload_bytes > 0:
                        self._engine.abort_asked(context, ErrorCode.NOT_DEFINED, b"enough is known")
                elif isinstance(event, self._native.Completion):
                    self._running.discard(context)
                    is_cut = event.outcome == Outcome.ABORTED and event.payload_bytes > 0
                    if not is_cut and (problem := self._problem(event)):
                        raise RuntimeError(f"the first transfer failed: {problem}")
                    return
        raise RuntimeError(f"the first transfer did not end within {limit_s:g} s")

    def run(
        self, transfers: int | None, limit_s: float, tell: Callable[[int], None], *, stop_after_s: float | None = None
    ) -> dict[str, Any]:
        """Make `transfers` of them, `clients` at a time.

        Args:
            transfers: In all; None: as many as begin within `stop_after_s`.
            limit_s: What has not ended by then has failed.
            tell: Told how many have ended, now and then.
            stop_after_s: Then what still runs is cut off: its blocks count, its duration does not.

        Returns:
            Figures, as in results.json.
        """
        tally = _Tally()
        cpu_before_s = _cpu_s()
        began_s = time.monotonic()
        asked = 0
        while asked < self._clients and (transfers is None or asked < transfers):
            self._ask()
            asked += 1
        end_s = began_s + (limit_s if stop_after_s is None else min(limit_s, stop_after_s))
        told_s = began_s
        while self._running and (now_s := time.monotonic()) < end_s:
            for completion in self._completions(min(_PROGRESS_S, end_s - now_s)):
                tally.add(completion, self._problem(completion))
                if transfers is None or asked < transfers:
                    self._ask()
                    asked += 1
            if now_s - told_s > _PROGRESS_S:
                told_s = now_s
                tell(tally.ended)
        wall_s = time.monotonic() - began_s
        load_cpu_s = _cpu_s() - cpu_before_s
        if stop_after_s is not None:
            self._cut_off(tally, round(stop_after_s * 1e9 / 2))
        result = tally.result(asked if transfers is None or stop_after_s is not None else transfers, wall_s)
        result["load_cpu_s"] = load_cpu_s
        result["granted"] = {
            "blksize_bytes": self._agreed.blksize_bytes,
            "windowsize_blocks": self._agreed.windowsize_blocks,
        }
        return result

    def _cut_off(self, tally: "_Tally", patience_ns: int) -> None:
        """End what still runs; a transfer that waited for `patience_ns` and got no block has failed."""
        for context in self._running:
            self._engine.abort_asked(context, ErrorCode.NOT_DEFINED, b"the measurement is over")
        end_s = time.monotonic() + _CUT_LIMIT_S
        while self._running and time.monotonic() < end_s:
            for completion in self._completions(_PROGRESS_S):
                is_alive = completion.blocks > 0 or completion.duration_ns < patience_ns
                if completion.outcome == Outcome.ABORTED and is_alive and completion.context not in self._odd:
                    tally.add_cut_off(completion)
                else:
                    tally.add(completion, self._problem(completion))

    def _completions(self, wait_s: float) -> list[Any]:
        """What has ended; a transfer that was granted other options than the first is ended here."""
        ended = []
        for event in self._events(wait_s):
            if isinstance(event, self._native.Completion):
                self._running.discard(event.context)
                ended.append(event)
            elif isinstance(event, self._native.Answer):
                self._odd.add(event.context)
                self._engine.abort(event.transfer_id)
        return ended

    def _events(self, wait_s: float) -> list[Any]:
        select.select([self._engine.fileno()], [], [], wait_s)
        events: list[Any] = self._engine.poll()
        return events

    def _plan(self, context: object) -> TransferPlan:
        return TransferPlan(
            transfer_id=0,
            role=Role.RECEIVER,
            fd=os.dup(self._content_fd),
            size_bytes=self._size_bytes,
            blksize_bytes=self._agreed.blksize_bytes,
            windowsize_blocks=self._agreed.windowsize_blocks,
            timeout_ns=self._timeout_ns,
            first_packet=self._request,
            compare=True,
            expected_oack=self._agreed.oack,
            context=context,
        )

    def _ask(self) -> None:
        address = FIRST_ADDRESS + self._next_address % (ADDRESSES - 2)
        self._next_address += 1
        # The engine finds the transfer by this object, which has to live until its Completion.
        context = object()
        self._running.add(context)
        self._engine.ask(self._plan(context), None, self._peer, local=address.to_bytes(4, "big"), worker=0)

    def _problem(self, completion: Any) -> str | None:
        if completion.context in self._odd:
            return "the server granted other options than before"
        if completion.outcome != Outcome.OK:
            text = completion.text.decode("utf-8", "replace")
            return f"{self._native.OUTCOMES[completion.outcome]}: {text or completion.error}"
        if completion.payload_bytes != self._size_bytes:
            return f"content differs: {completion.payload_bytes} bytes of {self._size_bytes}"
        return None


class _Tally:
    def __init__(self) -> None:
        self.ended = self.cut_off = 0
        self.failures = Counter[str]()
        self.latencies_ns: list[int] = []
        self.blocks = self.payload_bytes = self.retransmits = self.duplicates = 0

    def add(self, completion: Any, problem: str | None) -> None:
        self.ended += 1
        self.retransmits += completion.retransmits
        self.duplicates += completion.duplicate_acks
        if problem:
            self.failures[problem] += 1
            return
        self.latencies_ns.append(completion.duration_ns)
        self.blocks += completion.blocks
        self.payload_bytes += completion.payload_bytes

    def add_cut_off(self, completion: Any) -> None:
        """One that ran well until the measurement was over."""
        self.cut_off += 1
        self.ended += 1
        self.retransmits += completion.retransmits
        self.duplicates += completion.duplicate_acks
        self.blocks += completion.blocks
        self.payload_bytes += completion.payload_bytes

    def result(self, transfers: int, wall_s: float) -> dict[str, Any]:
        if self.ended < transfers:
            self.failures["not ended in time"] += transfers - self.ended
        self.latencies_ns.sort()
        latencies_s = [ns / 1e9 for ns in self.latencies_ns]
        return {
            "transfers": transfers,
            "finished": len(latencies_s),
            "cut_off": self.cut_off,
            "failed": sum(self.failures.values()),
            "wrong_bytes": sum(n for text, n in self.failures.items() if "content differs" in text),
            "failures": dict(self.failures),
            "blocks": self.blocks,
            "payload_bytes": self.payload_bytes,
            "wall_s": wall_s,
            "p50_s": quantile(latencies_s, 0.5),
            "p99_s": quantile(latencies_s, 0.99),
            "max_s": quantile(latencies_s, 1.0),
            "latency_quantiles_s": [quantile(latencies_s, i / _QUANTILES) for i in range(_QUANTILES + 1)],
            "client_retransmits": self.retransmits,
            "duplicates_received": self.duplicates,
        }


def quantile(ordered: list[float], share: float) -> float | None:
    """The value that `share` (0..1) of the ordered values do not exceed; None of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _options(blksize_bytes: int, windowsize_blocks: int) -> tuple[Option, ...]:
    asked = []
    if blksize_bytes != DEFAULT_BLKSIZE_BYTES:
        asked.append(("blksize", str(blksize_bytes)))
    if windowsize_blocks != DEFAULT_WINDOWSIZE_BLOCKS:
        asked.append(("windowsize", str(windowsize_blocks)))
    return tuple(asked)


def _socket(*, with_gro: bool) -> int:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        enlarge(sock, option, _BUFFER_BYTES)
    tell_local_address(sock)
    if with_gro:
        join_datagrams(sock)
    sock.bind(("0.0.0.0", 0))
    return sock.detach()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(arguments: list[str]) -> None:
    """The process; its argument is one JSON object with the arguments of Load and run."""
    asked: dict[str, Any] = json.loads(arguments[0])
    transfers, limit_s, stop_after_s = (asked.pop(key) for key in ("transfers", "limit_s", "stop_after_s"))
    if (core := asked.pop("core")) is not None:
        os.sched_setaffinity(0, {core})  # before any thread begins: they inherit it
    content = Path(asked.pop("content_path")).read_bytes()

    def say(**message: object) -> None:
        print(json.dumps(message), flush=True)

    try:
        load = Load(content=content, **asked)
        load.learn(limit_s)
    except (OSError, RuntimeError) as error:
        say(error=str(error))
        return
    say(ready=True)
    sys.stdin.readline()
    say(result=load.run(transfers, limit_s, lambda ended: say(done=ended), stop_after_s=stop_after_s))
    load.close()


if __name__ == "__main__":
    main(sys.argv[1:])
