"""scripts/: what can be said of them without running them for minutes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def test_bare_root_installs_what_the_readme_says_and_no_more() -> None:
    said = re.search(r"apt-get install ([^`]+)`", (REPOSITORY / "README.md").read_text())
    installed = re.search(r"PACKAGES=\(([^)]+)\)", (REPOSITORY / "scripts/bare-root.sh").read_text())
    assert said is not None
    assert installed is not None
    assert installed[1].split() == said[1].split()


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_script_can_be_read_and_started(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_bare_root_names_what_it_takes(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts/bare-root.sh"
    for arguments, said in ((["--as", "nobody"], "--as takes root, user or both"), (["--fast"], "unknown flag --fast")):
        ran = subprocess.run([script, *arguments], capture_output=True, text=True, check=False, timeout=20)
        assert ran.returncode == 2
        assert said in ran.stderr
