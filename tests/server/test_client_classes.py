"""Decisions that hold for a class of clients: repeated for that class, and never across a change of the classes."""

import asyncio
import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.client import Client
from tests.support.server import ServerThread, serve_in_thread, wait_for

from snow_owl_tftp._engine.engine import ClientClasses
from snow_owl_tftp.config.schema import Settings, WriteSettings
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import ReadDecision
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Accepted, IncomingRequest, Refused, Verdict

FLOWS = {"performance.platform.batch.enable_flows": True}


def classes_of(**of: int) -> ClientClasses:
    """Of `n1=4`: 127.1.0.0/16 is class 4."""
    return ClientClasses((bytes((127, int(name[1:]), 0, 0)), 16, number) for name, number in of.items())


class ByClass(Policy):
    """Leads each class to a folder of its own."""

    def __init__(self, classes: ClientClasses) -> None:
        super().__init__(WriteSettings())
        self._classes = classes

    def decide_read(self, asker: Asker, request: Request, paths: tuple[bytes, ...]) -> ReadDecision:
        number = self._classes.find(ipaddress.ip_address(asker.peer[0]).packed)
        return ReadDecision(tuple(b"%d/%b" % (number, path) for path in paths))


class Counting:
    """Counts what it is asked, and holds answers back while `gate` is there."""

    def __init__(self, root: Path, classes: ClientClasses) -> None:
        settings = Settings(root_dir=str(root))
        self._generation = Generation.of(settings)
        self._decider = FileDecider(settings, generation=self._by(classes))
        self.asked = 0
        self.gate: asyncio.Event | None = None

    def _by(self, classes: ClientClasses) -> Generation:
        return replace(self._generation, policy=ByClass(classes))

    def use(self, classes: ClientClasses) -> None:
        self._decider.reload(self._by(classes))

    async def decide(self, incoming: IncomingRequest) -> Verdict:
        self.asked += 1
        verdict = self._decider.decide(incoming)
        decided = verdict if isinstance(verdict, (Accepted, Refused)) else await verdict
        if self.gate is not None:
            await self.gate.wait()
        return decided

    def close(self) -> None:
        self._decider.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        (tmp_path / "root" / str(number)).mkdir(parents=True)
        (tmp_path / "root" / str(number) / "file").write_text(f"of class {number}")
    return tmp_path / "root"


@pytest.fixture
def decider(root: Path) -> Iterator[Counting]:
    decider = Counting(root, ClientClasses([]))
    yield decider
    decider.close()


def get(server: ServerThread, source: str) -> str:
    with Client(server.address, source=source) as client:
        return client.get("file").payload.decode()


def change(server: ServerThread, decider: Counting, classes: ClientClasses) -> None:
    async def swap() -> None:
        decider.use(classes)
        server.server.set_classes(classes)

    server.call(swap)


def test_a_class_is_decided_about_once(root: Path, decider: Counting) -> None:
    with serve_in_thread(root, FLOWS, decider=decider) as server:
        change(server, decider, classes_of(n1=1, n2=2, n3=1))
        for _ in range(3):
            told = [get(server, f"127.{number}.0.1") for number in (1, 2, 3, 4)]
            assert told == ["of class 1", "of class 2", "of class 1", "of class 0"]
        assert decider.asked == 3
        change(server, decider, classes_of(n1=2, n2=1))
        assert [get(server, f"127.{number}.0.1") for number in (1, 2, 3)] == ["of class 2", "of class 1", "of class 0"]
        assert decider.asked == 6


def test_classes_stay_when_the_server_is_started_anew(root: Path, decider: Counting) -> None:
    with serve_in_thread(root, FLOWS, decider=decider) as server:
        change(server, decider, classes_of(n1=1, n2=2))
        server.call(server.server.stop)
        server.call(server.server.start)
        assert [get(server, f"127.{number}.0.1") for number in (1, 2, 1, 2)] == ["of class 1", "of class 2"] * 2
        assert decider.asked == 2


def test_what_was_being_decided_when_the_classes_changed_is_no_flow(root: Path, decider: Counting) -> None:
    with serve_in_thread(root, FLOWS, decider=decider) as server, Client(server.address, source="127.1.0.1") as client:
        change(server, decider, classes_of(n1=1))

        async def close_gate() -> None:
            decider.gate = asyncio.Event()

        async def open_gate() -> None:
            assert decider.gate is not None
            decider.gate.set()
            decider.gate = None

        server.call(close_gate)
        client.request("file")
        wait_for(lambda: decider.asked, "the request")
        change(server, decider, classes_of(n1=2))
        server.call(open_gate)
        assert client.receive()[0].endswith(b"of class 1"), "good for this once"
        assert get(server, "127.1.0.2") == "of class 2"
