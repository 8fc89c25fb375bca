"""What a user named on the command line and is not there: one line that names it, a status, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

NOWHERE = "tftp://127.0.0.1:9/x"


def made(folder: Path) -> None:
    (folder / "file").write_text("")
    for name, line in {
        "log": 'file = "{0}/none/log"',
        "audit": 'audit_enabled = true\naudit_file = "{0}/none/log"',
    }.items():
        text = f'root_dir = "{folder}"\nbind_addr = "127.0.0.1:0"\n[logging]\n{line.format(folder)}\n'
        (folder / f"{name}.toml").write_text(text)
    writes = 'root_dir = "{0}"\nbind_addr = "127.0.0.1:0"\n[write_config]\nenabled = true\non_upload = ["{0}/none"]\n'
    (folder / "hook.toml").write_text(writes.format(folder))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("serve", "{0}/none", "--bind", "127.0.0.1:0"), "{0}/none"),
        (("serve", "{0}/file", "--bind", "127.0.0.1:0"), "{0}/file"),
        (("serve", "--config", "{0}/none"), "{0}/none"),
        (("serve", "--config", "{0}"), "{0}"),
        (("serve", "--config", "{0}/log.toml"), "{0}/none/log"),
        (("serve", "--config", "{0}/audit.toml"), "{0}/none/log"),
        (("serve", "--config", "{0}/hook.toml"), "{0}/none"),
        (("put", "{0}/none", NOWHERE), "{0}/none"),
        (("put", "{0}", NOWHERE), "{0}"),
        (("get", NOWHERE, "-o", "{0}/none/x"), "{0}/none/x"),
        (("get", NOWHERE, "-o", "{0}/file/x"), "{0}/file/x"),
        (("bench", "--servers", "ours", "--output", "{0}/file"), "{0}/file"),
        (("trace", "--", "{0}/none"), "trace: "),  # or why nothing can be traced here
        (("trace", "--pid", "4194304"), "trace: "),
        (("trace", "--unit", "no-such.service"), "trace: "),
    ],
)
def test_what_is_not_there_is_named_in_one_line(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    made(tmp_path)
    command = [sys.executable, "-m", "snow_owl_tftp", *(argument.format(tmp_path) for argument in arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, stdin=subprocess.DEVNULL)
    assert ran.returncode in (1, 2), ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith("snow-owl-tftp: ")
    assert named.format(tmp_path) in ran.stderr
    assert ran.stdout == ""
