"""Every shell command of README does what it says, its servers side by side, in a network of their own.

As it is written, but for where it runs: /tmp is a folder of the test, and .venv/bin that of this Python.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(sh|toml)\n(.*?)^```$", re.M | re.S)
NOT_HERE = ("-m venv ~", "/pip install", "~/snow-owl")
"""Installing has tests of its own, in test_packaging."""
STARTS_A_SERVER = re.compile(r"^(make run|\S*snow-owl-tftp serve .*)$", re.M)

RUN_IN_NETWORK = textwrap.dedent("""
    import fcntl, socket, struct, sys
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # SIOCSIFFLAGS, IFF_UP: lo begins down
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))
    sys.path.insert(0, sys.argv[1])
    from tests.client.test_readme_commands import run_all
    run_all(sys.argv[2])
""")


def steps():
    """(kind, text) of README's blocks in their order; a block that starts a server is cut before it."""
    for kind, text in BLOCK.findall((REPOSITORY / "README.md").read_text()):
        if kind == "toml":
            yield "uploads.toml", text
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if not any(mark in line for mark in NOT_HERE):
                yield "server" if STARTS_A_SERVER.match(line) else "command", line


def recipe_of_make_run():
    """What `make run` does when all is built."""
    # A make around this suite would have the inner one tell which folder it enters and leaves.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "-n", "run"]
    lines = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True).stdout
    return lines.splitlines()[-1]


def placed(line, folder):
    line = line.replace("make run", recipe_of_make_run()) if line == "make run" else line
    line = line.replace("/tmp/", f"{folder}/")  # first: the repository may lie there too
    return line.replace(".venv/bin/", f"{Path(sys.executable).parent}/").replace("examples/", f"{REPOSITORY}/examples/")


def run_all(folder):
    """Run within the network of its own."""
    with contextlib.ExitStack() as ending:
        for kind, text in steps():
            print(f"{kind}: {text}", flush=True)
            if kind == "server":
                start(placed(text, folder), folder, ending)
            elif kind == "command" and text.split()[0] not in missing():
                subprocess.run(["sh", "-ec", placed(text, folder)], cwd=folder, check=True, timeout=20)
            elif kind == "uploads.toml":
                (Path(folder) / kind).write_text(placed(text, folder))


def start(command, folder, ending):
    process = subprocess.Popen(["sh", "-c", f"exec {command}"], cwd=folder, stdout=subprocess.PIPE, text=True)
    ending.callback(process.wait)
    ending.callback(process.terminate)
    assert process.stdout.readline().startswith("listening on "), command


def missing():
    """The peers' programs that README uses and this machine lacks."""
    programs = {line.split()[0] for kind, line in steps() if kind == "command"}
    return sorted(name for name in programs if "/" not in name and not shutil.which(name))


def test_commands_of_readme(tmp_path):
    texts = [text for _, text in steps()]
    assert sum(kind == "server" for kind, _ in steps()) >= 3
    assert len(texts) >= 10
    unshare = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace may be made here")
    command = [*unshare, sys.executable, "-c", RUN_IN_NETWORK, str(REPOSITORY), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    example = (REPOSITORY / "examples/tftpboot/README.txt").read_bytes()
    for copy in ("README.txt", "tftp/backup/switch1.cfg", "tftp/backup/switch2.cfg"):
        assert (tmp_path / copy).read_bytes() == example
    if missing():
        pytest.skip(f"MISSING: {', '.join(missing())} (scripts/install-peers.sh brings them); all the rest works")
