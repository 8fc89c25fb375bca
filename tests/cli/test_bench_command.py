"""`snow-owl-tftp bench` as a user calls it, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snow_owl_tftp", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)


def test_report_results_and_progress(tmp_path: Path) -> None:
    ran = bench(
        *("--servers", "ours", "--clients", "5", "--transfers", "10", "--file-size", "10KiB"),
        *("--rounds", "1", "--no-sweeps", "--output", str(tmp_path / "out")),
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(tmp_path / "out/report.md")
    said = (tmp_path / "out/report.md").read_text()
    for name in ("ours", "ours, no GSO", "ours, no batching"):
        assert f"| {name} | " in said
    assert "no figure" not in said
    written = json.loads((tmp_path / "out/results.json").read_text())
    timed = [run for run in written["runs"] if run["trace"] is None]
    assert len(timed) == 3
    assert all(run["load"]["blocks"] == 10 * 21 and run["blocks_per_s"] > 0 for run in timed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--servers", "iis"), "unknown server iis; known are ours"),
        (("--file-size", "ten"), "expected a size such as 102400, 100KiB or 10MiB"),
        (("--blksize", "7"), "8<=x<=65464"),
        (("--loss", "90"), "0<=x<=50"),
        (("--profile", "other"), "recvmmsg"),
    ],
)
def test_wrong_flag_is_one_line_and_status_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = bench(*arguments, "--output", str(tmp_path / "out"))
    assert ran.returncode == 2
    assert said in ran.stderr
    assert not (tmp_path / "out").exists()
