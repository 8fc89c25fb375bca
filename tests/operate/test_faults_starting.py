"""Every system call of a server's start fails in turn: it starts all the same, or says on one line what to do."""

import errno
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.server import wait_for
from tests.support.soak import many
from tests.support.sweep import ERRORS, Nursery, Server, fault, tracebacks
from tests.support.sweep_scenes import Scene, settings

Case = tuple[str, int, int]
"""Call, errno, how many calls pass before the one that fails."""
SAMPLE = 40
PREFIX = "snow-owl-tftp: "


def counts_of(nursery: Nursery, config: Path) -> dict[str, int]:
    """How many calls of each kind a start makes."""
    with nursery.server("--config", str(config)):
        return nursery.control.counts()


def harm_of(server: Server) -> str:
    """What is wrong with how a server started, or did not; the server has ended then."""
    try:
        wait_for(lambda: server.is_ready() or server.wait(0) is not None, "ready, or ended", 20)
    except AssertionError:
        return f"neither ready nor ended: {server.log}"
    is_ready = server.status is None
    status = server.end() if is_ready else server.status
    text = (server.folder / "stderr").read_text()
    if tracebacks(server.log):
        return "a bug's words: " + server.log[-1500:]
    if is_ready:
        return "" if status == 0 else f"ended with status {status}: {server.log}"
    if status != 2:
        return f"status {status}: {text}"
    lines = text.splitlines()
    # Of access(2) click asks by itself, and names the option and the file.
    if len(lines) != 1 or not lines[0].startswith(PREFIX) or not any(sign in lines[0] for sign in ("; ", "--config")):
        return f"no one line with what to do: {text!r}"
    return ""


def sweep(nursery: Nursery, config: Path, cases: Sequence[Case]) -> list[str]:
    harm = []
    for call, error, skip in cases:
        log_path = config.with_name("log")
        log_path.unlink(missing_ok=True)
        server = nursery.begin("--config", str(config), fault=fault(call, error, skip))
        server.log_path = log_path
        try:
            problem = harm_of(server)
        finally:
            server.end(signal.SIGKILL)
        if problem:
            harm.append(f"{call} {error} after {skip}: {problem}; {nursery.control.what}")
    return harm


def all_cases(counts: dict[str, int]) -> list[Case]:
    return [
        (call, error, skip) for call, errors in ERRORS.items() for error in errors for skip in range(counts[call] + 1)
    ]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return settings(tmp_path, Scene(tmp_path / "root").root, "replace")


def test_a_start_bears_a_call_that_fails_or_says_what_to_do(tmp_path: Path, config: Path, rng: random.Random) -> None:
    """Some of all cases, chosen by the seed; `make soak` plays more of them."""
    with Nursery(tmp_path) as nursery:
        cases = rng.sample(all_cases(counts_of(nursery, config)), SAMPLE)
        assert not sweep(nursery, config, cases)


def test_a_start_and_its_end_bear_the_want_of_any_thread(tmp_path: Path, config: Path) -> None:
    with Nursery(tmp_path) as nursery:
        threads = counts_of(nursery, config)["THREAD"]
        assert threads > 10
        assert not sweep(nursery, config, [("THREAD", errno.EAGAIN, skip) for skip in range(threads + 1)])


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_start_bears_every_call_that_fails_or_says_what_to_do(
    tmp_path: Path, config: Path, rng: random.Random
) -> None:
    """Some hundred of all cases; with SNOW_OWL_SOAK=full, every one."""
    with Nursery(tmp_path) as nursery:
        cases = all_cases(counts_of(nursery, config))
        cases = rng.sample(cases, many(min(len(cases), 150), full=len(cases)))
        print(f"{len(cases)} starts")
        assert not sweep(nursery, config, cases)


ALWAYS = 1000
"""Times: one thread less is borne, for instance."""


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("EPOLL_CREATE", errno.EMFILE, "the server cannot start: Too many open files; raise the limit of open files"),
        ("EVENTFD", errno.EMFILE, "the engine cannot start: "),
        (
            "THREAD",
            errno.EAGAIN,
            "the server cannot start: Resource temporarily unavailable; raise the limit of threads",
        ),
        ("SOCKET", errno.ENOBUFS, "cannot listen on 127.0.0.1:0: No buffer space available; free memory"),
        ("MALLOC", errno.ENOMEM, "the engine cannot start: "),
    ],
)
def test_a_start_that_is_refused_says_what_and_what_to_do(
    tmp_path: Path, config: Path, call: str, error: int, said: str
) -> None:
    with Nursery(tmp_path) as nursery:
        server = nursery.begin("--config", str(config), fault=fault(call, error, times=ALWAYS))
        assert server.wait() == 2
        assert server.log.startswith(PREFIX + said)
