"""Which skips are let pass: with SNOW_OWL_REQUIRE=all a test that was skipped for anything else has failed.

May know: the reasons that tests skip with. Must not: find out itself what a machine can do; the tests do that.
Invariants: every reason is named here and nowhere else: as a machine's missing ability, as a program that somebody
else must install, or as a choice of the suite. What a checkout installs by itself (constraints.txt, install-peers.sh)
is required, unless SNOW_OWL_NOT_INSTALLABLE names the package: `.ci/run` names what the script could not get.
"""

import os
import re
from collections.abc import Generator

import pytest

REQUIRE = ("", "all")

# What a machine, its kernel or its container may lack. Each value is searched for in the reason of a skip.
ABILITIES = {
    "root": r"needs root|NOT ROOT|wants to be root|only root may|shown to root only|only root can|takes? root",
    "mounting": r"CANNOT MOUNT|needs a mount namespace",
    "FUSE": r"needs /dev/fuse|cannot mount FUSE|no file system can be made ill",
    "network namespaces": r"no network namespaces? (here|may be made here)",
    "time namespaces": r"no time namespaces here",
    "extended attributes": r"CANNOT SET ",
    "openat2": r"no openat2",
    "IPv6": r"no IPv6 loopback",
    "a cgroup that evicts, a slow disk": r"no slow disk or no cgroup that evicts",
    "eviction of pages": r"MADV_PAGEOUT drops nothing here",
    "a second file system": r"no second file system|/dev/shm",
    "a file system that remembers missing names": r"tmpfs remembers no missing names|on no local file system",
    "eBPF": r"NOT TRACED: (?!.*bpftrace is not installed)",
    "files of the kernel": r"MISSING: /(proc|sys)/",
    "a server that may start": r"does not run here: .*(not permitted|[Pp]ermission denied|capabilit)",
}

# Skipped because somebody wanted it so.
CHOICES = {
    "which suite has flows": r"about flows themselves",
    "parameters that do not go together": r"takes uploads$|tells the right tsize; ",
    "which build can do it": r"under ASan's runtime: release and debug run it|debug and sanitize run it",
}

# Programs that no script of the checkout installs for its tests (`make peers-all` is for benchmarks).
OTHERS = {"servers for benchmarks": r"NOT STARTED: (?!(tftpd-hpa|atftpd|dnsmasq) )"}

# The packages of scripts/install-peers.sh, and how tests call what is in them.
PACKAGES = {
    "atftp": r"\batftp\b",
    "tftp-hpa": r"\btftp\b",
    "dnsmasq-base": r"\bdnsmasq\b",
    "busybox": r"\bbusybox\b",
    "curl": r"\bcurl\b",
    "bpftrace": r"\bbpftrace\b",
    "iproute2": r"\bip\b",
    "tftpd-hpa": r"\b(in\.tftpd|tftpd-hpa)\b",
    "atftpd": r"\batftpd\b",
}


def not_installable() -> dict[str, str]:
    """The packages that this machine could not get; `gcc` and what else is not a peer is never excused."""
    named = os.environ.get("SNOW_OWL_NOT_INSTALLABLE", "").split()
    return {name: PACKAGES[name] for name in named if name in PACKAGES}


def why_let_pass(reason: str) -> str | None:
    """Returns the name under which this reason of a skip is let pass, or None."""
    known = ABILITIES | CHOICES | OTHERS | not_installable()
    return next((name for name, pattern in known.items() if re.search(pattern, reason)), None)


def must_pass(reason: str) -> bool:
    return os.environ.get("SNOW_OWL_REQUIRE") == "all" and why_let_pass(reason) is None


def pytest_configure(config: pytest.Config) -> None:
    if (require := os.environ.get("SNOW_OWL_REQUIRE", "")) not in REQUIRE:
        raise pytest.UsageError(f"SNOW_OWL_REQUIRE={require!r}: expected all, or nothing")


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    """What was skipped, and may not be, has failed."""
    if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if must_pass(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped, and SNOW_OWL_REQUIRE=all (tests/support/required.py names what may be): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that skips itself as a whole (importorskip) is never a test."""
    report = yield
    _fail(report)
    return report
