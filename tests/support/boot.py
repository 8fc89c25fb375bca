"""A root with one file of every kind that a server must serve or refuse, and a server of it.

Invariants: the root lies beside a secret that nobody may read; one server serves all tests of a file, so a test that
harms it is found by the next one.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.support.client import Client
from tests.support.server import ServerThread, serve_in_thread

BOOT = random.Random(SEED).randbytes(100_000)
SECRET = b"nobody may read this"
# Where nothing is lost, nothing may be repeated only because a busy machine lets the client wait; where something is,
# it comes again soon, and the floor is the LAN's.
PATIENT_TIMERS = {"retransmit.initial_ms": 3000, "retransmit.floor_ms": 3000}
QUICK_TIMERS = {"retransmit.initial_ms": 100, "retransmit.floor_ms": 10}


def make_root(parent: Path) -> Path:
    root = parent / "root"
    (root / "sub").mkdir(parents=True)
    (parent / "secret").write_bytes(SECRET)
    (root / "boot.img").write_bytes(BOOT)
    (root / "small").write_bytes(b"ten bytes.")
    (root / "empty").write_bytes(b"")
    (root / "unix.txt").write_bytes(b"one\ntwo\rthree\r\n")
    (root / "sub/nested").write_bytes(b"nested")
    (root / "link_in").symlink_to("sub/nested")
    (root / "link_out").symlink_to("../secret")
    (root / "link_absolute").symlink_to(parent / "secret")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[ServerThread]:
    with serve_in_thread(root, PATIENT_TIMERS) as server:
        yield server


@pytest.fixture(scope="module")
def quick(root: Path) -> Iterator[ServerThread]:
    """For those who lose datagrams."""
    with serve_in_thread(root, QUICK_TIMERS) as server:
        yield server


@pytest.fixture
def client(served: ServerThread) -> Iterator[Client]:
    with Client(served.address) as client:
        yield client
