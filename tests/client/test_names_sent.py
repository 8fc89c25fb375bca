"""The name in the request is the one that the user meant, byte by byte."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from snow_owl_tftp import Client
from snow_owl_tftp.errors import TransferRefused
from snow_owl_tftp.protocol.packets import build_error


@contextmanager
def refusing_server():
    """Yields its port, and the names it was asked for."""
    names = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve():
            while (asked := sock.recvfrom(2000))[0] != b"stop":
                names.append(asked[0][2:].split(b"\0")[0])
                sock.sendto(build_error(1, "no"), asked[1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield sock.getsockname()[1], names
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"stop", sock.getsockname())
            thread.join(5)


def run(*arguments, **more):
    command = [sys.executable, "-m", "snow_owl_tftp", *arguments]
    return subprocess.run(command, capture_output=True, timeout=30, check=False, **more)


PATHS = [
    (rb"boot\x64\wdsnbp.com", rb"boot\x64\wdsnbp.com", "wdsnbp.com"),
    (rb"boot%5Cx64%5Cwdsnbp.com", rb"boot\x64\wdsnbp.com", "wdsnbp.com"),
    (rb"%5CBoot%5CBCD", rb"\Boot\BCD", "BCD"),
    (b"firmw%E4re.bin", b"firmw\xe4re.bin", os.fsdecode(b"firmw\xe4re.bin")),
    (b"firmw\xe4re.bin", b"firmw\xe4re.bin", os.fsdecode(b"firmw\xe4re.bin")),
    ("firmwäre.bin".encode(), "firmwäre.bin".encode(), "firmwäre.bin"),
    (b"cfg?mac=00:11#1", b"cfg?mac=00:11#1", "cfg?mac=00:11#1"),
    (b"/pxelinux.0", b"/pxelinux.0", "pxelinux.0"),
    (b"100%", b"100%", "100%"),
    (b"a%3Bb%2541", b"a;b%41", "a;b%41"),
]


@pytest.mark.parametrize(("path", "sent", "local"), PATHS)
def test_get_asks_for_the_name_of_the_url(tmp_path, path, sent, local):
    with refusing_server() as (port, names):
        done = run("get", b"tftp://127.0.0.1:%d/%s" % (port, path), "--json", cwd=tmp_path)
    assert names == [sent]
    assert done.returncode == 3
    assert b"refused by the server" in done.stderr
    assert f'"file": {json.dumps(local)}'.encode() in done.stdout


@pytest.mark.parametrize("name", [b"100%25.bin", b"a;mode=x", b"back\\slash", b"latin-\xe4", b"a b"])
def test_put_into_a_folder_sends_the_name_of_the_file(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_bytes(b"content")
    with refusing_server() as (port, names):
        assert run("put", name, f"tftp://127.0.0.1:{port}/up/", cwd=tmp_path).returncode == 3
    assert names == [b"up/" + name]


def test_name_of_the_library_is_sent_as_it_is():
    with refusing_server() as (port, names), Client("127.0.0.1", port) as client:
        for name in (b"latin-\xe4", b"100%25", b"a?b#c;d\\e"):
            with pytest.raises(TransferRefused):
                client.get(os.fsdecode(name))
    assert names == [b"latin-\xe4", b"100%25", b"a?b#c;d\\e"]
