"""Flows change nothing that anybody can see: the same script, with and without them, is told in the same words.

May know: how Report hears of Completions. Must not: compare times, ids, or which of the two decided.
Invariants: every client of the script has an address of its own, which is what the two runs are matched by; timers are
so long that nothing is repeated because the machine was slow.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.boot import BOOT, make_root
from tests.support.client import Address, Client, Refused
from tests.support.server import serve_in_thread, wait_for

from snow_owl_tftp.events.event import Event, TransferEnded
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import build_ack, build_error
from snow_owl_tftp.server.narrate import Report

ENABLE_FLOWS = "performance.platform.batch.enable_flows"
SETTINGS = {
    "retransmit.floor_ms": 3000,
    "retransmit.initial_ms": 3000,
    "retransmit.half_open_give_up_s": 2,
    "retransmit.half_open_max_datagrams": 1,
    "limits.max_transfers_per_client": 2,
    "logging.audit_enabled": True,
}
OPTIONS: list[dict[str, str | int]] = [
    {},
    {"blksize": 1428, "tsize": 0},
    {"windowsize": 16},
    {"blksize": 8192, "windowsize": 4, "timeout": 3},
]
# Of a Completion: who it was, when, and who decided. Everything else must agree.
NOT_COMPARED = {"transfer_id", "started_ns", "duration_ns", "srtt_ns", "flow_hit", "is_last", "context", "peer"}
COUNTERS_THAT_AGREE = [
    "datagrams_received",
    "datagrams_sent",
    "bytes_received",
    "bytes_sent",
    "blocks_sent",
    "blocks_received",
    "requests",
    "requests_repeated",
    "requests_dropped",
    "requests_refused_busy",
    "strays",
    "strays_answered",
    "malformed",
    "retransmits",
    "duplicate_acks",
    "timeouts",
    "transfers_started",
    "transfers_ended",
    "live_transfers",
    "half_open_transfers",
    "gso_refused",
    "send_would_block",
    "send_errors",
]


@dataclass
class Played:
    """What one run of the script left behind."""

    completions: list[Any] = field(default_factory=list)
    counters: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    told_to_clients: list[Any] = field(default_factory=list)


class Script:
    """Plays the clients, one after the other unless they are meant to meet."""

    def __init__(self, address: Address, root: Path, played: Played) -> None:
        self._address = address
        self._root = root
        self._played = played
        self._hosts = iter(f"127.7.0.{number}" for number in range(1, 255))
        self._ended = 0

    def client(self, host: str = "") -> Client:
        return Client(self._address, source=host or next(self._hosts), timeout_s=5)

    def ends(self, transfers: int = 1) -> None:
        """Nothing new begins while the last one may still be told of."""
        self._ended += transfers
        wait_for(lambda: len(self._played.completions) >= self._ended, f"completion {self._ended}")

    def play(self) -> None:
        for _ in range(3):
            for options in OPTIONS:
                self.get("boot.img", options)
            self.get("unix.txt", {}, "netascii")
            self.get("empty", {"tsize": 0})
        for _ in range(2):
            self.refused("missing")
            self.refused("../secret")
            self.refused("link_out")
            self.malformed()
            self.probe()
            self.gives_up_in_the_middle()
            self.asks_twice()
            self.two_meet()
            self.one_too_many()
        self.file_changes_under_a_transfer()
        self.nobody_answers()

    def get(self, name: str, options: dict[str, str | int], mode: str = "octet") -> None:
        with self.client() as client:
            got = client.get(name, mode, options)
        self._played.told_to_clients.append((got.oack, got.payload))
        self.ends()

    def refused(self, name: str) -> None:
        with self.client() as client, pytest.raises(Refused) as refused:
            client.get(name)
        self._played.told_to_clients.append(str(refused.value))

    def malformed(self) -> None:
        with self.client() as client:
            self._played.told_to_clients.append(client.exchange(b"\0\1small\0morse\0")[0])

    def probe(self) -> None:
        with self.client() as client:
            assert client.probe_size("boot.img") == len(BOOT)
        self.ends()

    def gives_up_in_the_middle(self) -> None:
        with self.client() as client:
            client.request("boot.img", options={"blksize": 1428})
            _, peer = client.receive_packet()
            for block in range(3):
                client.send(build_ack(block), peer)
                client.receive_packet()
            client.send(build_error(ErrorCode.DISK_FULL, "no room"), peer)
        self.ends()

    def asks_twice(self) -> None:
        with self.client() as client:
            for _ in range(2):
                client.request("small", options={"tsize": 0})
                packet, peer = client.receive_packet()
                self._played.told_to_clients.append(packet)
            client.send(build_error(ErrorCode.NOT_DEFINED, "enough"), peer)
        self.ends()

    def two_meet(self) -> None:
        def meet(index: int) -> None:
            if index == 3:
                self.get("boot.img", {"blksize": 1428})

        with self.client() as client:
            got = client.get("boot.img", options={"blksize": 1428}, on_block=meet)
        assert got.payload == BOOT
        self.ends()

    def one_too_many(self) -> None:
        host = next(self._hosts)
        with ExitStack() as stack:
            clients = [stack.enter_context(self.client(host)) for _ in range(3)]
            peers = []
            for client in clients:
                client.request("boot.img", options={"tsize": 0})
                packet, peer = client.receive_packet()
                self._played.told_to_clients.append(packet)
                peers.append(peer)
                if client is not clients[-1]:  # or they would give way
                    client.send(build_ack(0), peer)
                    client.receive_packet()
            for client, peer in list(zip(clients, peers, strict=True))[:2]:
                client.send(build_error(ErrorCode.DISK_FULL, "no room"), peer)
                self.ends()

    def file_changes_under_a_transfer(self) -> None:
        path = self._root / "changing"
        path.write_bytes(BOOT)
        self.get("changing", {"blksize": 1428})

        def change(index: int) -> None:
            if index == 3:  # in place: found out at the last block, while a page that is cut off is found by chance
                with path.open("r+b") as writing:
                    writing.write(bytes(50_000))
                os.utime(path, (1, 1))

        with self.client() as client, pytest.raises(Refused) as refused:
            client.get("changing", options={"blksize": 1428}, on_block=change)
        self._played.told_to_clients.append(str(refused.value))
        self.ends()
        self.get("changing", {"blksize": 1428})

    def nobody_answers(self) -> None:
        with ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(self.client())
                client.request("boot.img")
                client.receive_packet()
            self.ends(3)


def play(parent: Path, *, flows: bool, monkeypatch: pytest.MonkeyPatch) -> Played:
    parent.mkdir()
    root, audit, played = make_root(parent), parent / "audit", Played()
    emit = Report.emit

    def note(report: Report, event: Event) -> None:
        emit(report, event)
        if isinstance(event, TransferEnded):
            played.completions.append(event.ending)

    with monkeypatch.context() as patched:
        patched.setattr(Report, "emit", note)
        with serve_in_thread(root, {**SETTINGS, ENABLE_FLOWS: flows, "logging.audit_file": str(audit)}) as server:
            Script(server.address, root, played).play()
            played.counters = dict(server.counters())
    played.events = [json.loads(line) for line in audit.read_text().splitlines()]
    return played


def as_told(played: Played) -> Iterator[list[dict[str, Any]]]:
    """The events of each request, in their order, without times, ids and ports."""
    of_request = defaultdict(list)
    for event in played.events:
        of_request[event.pop("correlation_id") or event["peer"]].append(event)
    for events in of_request.values():
        times = [event.pop("timestamp") for event in events]
        assert times == sorted(times)
        for event in events:
            event["peer"] = event["peer"].rpartition(":")[0]
            event.pop("duration_ns", None)
        yield events


def figures(completion: Any) -> dict[str, Any]:
    names = [name for name in dir(completion) if not name.startswith("_") and name not in NOT_COMPARED]
    context = completion.context
    return {
        **{name: getattr(completion, name) for name in names},
        "peer": completion.peer[0],
        "context": (context.request, context.size_bytes, context.negotiated),
    }


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Played]:
    parent = tmp_path_factory.mktemp("flows")
    with pytest.MonkeyPatch.context() as monkeypatch:
        on = play(parent / "on", flows=True, monkeypatch=monkeypatch)
        off = play(parent / "off", flows=False, monkeypatch=monkeypatch)
    # Without these the tests below would compare a thing with itself.
    assert sum(completion.flow_hit for completion in on.completions) == on.counters["flow_hits"] > 20
    assert {completion.outcome for completion in on.completions if completion.flow_hit} == {0, 1, 2, 4}
    assert off.counters["flow_hits"] == 0
    return on, off


def test_clients_are_told_the_same(played: tuple[Played, Played]) -> None:
    on, off = played
    assert on.told_to_clients == off.told_to_clients


def test_audit_tells_the_same_of_every_request(played: tuple[Played, Played]) -> None:
    on, off = (sorted(as_told(run), key=repr) for run in played)
    assert on == off


def test_completions_are_the_same(played: tuple[Played, Played]) -> None:
    on, off = (sorted(map(figures, run.completions), key=repr) for run in played)
    assert on == off


@pytest.mark.parametrize("name", COUNTERS_THAT_AGREE)
def test_counter_is_the_same(played: tuple[Played, Played], name: str) -> None:
    on, off = played
    assert on.counters[name] == off.counters[name]
