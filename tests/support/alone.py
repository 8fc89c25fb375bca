"""Tests that need the machine to themselves, in a run that plays several tests at once (`pytest -n 2`).

    @pytest.mark.alone("counts what the whole machine sends")
    @pytest.mark.quiet("measures how fast a transfer goes, and only waits itself")

May know: pytest, and what pytest-xdist tells its workers. Must not: know any test; they say it of themselves.
Invariants: while a test runs that is marked `alone`, no other test of the same run does; beside one that is `quiet` run
other quiet ones only. Quiet tests come behind all others, and those that are alone at the end. A run without -n keeps
its order and takes no lock. Waiting for one's turn is no part of a test's time-out.
"""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import pytest

FOLDER = pytest.StashKey[Path]()
INPUT = "snow_owl_turns"  # what the controller tells its workers: the folder of the locks


Way = Literal["together", "quiet", "alone"]
POLITE_S = 0.02


@contextmanager
def turn(folder: Path, way: Way) -> Iterator[None]:
    """One test's time: together with others, with those that are quiet, or alone.

    `loud` is held by who may load the machine, `quiet` by who must not be disturbed; nobody passes while the other kind
    is inside. Locks are given back explicitly, since a child that a test left behind may have inherited them.
    """
    with ExitStack() as files:
        gate, loud, quiet = (files.enter_context((folder / name).open("wb")) for name in ("gate", "loud", "quiet"))
        mine, others = (loud, quiet) if way == "together" else (quiet, loud)
        while not _entered(way, gate, mine, others):
            time.sleep(POLITE_S)
        try:
            yield
        finally:
            fcntl.flock(mine, fcntl.LOCK_UN)
            fcntl.flock(others, fcntl.LOCK_UN)


def _entered(way: Way, gate: IO[bytes], mine: IO[bytes], others: IO[bytes]) -> bool:
    """Who plays together with others waits at the gate for its turn; who wants quiet comes again until it is there.

    So the tests of many processes go on beside one that has come to its quiet tests; they end, and then it is quiet.
    """
    at_once = 0 if way == "together" else fcntl.LOCK_NB
    fcntl.flock(gate, fcntl.LOCK_EX)
    try:
        fcntl.flock(others, fcntl.LOCK_EX | at_once)
        fcntl.flock(mine, (fcntl.LOCK_EX if way == "alone" else fcntl.LOCK_SH) | at_once)
    except BlockingIOError:
        fcntl.flock(others, fcntl.LOCK_UN)
        return False
    else:
        if way != "alone":
            fcntl.flock(others, fcntl.LOCK_UN)
        return True
    finally:
        fcntl.flock(gate, fcntl.LOCK_UN)


def way_of(item: pytest.Item) -> Way:
    if item.get_closest_marker("alone"):
        return "alone"
    return "quiet" if item.get_closest_marker("quiet") else "together"


def pytest_configure(config: pytest.Config) -> None:
    if folder := getattr(config, "workerinput", {}).get(INPUT):
        config.stash[FOLDER] = Path(folder)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the controller, before a worker starts."""
    config = node.config
    if FOLDER not in config.stash:
        config.stash[FOLDER] = Path(tempfile.mkdtemp(prefix="snow-owl-turns-"))
        config.add_cleanup(lambda: shutil.rmtree(config.stash[FOLDER], ignore_errors=True))
    node.workerinput[INPUT] = str(config.stash[FOLDER])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if FOLDER in config.stash:
        items.sort(key=lambda item: ["together", "quiet", "alone"].index(way_of(item)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    folder = item.config.stash.get(FOLDER, None)
    if folder is None:
        return (yield)
    with turn(folder, way_of(item)):
        return (yield)
