"""What a decision leaves behind."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import TftpError
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Refused


@dataclass
class Asked:
    datagram: bytes
    transfer_id: int = 1
    peer: tuple[str, int] = ("127.0.0.1", 2000)
    local_address: str | None = None


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
