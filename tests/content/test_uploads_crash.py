"""A server that dies at any instant leaves the old file or the new one, whole, and nothing that a sweep would not find.

Two ways to die: just before or after each single system call of an upload, one after the other; and at random moments.
"""

import os
import random
import signal
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.content.test_uploads import Terms, names_below, no_unnamed_files, put
from tests.support.soak import many

from snow_owl_tftp.content.store import leftovers, places, staging, uploads
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.linux import descriptors, unnamed

OLD, NEW = b"old " * 5000, b"new!" * 9000
CALLS = ("open", "close", "link", "rename", "unlink", "fsync", "fchmod", "mkdir", "pwrite", "write", "stat", "readlink")
TERMS = [
    Terms(b"file", on_existing="replace"),
    Terms(b"file", on_existing="version"),
    Terms(b"fresh"),
    Terms(b"deep/er/fresh", create_directories=True),
    Terms(b"file", on_existing="replace", fsync=False),
]


class DyingOs(types.SimpleNamespace):
    """The module `os`, but the process is killed at its k-th call that changes something."""

    def __init__(self, dies_at_call: int, *, after: bool) -> None:
        super().__init__(**vars(os))
        self._calls_left = dies_at_call
        self._after = after
        for name in CALLS:
            setattr(self, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            self._calls_left -= 1
            if self._calls_left == 0 and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*args, **more)
            finally:
                if self._calls_left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        return counted


def in_child(act: Callable[[], None]) -> int:
    """Run in a copy of this process that shares nothing but files."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(params=["unnamed", "hidden name"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "hidden name":
        monkeypatch.setattr(staging, "open_unnamed", no_unnamed_files)
        monkeypatch.setattr(unnamed, "_renameat2", None)  # os.link and os.unlink: calls that can be counted


def prepare(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    (root / "file").write_bytes(OLD)


def check_after_crash(root: Path, terms: Terms) -> None:
    area = UploadArea(root)
    area.sweep()
    area.close()
    files = {name for name in names_below(root) if (root / name).is_file()}
    assert files <= {"file", "file.~1~", terms.path.decode()}, "something was left"
    for name in files:
        assert (root / name).read_bytes() in (OLD, NEW), f"{name} is not whole"
    assert "file" in files, "the old file is lost"
    if terms.on_existing == "version" and (root / "file").read_bytes() == NEW:
        assert (root / "file.~1~").read_bytes() == OLD, "the old version is lost"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("terms", TERMS, ids=lambda terms: f"{terms.path.decode()}-{terms.on_existing}-{terms.fsync}")
def test_death_at_every_single_call_leaves_a_whole_file(root: Path, terms: Terms, after: bool) -> None:
    seen = set()
    for dies_at_call in range(1, 200):
        prepare(root)

        def upload(dies_at_call: int = dies_at_call) -> None:
            area = UploadArea(root)
            dying = DyingOs(dies_at_call, after=after)
            for module in (staging, unnamed, places, uploads, leftovers, descriptors):
                module.os = dying  # type: ignore[attr-defined]
            put(area, terms, NEW)

        _, status = os.waitpid(in_child(upload), 0)
        seen.add((root / terms.path.decode()).is_file() and (root / terms.path.decode()).read_bytes() == NEW)
        check_after_crash(root, terms)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        pytest.fail("the upload never came to its end")
    assert dies_at_call > 6
    assert seen == {False, True}, "it must have died both before and after the file became visible"


def count_deaths_at_random(root: Path, rng: random.Random, rounds: int) -> int:
    deaths = 0
    for _ in range(rounds):
        terms = rng.choice(TERMS[:2])
        prepare(root)

        def upload(terms: Terms = terms) -> None:
            area = UploadArea(root)
            while True:
                put(area, terms, NEW)
                for path in root.glob("file.~*"):
                    path.unlink()
                put(area, Terms(b"file", on_existing="replace", fsync=False), OLD)

        pid = in_child(upload)
        time.sleep(rng.uniform(0.0005, 0.006))  # no condition to wait for: any moment is what is meant
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        deaths += os.WIFSIGNALED(status)
        check_after_crash_at_random(root)
    return deaths


def check_after_crash_at_random(root: Path) -> None:
    area = UploadArea(root)
    area.sweep()
    area.close()
    assert names_below(root) <= {"file", "file.~1~"}
    for path in root.iterdir():
        assert path.read_bytes() in (OLD, NEW)
    assert (root / "file").exists()


@pytest.mark.usefixtures("way")
def test_death_at_random_moments_leaves_a_whole_file(root: Path, rng: random.Random) -> None:
    assert count_deaths_at_random(root, rng, 100) == 100


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("way")
def test_death_at_very_many_random_moments_leaves_a_whole_file(root: Path, rng: random.Random) -> None:
    """1 000; with SNOW_OWL_SOAK=full, 5 000."""
    rounds = many(1000, full=5000)
    assert count_deaths_at_random(root, rng, rounds) == rounds
