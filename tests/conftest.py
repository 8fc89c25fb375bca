"""What every test stands on: which build is under test, and one seed for everything random.

May know: pytest, Hypothesis and where the builds lie. Must not: import the package, so that collecting works, and says
what is wrong, while the engine does not build.
Invariants: a run says its seed first, and SNOW_OWL_SEED=N repeats it; a run that names a build (SNOW_OWL_BUILD) tests
that build or does not start: a suite that silently tested the release build would prove nothing about the other.
SNOW_OWL_TEST_FLOWS=on or off gives every server and engine of the fixtures flows, or none, unless the test itself says
which; without it servers have them and engines have none.
"""

import gc
import importlib.util
import os
import random
import resource
import signal
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE_PARENTS = {
    "release": REPOSITORY / "src",
    "debug": REPOSITORY / "build/debug/lib",
    "sanitize": REPOSITORY / "build/sanitize/lib",
}
pytest_plugins = ["tests.support.alone", "tests.support.own_network", "tests.support.required"]
# A constant, so that two runs of one commit test the same.
SEED = int(os.environ.get("SNOW_OWL_SEED", "20260101"))
DESCRIPTORS = 16_384
FLOWS_CHOICES = {"on": True, "off": False}
FLOWS = FLOWS_CHOICES.get(os.environ.get("SNOW_OWL_TEST_FLOWS", ""))
# By name: what they look at is there with flows only, or without them only.
ABOUT_FLOWS = {
    "off": {
        "test_engine_counts_by_the_new_settings",
        "test_flows_answer_what_was_decided_before",
    },
    "on": set[str](),
}

# Deadlines measure the machine, not the code: two busy cores and ASan would make them flake.
hypothesis.settings.register_profile("snow-owl", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("snow-owl")


def package_parent() -> Path | None:
    """Returns the folder that `import snow_owl_tftp` would take the package from."""
    spec = importlib.util.find_spec("snow_owl_tftp")
    return Path(spec.origin).resolve().parents[1] if spec and spec.origin else None


def pytest_configure(config: pytest.Config) -> None:
    _raise_descriptor_limit()
    # What a script starts with & ignores Ctrl-C, and what nohup starts a hangup; so would every program that a test
    # starts, to interrupt it.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    flows = os.environ.get("SNOW_OWL_TEST_FLOWS")
    if flows not in (None, *FLOWS_CHOICES):
        raise pytest.UsageError(f"SNOW_OWL_TEST_FLOWS={flows!r}: expected one of {', '.join(FLOWS_CHOICES)}")
    build = os.environ.get("SNOW_OWL_BUILD")
    if build is None:
        return
    if build not in PACKAGE_PARENTS:
        raise pytest.UsageError(f"SNOW_OWL_BUILD={build!r}: expected one of {', '.join(PACKAGE_PARENTS)}")
    if package_parent() != PACKAGE_PARENTS[build]:
        raise pytest.UsageError(f"SNOW_OWL_BUILD={build}, but snow_owl_tftp would be imported from {package_parent()}")


def _raise_descriptor_limit() -> None:
    """A login shell's limit of 1024 is too low for tests with a socket for each of a thousand clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def pytest_report_header(config: pytest.Config) -> list[str]:
    flows = os.environ.get("SNOW_OWL_TEST_FLOWS", "as each fixture has them")
    return [f"snow_owl_tftp: {package_parent()}", f"SNOW_OWL_SEED={SEED}", f"flows: {flows}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    flows = os.environ.get("SNOW_OWL_TEST_FLOWS", "")
    skip = pytest.mark.skip(reason=f"about flows themselves; SNOW_OWL_TEST_FLOWS={flows}")
    for item in items:
        if getattr(item, "originalname", item.name) in ABOUT_FLOWS.get(flows, ()):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Thousands of tests and their modules stay to the end: no look for garbage has to go through them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A generator of this test's own: what it yields depends on the seed and the test, never on the order of tests."""
    return random.Random(f"{SEED}:{request.node.nodeid}")
