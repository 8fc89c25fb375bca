"""What a decision leaves behind."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from snow_owl_tftp.config.schema import Settings, WriteSettings
from snow_owl_tftp.errors import TftpError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import ReadDecision
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.answer import _parse_remembered
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Accepted, Refused


@dataclass
class Asked:
    datagram: bytes
    transfer_id: int = 1
    peer: tuple[str, int] = ("127.0.0.1", 2000)
    local_address: str | None = None
    endpoint: int = 0


@pytest.fixture
def decider(tmp_path: Path) -> Iterator[FileDecider]:
    assert not (tmp_path / "missing").exists()  # and now the kernel knows that, without a look at the disk
    decider = FileDecider(Settings(root_dir=str(tmp_path)))
    yield decider
    decider.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "datagram",
    [b"\0\1missing\0octet\0", b"\0\1x\0mail\0", b"\0\1", b"\0\2x\0octet\0", b"\0\1missing\0netascii\0"],
)
def test_refused_request_leaves_no_cycle(decider: FileDecider, datagram: bytes) -> None:
    """Else a flood of them costs a collection of garbage every few hundred."""

    def ask() -> weakref.ref[TftpError]:
        verdict = decider.decide(Asked(datagram))
        assert isinstance(verdict, Refused)
        return weakref.ref(verdict.cause)

    assert ask()() is None


class TellsApart(Policy):
    """Whose decisions depend on who asks."""

    def __init__(self) -> None:
        super().__init__(WriteSettings())

    def decide_read(self, asker: Asker, request: Request, paths: tuple[bytes, ...]) -> ReadDecision:
        return msgspec.structs.replace(super().decide_read(asker, request, paths), depends_on_asker=True)


@pytest.mark.parametrize("depends", [False, True])
def test_what_depends_on_the_asker_is_no_flow(tmp_path: Path, depends: bool) -> None:
    (tmp_path / "small").write_bytes(b"ten bytes.")
    settings = Settings(root_dir=str(tmp_path))
    generation = Generation.of(settings)
    decider = FileDecider(settings, generation=replace(generation, policy=TellsApart()) if depends else generation)
    verdict = decider.decide(Asked(b"\0\1small\0octet\0"))
    assert isinstance(verdict, Accepted)
    assert (verdict.flow is None) == depends
    verdict.discard()
    decider.close()


def test_requests_that_are_remembered_are_few_and_short(decider: FileDecider) -> None:
    for number in range(3000):
        decider.decide(Asked(b"\0\1.hidden-%d\0octet\0" % number))
    before = _parse_remembered.cache_info()
    assert before.maxsize is not None
    assert before.currsize <= before.maxsize <= 1024
    verdict = decider.decide(Asked(b"\0\1missing\0octet\0" + bytes(300)))  # padding, as some ROMs send it
    assert isinstance(verdict, Refused)
    assert verdict.request == Request(Opcode.RRQ, "missing", "octet")
    assert _parse_remembered.cache_info() == before
