"""Tests that need the machine to themselves, in a run that plays several tests at once (`pytest -n 2`).

    @pytest.mark.alone("counts what the whole machine sends")

May know: pytest, and what pytest-xdist tells its workers. Must not: know any test; they say it of themselves.
Invariants: while a test that is marked so runs, no other test of the same run does; those tests come last. A run
without -n keeps its order and takes no lock. Waiting for one's turn is no part of a test's time-out.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDER = pytest.StashKey[Path]()
INPUT = "snow_owl_turns"  # what the controller tells its workers: the folder of the locks


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """One test's time: together with others, or alone.

    Who wants to be alone keeps the gate while the others end what they have begun: else they could take turns for ever.
    Locks are given back explicitly, since a child that a test left behind may have inherited them.
    """
    with (folder / "gate").open("wb") as gate, (folder / "room").open("wb") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


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
        items.sort(key=is_alone)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    folder = item.config.stash.get(FOLDER, None)
    if folder is None:
        return (yield)
    with turn(folder, alone=is_alone(item)):
        return (yield)
