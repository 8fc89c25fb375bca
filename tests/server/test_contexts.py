"""What a context is told: every ending of a transfer, and once that its plan is over, whoever listens."""

import os
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.client import Client, Refused
from tests.support.server import ServerThread, serve_in_thread, wait_for

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.options import Negotiated, OptionLimits
from snow_owl_tftp.protocol.packets import parse_request_untrusted
from snow_owl_tftp.server.answer import accept_file
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Accepted, Ending, IncomingRequest, TransferContext, Verdict

NOBODY_HEARS = {"logging.level": "error"}
FLOWS = {"performance.platform.batch.enable_flows": True}


class Counting(TransferContext):
    """Remembers what it was told."""

    def __init__(self, incoming: IncomingRequest) -> None:
        super().__init__(parse_request_untrusted(incoming.datagram), None, Negotiated())
        self.outcomes: list[int] = []
        self.retired_total = 0

    def ended(self, ending: Ending) -> None:
        assert not self.retired_total
        self.outcomes.append(ending.outcome)

    def retired(self) -> None:
        self.retired_total += 1


class Failing(Counting):
    """Has a bug in what it does at the end."""

    def ended(self, ending: Ending) -> None:
        super().ended(ending)
        raise ZeroDivisionError("ended")

    def retired(self) -> None:
        super().retired()
        raise ZeroDivisionError("retired")


class FromMemory:
    """Serves bytes that lie in no file; `missing_bytes` is what the plan says beyond."""

    def __init__(self, missing_bytes: int = 0) -> None:
        self._missing_bytes = missing_bytes

    def decide(self, incoming: IncomingRequest) -> Verdict:
        fd = os.memfd_create("test")
        os.write(fd, b"hello")
        file = OpenFile(fd, b"", os.fstat(fd))
        file.size_bytes += self._missing_bytes
        return accept_file(incoming, parse_request_untrusted(incoming.datagram), file, OptionLimits())


class Watched:
    """Decides as another one, and counts what its contexts are told."""

    def __init__(self, decider: Any, kind: type[Counting] = Counting) -> None:
        self._decider = decider
        self._kind = kind
        self.contexts: list[Counting] = []

    def decide(self, incoming: IncomingRequest) -> Verdict | Awaitable[Verdict]:
        verdict = self._decider.decide(incoming)
        if isinstance(verdict, Accepted):
            self.contexts.append(self._kind(incoming))
            return Accepted(replace(verdict.plan, context=self.contexts[-1]), verdict.flow)
        return verdict

    def told(self) -> list[tuple[list[int], int]]:
        return [(context.outcomes, context.retired_total) for context in self.contexts]


@contextmanager
def watched_files(root: Path) -> Iterator[tuple[Watched, ServerThread]]:
    files = FileDecider(Settings(root_dir=str(root)))
    decider = Watched(files)
    try:
        with serve_in_thread(root, {**NOBODY_HEARS, **FLOWS}, decider=decider) as served:
            yield decider, served
    finally:
        files.close()


@pytest.mark.parametrize("level", ["debug", "error"])
def test_each_transfer_ends_once_and_so_does_its_plan(root: Path, level: str) -> None:
    decider = Watched(FromMemory())
    with serve_in_thread(root, {"logging.level": level}, decider=decider) as served, Client(served.address) as client:
        for _ in range(3):
            assert client.get("any").payload == b"hello"
    assert decider.told() == [([Outcome.OK], 1)] * 3


def test_plan_of_a_flow_retires_once_however_many_transfers_it_had(root: Path) -> None:
    with watched_files(root) as (decider, served), Client(served.address) as client:
        for _ in range(5):
            client.get("small")
        wait_for(lambda: served.server.tally.transfers_total == 5, "all have ended")
        assert decider.told() == [([Outcome.OK] * 5, 0)]

        async def forget() -> None:
            served.server.forget_decisions()

        served.call(forget)
        wait_for(lambda: decider.contexts[0].retired_total, "the plan retires with its flow")
        client.get("small")
    assert decider.told() == [([Outcome.OK] * 5, 1), ([Outcome.OK], 1)]


def test_transfer_behind_its_forgotten_flow_retires_the_plan(root: Path) -> None:
    with watched_files(root) as (decider, served), Client(served.address) as client:

        async def forget() -> None:
            served.server.forget_decisions()

        client.request("small")
        client.receive()
        served.call(forget)
    assert decider.told() == [([Outcome.ABORTED], 1)]


def test_plan_that_never_begins_retires_without_an_ending(root: Path) -> None:
    decider = Watched(FromMemory(missing_bytes=1))
    with (
        serve_in_thread(root, NOBODY_HEARS, decider=decider) as served,
        Client(served.address) as client,
        pytest.raises(Refused),
    ):
        client.get("any")
    assert decider.told() == [([], 1)]


def test_plan_retires_and_its_end_is_told_although_the_context_fails(root: Path) -> None:
    decider = Watched(FromMemory(), kind=Failing)
    with serve_in_thread(root, decider=decider) as served, Client(served.address) as client:
        assert client.get("any").payload == b"hello"
        for line in ("transfer completed", "ZeroDivisionError: ended", "ZeroDivisionError: retired"):
            wait_for(lambda: line in served.log, line)  # noqa: B023
    assert decider.told() == [([Outcome.OK], 1)]
