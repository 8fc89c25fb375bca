"""A disk, or a quota, that is full at a step of an upload: ERROR 3, nothing visible is left, what was there stays, and
when there is room again the next upload works."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.test_uploads import begin, expect_error, refused
from tests.support.client import Client
from tests.support.server import wait_for
from tests.support.uploads import files_below, make_root, serve_uploads

from snow_owl_tftp.content.store import reception, staging
from snow_owl_tftp.linux import unnamed
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Ack, build_data

NO_ROOM = [errno.ENOSPC, errno.EDQUOT]
Hit = Callable[[], int]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_root(tmp_path)
    (root / "up/x").write_bytes(b"old")
    return root


def fails(where: Any, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> Hit:
    """Let a call fail with an errno; return what counts how often it did."""
    calls = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(name)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(where, name, fail)
    return lambda: len(calls)


WHERE: dict[str, tuple[Any, str]] = {
    "the file is made": (reception, "StagedFile"),
    "fchmod": (os, "fchmod"),
    "fsync": (os, "fsync"),
    "link": (os, "link"),
    "rename": (os, "rename"),
}
WAYS = ("unnamed", "hidden name", "hidden name, no renameat2")
"""To hold a file that nobody may see yet."""
CASES = [
    *(
        (step, way, name)
        for step in ("the file is made", "fchmod", "fsync")
        for way in WAYS[:2]
        for name in ("x", "new")
    ),
    *(("link", way, name) for way, name in ((WAYS[0], "x"), (WAYS[0], "new"), (WAYS[2], "new"))),
    *(("rename", way, "x") for way in WAYS[:2]),
]
"""Steps that there are: "x" is replaced, "new" is made."""


@pytest.mark.parametrize("number", NO_ROOM)
@pytest.mark.parametrize(("step", "way", "name"), CASES)
def test_no_room_at_a_step_is_error_3_and_leaves_everything_as_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str, way: str, name: str, number: int
) -> None:
    content = os.urandom(3000)
    if way != "unnamed":
        monkeypatch.setattr(staging, "open_unnamed", lambda *_, **__: -1)
    if way.endswith("no renameat2"):
        monkeypatch.setattr(unnamed, "_renameat2", None)
    with serve_uploads(root) as server, Client(server.address) as client:
        with monkeypatch.context() as patch:
            hits = fails(*WHERE[step], number, patch)
            error = refused(lambda: client.put(f"up/{name}", content))
            assert error.code == ErrorCode.DISK_FULL
            assert hits() > 0
            wait_for(lambda: f"error={number}" in server.log, "the failure in the log")
            wait_for(lambda: list((root / "up").iterdir()) == [root / "up/x"], "hidden files to go")
        assert files_below(root) == {"up/x": b"old"}
        client.put(f"up/{name}", content)
        assert (root / "up" / name).read_bytes() == content
    assert "Traceback" not in server.log


def test_directory_that_cannot_be_made_is_error_3_and_the_next_upload_makes_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_uploads(root, create_directories=True) as server, Client(server.address) as client:
        with monkeypatch.context() as patch:
            fails(os, "mkdir", errno.ENOSPC, patch)
            assert refused(lambda: client.put("up/a/b", b"all")).code == ErrorCode.DISK_FULL
        assert files_below(root) == {"up/x": b"old"}
        client.put("up/a/b", b"all")
    assert files_below(root) == {"up/x": b"old", "up/a/b": b"all"}


# ---- a real one


@pytest.fixture(params=["blocks", "inodes"])
def small_disk(root: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    """At up: 256 KiB, or eight inodes, of which one is the directory's own."""
    size = "size=256k" if request.param == "blocks" else "size=10m,nr_inodes=8"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(root / "up")]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("CANNOT MOUNT a tmpfs: what a full disk does is NOT tested on this machine")
    yield root / "up", request.param
    subprocess.run(["umount", "-l", str(root / "up")], check=True)


def test_disk_that_fills_up_in_mid_upload_takes_the_next_one_when_it_has_room(
    root: Path, small_disk: tuple[Path, str]
) -> None:
    disk, kind = small_disk
    (disk / "x").write_bytes(b"old")
    ballast = [disk / f"ballast-{number}" for number in range(6)]
    content = os.urandom(150_000)

    def fill() -> None:
        if kind == "blocks":
            ballast[0].write_bytes(bytes(200_000))
        else:
            for path in ballast:
                path.touch()

    with serve_uploads(root) as server, Client(server.address) as client:
        if kind == "inodes":
            fill()
        peer = begin(client, "up/x", blksize=1428)
        if kind == "blocks":
            client.send(build_data(1, content[:1428]), peer)
            assert client.receive_packet()[0] == Ack(1)
            fill()
        for block in range(1 + (kind == "blocks"), 105):
            client.send(build_data(block, content[(block - 1) * 1428 : block * 1428]), peer)
        expect_error(client, ErrorCode.DISK_FULL)
        wait_for(lambda: f"error={errno.ENOSPC}" in server.log, "the failure in the log")
        assert (disk / "x").read_bytes() == b"old"
        for path in ballast:
            path.unlink(missing_ok=True)
        with Client(server.address) as again:
            again.put("up/x", content, options={"blksize": 1428})
    assert files_below(root) == {"up/x": content}
