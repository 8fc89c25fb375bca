"""The examples run as they are written."""

import subprocess
import sys
from pathlib import Path

from snow_owl_tftp import get

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


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
