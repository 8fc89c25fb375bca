"""A crowd of hostile clients: the server neither dies nor leaks, serves the honest, and can account for each datagram.

The seed is said at the start of a run; SNOW_OWL_SEED=N repeats what is sent, though not how the kernel interleaves it.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.fuzz.attack import Victim, company, compile_fuzzer, make_root
from tests.support.soak import many

CONFIGURATIONS = [(1, False), (1, True), (2, False), (2, True)]
pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="the fuzzer is a C program, and there is no gcc")


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_fuzzer(tmp_path_factory.mktemp("fuzzer"))


@pytest.fixture
def victim_of(tmp_path: Path, fuzzer: Path) -> Callable[[int, bool], Victim]:
    def make(workers: int, single_port: bool) -> Victim:
        folder = tmp_path / f"{workers}-{single_port}"
        folder.mkdir()
        return Victim(make_root(folder), folder, fuzzer, {"workers": workers, "single_port": single_port})

    return make


def check(victim: Victim) -> None:
    report = victim.check_quiet()
    print(report, flush=True)
    begun = report["counts"]["transfers_started"]
    assert begun > 100, "else it was all refused at the door"
    assert report["counts"]["flow_hits"] > 10
    assert report["counts"]["blocks_received"] > 30
    assert victim.honest_done >= 1
    victim.check_end()


@pytest.mark.timeout(300)
def test_fuzzed_datagrams_harm_neither_the_server_nor_honest_clients(victim_of):
    """All four at once: each spends most of this test waiting for its last transfers to expire."""
    with contextlib.ExitStack() as running:
        victims = [running.enter_context(victim_of(*configuration)) for configuration in CONFIGURATIONS]
        with contextlib.ExitStack() as attacked:
            for victim in victims:
                attacked.enter_context(company(victim))
            fuzzers = [victim.start_fuzzer(SEED + number, 15_000) for number, victim in enumerate(victims)]
            for victim, fuzzer in zip(victims, fuzzers, strict=True):
                victim.end_fuzzer(fuzzer)
        for victim in victims:
            check(victim)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("workers", "single_port"), CONFIGURATIONS)
def test_soak_very_many_fuzzed_datagrams(victim_of, workers, single_port):
    """Of 200 000 in each configuration; with SNOW_OWL_SOAK=full, ten million in all of them together."""
    pieces, datagrams = many((4, 50_000), full=(10, 250_000))
    with victim_of(workers, single_port) as victim:
        for piece in range(pieces):
            with company(victim):
                victim.end_fuzzer(victim.start_fuzzer(SEED * 100 + piece, datagrams))
            report = victim.report()
            kernel, rss_kb = report["kernel"], report["rss_kb"]
            print(f"{victim.fuzzed} sent, {kernel}, {victim.honest_done} honest, RSS {rss_kb} KiB", flush=True)
        check(victim)
