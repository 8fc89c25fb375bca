"""Every system call of a running server fails in turn, with every errno that it may have: nobody is harmed by it.

The whole process is the server: its engine, the threads that open, decide and commit, log, audit and reload. A client
outside reads, reads netascii, uploads, replaces and vanishes while the fault hits; see sweep_scenes for what it must
find. Afterwards everything works as if nothing had been, no descriptor is left, and no line of the log is a bug's.
"""

import errno
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.soak import many
from tests.support.sweep import ERRORS, Nursery, Server, tracebacks
from tests.support.sweep_scenes import Broken, Scene, at_rest, settings, settle

MODES = ("replace", "version", "replace_writable")
CALLS_AT_START = {"SOCKET", "BIND", "SETSOCKOPT", "GETSOCKOPT", "GETSOCKNAME", "SOCKETPAIR", "EPOLL_CREATE", "EVENTFD"}
FOREVER = 1 << 30
Case = tuple[str, str, int, int, int]
"""Mode of uploads, call, errno, how many calls pass, how many fail."""


@dataclass(slots=True)
class Sweep:
    """Plays cases, in one server as long as it lives; `harm` says what went wrong."""

    nursery: Nursery
    folder: Path
    mode: str
    harm: list[str] = field(default_factory=list)
    hits: int = 0
    played: int = 0

    def run(self, cases: Sequence[Case]) -> None:
        left = list(reversed(cases))
        while left:
            self._run_life(left)

    def _run_life(self, left: list[Case]) -> None:
        """One server, until there is no case left or one did harm."""
        folder = self.folder / f"{self.mode}-{self.played}"
        folder.mkdir()
        scene = Scene(folder / "root", self.mode)
        with self.nursery.server("--config", str(settings(folder, scene.root, self.mode))) as server:
            server.log_path = folder / "log"
            for _ in range(3):
                scene.check_serves(server)
            before = at_rest(server)
            while left:
                case = left.pop()
                problem = self._play(server, scene, case, before)
                if problem:
                    self.harm.append(f"{case}: {problem}; {self.nursery.control.what}")
                    return
            self._end(server)

    def _play(self, server: Server, scene: Scene, case: Case, before: list[str]) -> str:
        _, call, error, skip, times = case
        control = self.nursery.control
        scene.bears_silence = times > 1
        self.played += 1
        control.arm(call, error, skip, times)
        try:
            scene.play(server)
            control.disarm()
            scene.bears_silence = False
            hits = control.hits
            self.hits += hits > 0
            scene.check_names()
            if hits:
                scene.check_serves(server)
                settle(server, before)
        except Broken as broken:
            control.disarm()
            return f"{broken} ({control.hits} hits)"
        if server.wait(0) is not None:
            return f"the server ended, status {server.status}: {server.log[-2000:]}"
        return "; ".join(tracebacks(server.log_since())[:3])

    def _end(self, server: Server) -> None:
        status = server.end()
        if status != 0:
            self.harm.append(f"{self.mode}: ended with status {status}: {server.log[-1000:]}")
        elif any(any(objects.values()) for objects in server.live_objects()):
            self.harm.append(f"{self.mode}: after the end there are {server.live_objects()}")


def counts_of(nursery: Nursery, folder: Path, mode: str) -> dict[str, int]:
    """How many calls of each kind one scene makes."""
    (folder / f"count-{mode}").mkdir()
    scene = Scene(folder / f"count-{mode}/root", mode)
    with nursery.server("--config", str(settings(folder / f"count-{mode}", scene.root, mode))) as server:
        for _ in range(2):
            scene.play(server)
        nursery.control.clear()
        scene.play(server)
        return nursery.control.counts()


def lasting_cases(mode: str) -> list[Case]:
    """Every call of one kind fails for the whole scene."""
    return [
        (mode, call, error, 0, FOREVER)
        for call, errors in ERRORS.items()
        if call not in CALLS_AT_START
        for error in errors
    ]


def all_cases(counts: dict[str, int], mode: str) -> list[Case]:
    return [
        (mode, call, error, skip, 1)
        for call, errors in ERRORS.items()
        if call not in CALLS_AT_START
        for error in errors
        for skip in range(counts[call])
    ]


SAMPLE = 20
"""Of each mode; a case takes a quarter of a second."""


def run_sweep(folder: Path, mode: str, choose: Callable[[list[Case]], list[Case]]) -> None:
    with Nursery(folder) as nursery:
        cases = choose(all_cases(counts_of(nursery, folder, mode), mode))
        sweep = Sweep(nursery, folder, mode)
        sweep.run(cases)
    print(f"{sweep.played} cases, {sweep.hits} of them hit")
    assert not sweep.harm
    assert sweep.hits > len(cases) * 3 // 4, "hardly anything failed, so nothing was shown"


@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_harmed_by_a_call_that_fails(tmp_path: Path, rng: random.Random, mode: str) -> None:
    """Some of all cases, chosen by the seed; `make soak` plays more of them."""
    run_sweep(tmp_path, mode, lambda cases: rng.sample(cases, SAMPLE))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_harmed_by_any_call_that_fails(tmp_path: Path, rng: random.Random, mode: str) -> None:
    """Some hundred of all cases; with SNOW_OWL_SOAK=full, every one."""
    run_sweep(tmp_path, mode, lambda cases: rng.sample(cases, many(min(len(cases), 100), full=len(cases))))


@pytest.mark.parametrize(("call", "error"), [("OPEN", errno.EMFILE), ("PWRITE", errno.ENOSPC), ("WRITE", errno.ENOSPC)])
def test_nobody_is_harmed_while_descriptors_or_the_disk_are_used_up(tmp_path: Path, call: str, error: int) -> None:
    run_sweep(tmp_path, "replace", lambda _: [("replace", call, error, 0, FOREVER)])


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_harmed_while_all_calls_of_a_kind_fail(tmp_path: Path, mode: str) -> None:
    run_sweep(tmp_path, mode, lambda _: lasting_cases(mode))


# Each of these had harmed somebody: a client without an answer, a descriptor open for ever, a traceback.
@pytest.mark.parametrize(("call", "error"), [("MALLOC", errno.ENOMEM), ("CLOSE", errno.EIO), ("FSTAT", errno.EIO)])
def test_memory_a_close_or_a_look_may_fail(tmp_path: Path, rng: random.Random, call: str, error: int) -> None:
    def choose(cases: list[Case]) -> list[Case]:
        return rng.sample([case for case in cases if case[1:3] == (call, error)], SAMPLE)

    run_sweep(tmp_path, "replace", choose)
