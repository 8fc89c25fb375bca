"""The examples run as they are written, and so does the Python of the documentation."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.uploads import make_root, serve_uploads

from snow_owl_tftp import get, put

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=REPOSITORY)


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / path).read_text(), re.M | re.S)


def test_client_example(tftp_server):
    tftp_server.files["x"] = bytes(5000)
    done = run(sys.executable, str(EXAMPLES / "client.py"), tftp_server.url("x"))
    assert "10 copies of 5000 bytes" in done.stdout
    assert "ERROR 1" in done.stdout


@contextlib.contextmanager
def dynamic_server(*arguments):
    command = [sys.executable, str(EXAMPLES / "dynamic_server.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout
        finally:
            process.terminate()


def test_dynamic_server_example():
    """Twice at once, and beside whatever else: the default port is a free one."""
    with dynamic_server() as lines, dynamic_server() as others:
        url, other_url = lines.readline().strip(), others.readline().strip()
        assert url != other_url
        for each in (url, other_url):
            assert get(each) == b"kernel vmlinuz\nappend host=127.0.0.1\n"
        assert get(url.replace("boot.cfg", "numbers")).endswith(b"99999\n")
        assert get(url.replace("boot.cfg", "README.txt")) == (EXAMPLES / "tftpboot/README.txt").read_bytes()
        put(url.replace("boot.cfg", "switch.cfg"), b"hostname x\n")
        assert lines.readline() == "127.0.0.1 sent 11 bytes as switch.cfg\n"


def test_dynamic_server_example_with_arguments(tmp_path):
    (tmp_path / "x").write_bytes(b"mine")
    with dynamic_server("[::1]:0", str(tmp_path)) as lines:
        url = lines.readline().strip()
        assert url.startswith("tftp://[::1]:")
        assert get(url.replace("boot.cfg", "x")) == b"mine"


def test_put_and_fsspec_example(tmp_path):
    root = make_root(tmp_path)
    with serve_uploads(root) as server:
        url = f"tftp://127.0.0.1:{server.address[1]}/up/switch.cfg"
        done = run(sys.executable, str(EXAMPLES / "put_and_fsspec.py"), url)
    assert done.stdout.splitlines() == [
        "stored 17 bytes in 1 block(s)",
        "the server says 17 bytes",
        "hostname switch1",
        "out of ideas: still 17 bytes there",
        "hostname switch2",
    ]
    assert (root / "up/switch.cfg").read_bytes() == b"hostname switch2\n"


def test_python_in_readme(tftp_server):
    tftp_server.files["README.txt"] = bytes(777)
    (block,) = python_blocks("README.md")
    url = "tftp://127.0.0.1:6969/README.txt"
    assert block.count(url) == 1
    done = run(sys.executable, "-W", "error", "-c", block.replace(url, tftp_server.url("README.txt")))
    size = (EXAMPLES / "tftpboot/pxelinux.cfg/default").stat().st_size
    assert done.stdout == f"777\nb'hostname 127.0.0.1\\n' {size}\n"
    assert done.stderr == ""


LIBRARY_BLOCKS = python_blocks("docs/library.md")
SAYS = {
    "with Server(root=": (r"\d+\n", ""),
    'bind="127.0.0.1:0", root="examples/tftpboot"': (r"tftp://127\.0\.0\.1:\d+/README\.txt \d+\n", ""),
    "request.client": (r"hostname 127\.0\.0\.1\n\d+\n", ""),
    "write=store": (r"\{'backup/switch1\.cfg': b'hostname switch1\\n'\}\n", ""),
    "server.counts()": (r"1 \{'file_not_found': 1\}\n", ""),
    "on_complete=": (r"vmlinuz ok 6\n", r"transfer completed peer=127\.0\.0\.1:\d+ file=vmlinuz bytes=6 .*\n"),
}
"""What a block holds, and what it prints to standard output and standard error."""


@pytest.mark.parametrize("mark", SAYS)
def test_python_in_library_guide(mark):
    (block,) = [block for block in LIBRARY_BLOCKS if mark in block]
    done = run(sys.executable, "-W", "error", "-c", block)
    assert re.fullmatch(SAYS[mark][0], done.stdout)
    # Whoever is not root may be granted smaller buffers, and is told so.
    lines = [line for line in done.stderr.splitlines(keepends=True) if "socket buffer smaller than asked" not in line]
    assert re.fullmatch(SAYS[mark][1], "".join(lines))


def test_fixture_in_library_guide(tmp_path):
    (block,) = [block for block in LIBRARY_BLOCKS if "def test_" in block]
    (tmp_path / "test_guide.py").write_text(block)
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error", "--rootdir", str(tmp_path))
    done = run(sys.executable, "-m", "pytest", *options, str(tmp_path / "test_guide.py"))
    assert "1 passed" in done.stdout


def test_every_block_of_the_library_guide_is_run():
    assert len(LIBRARY_BLOCKS) == len(SAYS) + 1
