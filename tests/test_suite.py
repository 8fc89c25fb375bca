"""What the suite demands of its own runs: a test alone on the machine, and skips that are let pass by name only.

May know: pytest's own test kit. Must not: import the package.
"""

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path

import pytest
from tests.support.descriptors import descriptors_at_rest
from tests.support.pairs import covering, met, pairs
from tests.support.required import PACKAGES, why_let_pass

pytest_plugins = ["pytester"]
REPOSITORY = Path(__file__).resolve().parent.parent

# Each test writes when it began and ended; what overlaps is seen in the file. In a run of several processes the first
# of a kind waits for one of another process, since those begin at different times.
OVERLAPPING = """
import os, time
from pathlib import Path
import pytest

LOG = Path({log!r})
ME = os.environ.get("PYTEST_XDIST_WORKER")

def company(kind):
    return {{line.split()[2] for line in LOG.read_text().splitlines() if line.startswith(kind)}} - {{ME}}

def play(kind):
    with LOG.open("a") as log:
        print(kind, 1, ME, file=log, flush=True)
        until = time.monotonic() + (10 if ME and kind != "alone" else 0.03)
        while time.monotonic() < until and not company(kind):
            time.sleep(0.005)
        time.sleep(0.03)
        print(kind, -1, ME, file=log)

@pytest.mark.parametrize("number", range(12))
def test_beside_others(number):
    play("loud")

@pytest.mark.quiet("for the test of it")
@pytest.mark.parametrize("number", range(12))
def test_quiet(number):
    play("quiet")

@pytest.mark.alone("for the test of it")
@pytest.mark.parametrize("number", range(4))
def test_alone(number):
    play("alone")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}")
    for name in ("SNOW_OWL_REQUIRE", "SNOW_OWL_NOT_INSTALLABLE", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    # The kit of the suite itself is all that is needed, and half the time of a start.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nmarkers =\n    alone\n    quiet")
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    plugins = ("xdist", "tests.support.alone", "tests.support.own_network", "tests.support.required")
    return suite.runpytest_subprocess(*(part for plugin in plugins for part in ("-p", plugin)), *arguments)


@pytest.mark.parametrize("processes", [(), ("-n", "3", "--dist", "worksteal")], ids=["one after the other", "-n 3"])
def test_a_test_that_is_alone_has_no_other_beside_it(suite, tmp_path, processes):
    log = tmp_path / "log"
    suite.makepyfile(OVERLAPPING.format(log=str(log)))
    run(suite, *processes).assert_outcomes(passed=28)
    inside, most = Counter(), Counter()
    for line in log.read_text(encoding="ascii").splitlines():
        kind, step, _ = line.split()
        inside[kind] += int(step)
        most[kind] = max(most[kind], inside[kind])
        assert sum(inside.values()) == inside[kind], "another kind runs beside one that is quiet or alone"
    assert most["alone"] == 1
    if not processes:
        assert (most["loud"], most["quiet"]) == (1, 1), "without -n nothing runs beside anything"
    else:
        assert min(most["loud"], most["quiet"]) > 1, "nothing ran at the same time: this test has shown nothing"


@pytest.mark.parametrize(
    ("reason", "passes"),
    [
        ("needs root, to bind as one user and serve as another", True),
        ("needs /dev/fuse", True),
        ("CANNOT MOUNT a tmpfs: what a full disk does is NOT tested on this machine", True),
        ("NOT TRACED: trace: eBPF needs root; run it with sudo", True),
        ("NOT TRACED: trace: bpftrace is not installed; apt-get install bpftrace (dnf, apk: the same name)", False),
        ("NOT STARTED: py3tftp is MISSING (make peers, make peers-all)", True),
        ("NOT STARTED: dnsmasq is MISSING (make peers, make peers-all)", False),
        ("curl is not installed: `make peers` installs it", False),
        ("MISSING: in.tftpd (scripts/install-peers.sh brings it)", False),
        ("MISSING: /proc/version", True),
        ("a release build without the probe", False),
        ("the fuzzer is a C program, and there is no gcc", False),
        ("somebody's new reason", False),
    ],
)
def test_a_skip_is_let_pass_for_what_a_machine_lacks_only(monkeypatch, reason, passes):
    monkeypatch.delenv("SNOW_OWL_NOT_INSTALLABLE", raising=False)
    assert (why_let_pass(reason) is not None) == passes


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("curl", "curl is not installed: `make peers` installs it"),
        ("tftpd-hpa", "MISSING: in.tftpd (scripts/install-peers.sh brings it)"),
        (
            "bpftrace",
            "NOT TRACED: trace: bpftrace is not installed; apt-get install bpftrace (dnf, apk: the same name)",
        ),
    ],
)
def test_a_package_that_cannot_be_had_excuses_its_own_tests_only(monkeypatch, package, reason):
    others = " ".join(set(PACKAGES) - {package})
    monkeypatch.setenv("SNOW_OWL_NOT_INSTALLABLE", others)
    assert why_let_pass(reason) is None
    monkeypatch.setenv("SNOW_OWL_NOT_INSTALLABLE", f"{others} {package}")
    assert why_let_pass(reason) == package


NETWORKS = """
import os, time
import pytest

