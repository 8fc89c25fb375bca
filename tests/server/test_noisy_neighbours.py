"""Good clients beside an attacker: nobody fails, nobody waits for seconds, and the server still ends when told to.

`benchmarks/noisy.py` measures; here the bars are those that hold on a busy machine too. All attacks run with `-m soak`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.attacks import ATTACKS

HOME = Path(__file__).resolve().parent.parent.parent
QUICK = ("stuck-log-reader", "many-files", "silent-uploads")
SECONDS = 1.0
MAX_WAIT_S = 3.0
"""Far above what a busy machine adds, far below what a server that waits for something makes of it."""


def can_mount() -> str:
    """Why no namespace can be had here; empty: one can."""
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse here"
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    done = subprocess.run(["unshare", *flags, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip()


@pytest.mark.alone("the attacker takes what the machine has")
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.soak, id=name) for name in ATTACKS]
)
def test_good_clients_do_not_feel(name, tmp_path):
    if ATTACKS[name].ill and (reason := can_mount()):
        pytest.skip(f"no file system can be made ill: {reason}")
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(HOME / "benchmarks" / "noisy.py"), "--seconds", str(SECONDS), "--json", str(figures)]
    done = subprocess.run([*command, name], cwd=HOME, capture_output=True, text=True, timeout=170, check=False)
    assert figures.exists(), done.stderr
    (result,) = json.loads(figures.read_text())
    for when in ("before", "during", "after"):
        assert result[when]["failed"] == 0, (when, done.stderr)
        assert result[when]["transfers"] > 50, when
    assert result["rate"] >= ATTACKS[name].rate / 20, "the attack took place"
    assert result["during"]["p99_s"] < result["before"]["p99_s"] + MAX_WAIT_S
    assert result["ended_after_s"] is not None, "ends by SIGTERM"
    assert result["ended_after_s"] < 4 + MAX_WAIT_S, "drain_timeout_s = 2, and two more"
