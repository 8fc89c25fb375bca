"""The examples run as they are written, README's among them."""

import re
import subprocess
import sys
from pathlib import Path

from tests.server.upload_support import make_root, serve_uploads

from snow_owl_tftp import get

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"


def test_client_example(tftp_server):
    tftp_server.files["x"] = bytes(5000)
    command = [sys.executable, str(EXAMPLES / "client.py"), tftp_server.url("x")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "10 copies of 5000 bytes" in done.stdout
    assert "ERROR 1" in done.stdout


def test_dynamic_server_example():
    command = [sys.executable, str(EXAMPLES / "dynamic_server.py"), "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert get(url) == b"kernel vmlinuz\nappend host=127.0.0.1\n"
            assert get(url.replace("boot.cfg", "numbers")).endswith(b"99999\n")
        finally:
            process.terminate()


def test_put_and_fsspec_example(tmp_path):
    root = make_root(tmp_path)
    with serve_uploads(root) as server:
        url = f"tftp://127.0.0.1:{server.address[1]}/up/switch.cfg"
        command = [sys.executable, str(EXAMPLES / "put_and_fsspec.py"), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
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
    (block,) = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "README.md").read_text(), re.M | re.S)
    url = "tftp://127.0.0.1:6969/README.txt"
    assert block.count(url) == 1
    code = block.replace(url, tftp_server.url("README.txt"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "777\nb'hostname 127.0.0.1\\n'\n"
    assert done.stderr == ""