@pytest.mark.parametrize("number", range(4))
def test_network(number):
    with open({log!r}, "a") as log:
        log.write(os.readlink("/proc/thread-self/ns/net") + "\\n")
    time.sleep(0.3)
"""


def test_each_process_of_a_parallel_run_has_a_loopback_of_its_own(suite, tmp_path):
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here: all tests share the machine's")
    log = tmp_path / "log"
    suite.makepyfile(NETWORKS.format(log=str(log)))
    run(suite, "-n", "2").assert_outcomes(passed=4)
    networks = set(log.read_text(encoding="ascii").splitlines())
    assert len(networks) == 2
    assert str(Path("/proc/thread-self/ns/net").readlink()) not in networks


SKIPPING = """
import pytest

def test_for_a_reason_of_its_own():
    pytest.skip("somebody's new reason")

def test_without_fuse():
    pytest.skip("needs /dev/fuse")

@pytest.mark.skip(reason="somebody's mark")
def test_by_mark():
    pass

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one after the other", "-n 2"])
def test_a_skip_for_any_other_reason_fails_where_everything_is_required(suite, monkeypatch, processes):
    suite.makepyfile(SKIPPING)
    run(suite, *processes).assert_outcomes(skipped=3, xfailed=1)
    monkeypatch.setenv("SNOW_OWL_REQUIRE", "all")
    result = run(suite, *processes)
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(["*SNOW_OWL_REQUIRE=all*somebody's new reason*", "*SNOW_OWL_REQUIRE=all*mark*"])
    assert "skipped" in result.stdout.lines[-1]


def test_a_file_that_skips_itself_as_a_whole_fails_where_everything_is_required(suite, monkeypatch):
    suite.makepyfile("import pytest\npytest.importorskip('no_such_module_at_all', reason='somebody forgot it')")
    monkeypatch.setenv("SNOW_OWL_REQUIRE", "all")
    result = run(suite)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*SNOW_OWL_REQUIRE=all*somebody forgot it*"])


@pytest.fixture
def spare() -> Iterator[list[int]]:
    """A descriptor that somebody else holds."""
    held = [os.open("/", os.O_RDONLY)]
    yield held
    for fd in held:
        os.close(fd)


def test_a_descriptor_that_was_left_is_seen(spare):
    before = descriptors_at_rest()
    assert descriptors_at_rest() == before
    spare.append(os.open("/", os.O_RDONLY))
    assert descriptors_at_rest() != before


def test_somebody_elses_descriptor_that_was_closed_is_seen_also_where_another_took_its_number(spare):
    before = descriptors_at_rest()
    os.close(spare.pop())
    assert descriptors_at_rest() != before
    spare.append(os.open("/dev", os.O_RDONLY))
    assert descriptors_at_rest() != before


def test_a_descriptor_that_is_closed_a_little_later_was_not_left():
    before = descriptors_at_rest()
    threading.Timer(0.1, os.close, [os.open("/", os.O_RDONLY)]).start()
    assert descriptors_at_rest() == before


@pytest.mark.parametrize("sizes", [(4, 4, 2), (4, 2, 2), (3, 2), (2, 2, 2, 2)])
def test_each_value_meets_each_of_another_axis_by_default(sizes):
    chosen = covering(sizes)
    assert set().union(*map(met, chosen)) == set().union(*map(met, product(*map(range, sizes))))
    assert len(chosen) < prod(sizes) or len(sizes) == 2, "all of the product is no choice"


def test_the_rest_of_the_product_is_played_by_soak():
    cases = pairs("ab", [0, 1], [False, True])
    assert [case.values for case in cases] == list(product("ab", [0, 1], [False, True]))
    by_default = [case.values for case in cases if not case.marks]
    assert len(by_default) == len(covering([2, 2, 2])) < len(cases)
    assert {mark.name for case in cases for mark in case.marks} == {"soak"}
