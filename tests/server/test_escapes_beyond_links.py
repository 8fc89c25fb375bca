"""What leads out of a root and is no link: what is mounted below it, and second names of files that lie outside."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.server.test_escapes_through_all import UPLOADED, Stage, read_all, write_all
from tests.support.bare_client import BareClient
from tests.support.escape_corpus import CORPUS
from tests.support.escape_scene import make_scene, serve_scene
from tests.support.fuse import own_mounts
from tests.support.witness import untouched


@own_mounts
def test_what_is_mounted_below_the_root_is_inside_and_leads_nobody_out(tmp_path: Path) -> None:
    """Whoever mounts has chosen; `..` and links of what is mounted lead no further than those of a directory there."""
    scene = make_scene(tmp_path)
    mounted = tmp_path / "mounted"
    shutil.copytree(scene.root / "by/good", mounted, symlinks=True, copy_function=shutil.copy2, ignore=_no_pipes)
    for name in ("mnt", "by/mnt"):
        (scene.root / name).mkdir()
        subprocess.run(["mount", "--bind", mounted, scene.root / name], check=True)
    (scene.root / "bound").touch()
    subprocess.run(["mount", "--bind", mounted / "file", scene.root / "bound"], check=True)
    tricks = [b"mnt/" + name for kind in ("links", "dot-dot", "proc") for name in CORPUS[kind]]
    with serve_scene(scene) as server, untouched(*scene.outside):
        stage = Stage(scene, server)
        with stage.client("127.0.7.1") as client:
            for name in (b"mnt/file", b"bound", b"MNT/File", b"by/mnt/Loop/file"):
                assert client.read(name).payload == b"inside by/good/file"
        read_all(
            stage, "127.0.7.1", [*stage.names(tricks), b"mnt/..", b"mnt/../../outside/secret", b"bound/../../secret"]
        )
        write_all(stage, "127.0.7.1", [*stage.names(tricks[:20]), b"mnt/Out/new", b"bound/new"])
        stage.check()


def _no_pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("fifo", "socket")]


@pytest.mark.parametrize("on_existing", ["replace", "version", "refuse"])
def test_upload_to_a_second_name_of_a_file_outside_leaves_that_file_alone(tmp_path: Path, on_existing: str) -> None:
    """A hard link below the root is a file below the root, which the kernel cannot tell; an upload makes a new one."""
    scene = make_scene(tmp_path, on_existing=on_existing)
    outside, inside = tmp_path / "outside/x", scene.root / "hard"
    os.link(outside, inside)
    inside.chmod(0o666)
    before = (outside.read_bytes(), outside.stat().st_mtime_ns, outside.stat().st_ino)
    with serve_scene(scene) as server, BareClient(server.address, "127.0.7.1") as client:
        answer = client.write(b"hard", UPLOADED)
        assert answer.code == (6 if on_existing == "refuse" else None), answer.text
        assert client.write(b"hard/new", UPLOADED).code in (1, 2)
        assert "Traceback" not in server.log
    assert (outside.read_bytes(), outside.stat().st_mtime_ns, outside.stat().st_ino) == before
    if on_existing != "refuse":
        assert inside.read_bytes() == UPLOADED
        assert inside.stat().st_ino != outside.stat().st_ino
