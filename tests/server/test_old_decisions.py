"""What was decided before a reload is opened by what it was decided for, although a thread was slow.

May know: FileDecider, without a socket. A thread of the root's device is held, so that a request waits while the
configuration is exchanged.
"""

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.overlay import Overlay
from snow_owl_tftp.content.source import LATER
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.sources import Sources
from snow_owl_tftp.server.verdict import Accepted, Verdict


@dataclass
class Asked:
    datagram: bytes
    transfer_id: int = 1
    peer: tuple[str, int] = ("192.0.2.1", 2000)
    local_address: str | None = None
    endpoint: int = 0


MOST_OPEN = 8
"""root_dir twice, the roots in force, three sets of old ones, and those of a thread that is just done."""
RULES: list[dict[str, Any]] = [{"roots": ["public"]}]
OTHERS: dict[str, list[dict[str, Any]]] = {
    "other roots": [{"roots": ["private"]}],
    "no roots": [{"paths": ["secret"], "allow": []}],
    "no rules": [],
    "more roots": [{"roots": ["private", "public"]}],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {"public/file": "public", "private/file": "PRIVATE", "secret": "SECRET", "file": "ROOT"}.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    return tmp_path / "root"


def settings(root: Path, rules: list[dict[str, Any]]) -> Settings:
    return override(Settings(), {"root_dir": str(root), "rules": rules})


@contextmanager
def held(decider: FileDecider, device: int) -> Iterator[None]:
    """No thread looks anything up before this ends."""
    goes_on = threading.Event()
    for _ in range(8):
        decider.threads.submit_for(device, goes_on.wait, 10)
    try:
        yield
    finally:
        goes_on.set()


async def asked_before(decider: FileDecider, device: int, name: bytes, then: Settings) -> Verdict:
    """Ask, change the settings while that waits for a thread, and return what is answered."""
    with held(decider, device):
        verdict = decider.decide(Asked(b"\0\1" + name + b"\0octet\0"))
        assert isinstance(verdict, Awaitable), "nothing waits, so nothing is raced"
        generation = Generation.of(then)
        decider.reload(generation, Sources.open(generation, decider.in_force[1]))
    return await verdict


def content(verdict: Verdict) -> bytes:
    assert isinstance(verdict, Accepted), verdict
    try:
        return os.pread(verdict.plan.fd, 100, 0)
    finally:
        verdict.discard()


def open_below(root: Path) -> int:
    """How many descriptors this process has of a directory and what lies in it."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += str(link.readlink()).startswith(str(root))
    return found


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the kernel's caches."""
    monkeypatch.setattr(Overlay, "open_now", lambda *_: LATER)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("rules", OTHERS.values(), ids=OTHERS)
def test_roots_of_an_old_rule_are_looked_through_although_others_hold_now(
    root: Path, rules: list[dict[str, Any]]
) -> None:
    decider = FileDecider(settings(root, RULES))
    try:
        for _ in range(3):
            generation = Generation.of(settings(root, RULES))
            decider.reload(generation, Sources.open(generation, decider.in_force[1]))
            verdict = asyncio.run(asked_before(decider, root.stat().st_dev, b"file", settings(root, rules)))
            assert content(verdict) == b"public"
            generation = Generation.of(settings(root, RULES))
            decider.reload(generation, Sources.open(generation, decider.in_force[1]))
            missing = asyncio.run(asked_before(decider, root.stat().st_dev, b"secret", settings(root, rules)))
            assert not isinstance(missing, Accepted), "of a root that no rule granted"
    finally:
        decider.close()


@pytest.mark.usefixtures("slow")
def test_old_rules_open_nothing_in_a_new_root_nor_new_ones_in_the_old(root: Path) -> None:
    old = settings(root / "public", [{"paths": ["secret"], "roots": ["."]}, {"paths": ["x"], "allow": []}])
    new = settings(root, [{"paths": ["secret"], "allow": []}])
    decider = FileDecider(old)
    try:
        missing = asyncio.run(asked_before(decider, root.stat().st_dev, b"secret", new))
        assert not isinstance(missing, Accepted), "allowed by the old rules, where only the new root has it"
        verdict = decider.decide(Asked(b"\0\1public/file\0octet\0"))
        if isinstance(verdict, Awaitable):
            verdict = asyncio.run(_result_of(verdict))
        assert content(verdict) == b"public", "the new root is served as soon as the new rules hold"
        assert not decider.look_again(), "nothing is left to follow"
    finally:
        decider.close()


@pytest.mark.usefixtures("slow")
def test_what_old_rules_allowed_in_root_dir_is_looked_for_in_the_old_one(root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(FileTree, "open_now", lambda *_: LATER)
    decider = FileDecider(settings(root / "public", []))
    try:
        new = settings(root, [{"paths": ["secret"], "allow": []}])
        missing = asyncio.run(asked_before(decider, root.stat().st_dev, b"secret", new))
        assert not isinstance(missing, Accepted), "allowed by the old rules, where only the new root has it"
        verdict = asyncio.run(asked_before(decider, root.stat().st_dev, b"file", settings(root / "public", [])))
        assert content(verdict) == b"ROOT", "of the root in force when it was asked"
    finally:
        decider.close()


async def _result_of(verdict: Awaitable[Verdict]) -> Verdict:
    return await verdict


@pytest.mark.usefixtures("slow")
def test_old_roots_are_open_as_long_as_somebody_looks_through_them(root: Path) -> None:
    """Many reloads later, too, and they close then."""
    decider, device = FileDecider(settings(root, RULES)), root.stat().st_dev

    async def ask() -> Verdict:
        with held(decider, device):
            verdict = decider.decide(Asked(b"\0\1file\0octet\0"))
            assert isinstance(verdict, Awaitable)
            for number in range(20):
                generation = Generation.of(settings(root, RULES if number % 2 else OTHERS["other roots"]))
                decider.reload(generation, Sources.open(generation, decider.in_force[1]))
        return await verdict

    try:
        gc.disable()  # which may come late
        held_open = []
        for _ in range(60):
            assert content(asyncio.run(ask())) == b"public"
            held_open.append(open_below(root))
        assert max(held_open) <= MOST_OPEN, held_open
    finally:
        gc.enable()
        decider.close()
