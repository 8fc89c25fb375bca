"""Clients as they come: each puts a file, and reads the truth when it cannot."""

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.server import Address, ServerProcess
from tests.support.uploads import files_below, make_root, serve_uploads_command

SIZES = [0, 1, 511, 512, 513, 1428 * 16, 300_000]

Put = Callable[[Path, str, Address], Sequence[str]]


def curl(local: Path, remote: str, server: Address) -> Sequence[str]:
    return ["curl", "-sS", "-T", str(local), f"tftp://{server[0]}:{server[1]}/{remote}"]


def curl_blksize(local: Path, remote: str, server: Address) -> Sequence[str]:
    return [*curl(local, remote, server), "--tftp-blksize", "1428"]


def hpa(local: Path, remote: str, server: Address) -> Sequence[str]:
    return ["tftp", "-m", "binary", server[0], str(server[1]), "-c", "put", str(local), remote]


def hpa_netascii(local: Path, remote: str, server: Address) -> Sequence[str]:
    return ["tftp", "-m", "ascii", server[0], str(server[1]), "-c", "put", str(local), remote]


def atftp(local: Path, remote: str, server: Address) -> Sequence[str]:
    return ["atftp", "--put", "-l", str(local), "-r", remote, server[0], str(server[1])]


def atftp_window(local: Path, remote: str, server: Address) -> Sequence[str]:
    return ["atftp", "--option", "blksize 1428", "--option", "windowsize 16", *atftp(local, remote, server)[1:]]


def busybox(local: Path, remote: str, server: Address) -> Sequence[str]:
    return ["busybox", "tftp", "-p", "-l", str(local), "-r", remote, server[0], str(server[1])]


def busybox_blksize(local: Path, remote: str, server: Address) -> Sequence[str]:
    return ["busybox", "tftp", "-p", "-b", "1428", "-l", str(local), "-r", remote, server[0], str(server[1])]


BINARY: list[Put] = [curl, curl_blksize, hpa, atftp, atftp_window, busybox, busybox_blksize]


def run(command: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: `make peers`")
    return subprocess.run(command, check=False, capture_output=True, timeout=30, input=stdin)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ServerProcess]:
    with serve_uploads_command(root) as server:
        yield server


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("put", BINARY)
def test_client_stores_a_file(server: ServerProcess, root: Path, tmp_path: Path, put: Put, size: int) -> None:
    local = tmp_path / "local"
    local.write_bytes(random.Random(size).randbytes(size))
    name = f"up/{put.__name__}-{size}"
    done = run(put(local, name, server.address))
    assert done.returncode == 0, done.stderr
    assert (root / name).read_bytes() == local.read_bytes()


def test_windowsize_of_atftp_is_granted(server: ServerProcess, root: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(100_000))
    program, *arguments = atftp_window(local, "up/window", server.address)
    done = run([program, "--trace", "--verbose", *arguments])
    assert (root / "up/window").stat().st_size == 100_000
    assert b"windowsize: 16" in done.stdout + done.stderr


@pytest.mark.parametrize("text", [b"", b"one\ntwo\n", b"no end", b"carriage\rreturn\r\n" * 3000])
def test_netascii_of_tftp_hpa_comes_back_as_it_was(
    server: ServerProcess, root: Path, tmp_path: Path, text: bytes
) -> None:
    local = tmp_path / "local"
    local.write_bytes(text)
    run(hpa_netascii(local, "up/text", server.address))
    assert (root / "up/text").read_bytes() == text


def test_curl_from_a_pipe_announces_zero_and_stores_all(server: ServerProcess, root: Path) -> None:
    run(["curl", "-sS", "-T", "-", f"tftp://{server.address[0]}:{server.address[1]}/up/pipe"], b"p" * 5000)
    assert (root / "up/pipe").read_bytes() == b"p" * 5000


@pytest.mark.parametrize(
    ("put", "says"),
    [(curl, b"(69)"), (hpa, b"Error code 2"), (atftp, b"not allowed"), (busybox, b"not allowed")],
)
def test_client_shows_why_it_was_refused(server: ServerProcess, tmp_path: Path, put: Put, says: bytes) -> None:
    """(69) is curl's CURLE_TFTP_PERM; tftp-hpa shows the code even where its exit status does not."""
    local = tmp_path / "local"
    local.write_bytes(b"x")
    done = run(put(local, "elsewhere", server.address))
    assert says in done.stdout + done.stderr


@pytest.mark.parametrize("put", [curl, hpa, atftp_window, busybox])
def test_client_is_told_that_the_disk_is_full(tmp_path: Path, put: Put) -> None:
    root = make_root(tmp_path)
    local = tmp_path / "local"
    local.write_bytes(bytes(400_000))
    with serve_uploads_command(root, "max_total_bytes = 100_000") as server:
        done = run(put(local, "up/x", server.address))
    assert done.returncode or b"Error code 3" in done.stdout + done.stderr
    assert files_below(root) == {}
