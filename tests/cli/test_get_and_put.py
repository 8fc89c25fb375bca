"""`get` and `put` as a user types them."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
from tests.support.fake_server import Talk, fake_server
from tests.support.server import wait_for
from tests.support.uploads import serve_uploads

CONTENT = os.urandom(100_001)


def run(*arguments, **popen):
    return subprocess.run(
        [sys.executable, "-m", "snow_owl_tftp", *map(str, arguments)],
        capture_output=True,
        timeout=30,
        check=False,
        **popen,
    )


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "root"
    (root / "up").mkdir(parents=True)
    (root / "file").write_bytes(CONTENT)
    (root / "other").write_bytes(b"other")
    with serve_uploads(root) as server:
        yield server


def url(server, name):
    return f"tftp://127.0.0.1:{server.address[1]}/{name}"


def test_get_names_the_file_as_the_url_and_is_silent_in_a_pipe(server, tmp_path):
    done = run("get", url(server, "file"), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_get_several_into_a_folder(server, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    done = run("get", url(server, "file"), url(server, "other"), "-o", folder)
    assert done.returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"file": CONTENT, "other": b"other"}


@pytest.mark.parametrize("names", [["file"], ["file", "other"]])
@pytest.mark.parametrize("folder", ["new/", "a/b/", "there/", "there"])
def test_get_into_a_folder_that_need_not_be_there(server, tmp_path, names, folder):
    (tmp_path / "there").mkdir()
    done = run("get", *[url(server, name) for name in names], "-o", folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    assert (tmp_path / folder / "file").read_bytes() == CONTENT


def test_get_that_fails_leaves_no_folder_of_its_making(server, tmp_path):
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.iterdir())
    for folder in ("new/", "a/b/", "there/"):
        assert run("get", url(server, "missing"), "-o", folder, cwd=tmp_path).returncode == 3
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("folder", ["file/", "file/below/"])
def test_file_is_no_folder(tmp_path, folder):
    (tmp_path / "file").write_bytes(b"old")
    done = run("get", "tftp://127.0.0.1:9/x", "-o", folder, cwd=tmp_path)
    assert done.returncode == 2
    assert b"-o file" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"old"


def test_get_to_standard_output_in_order(server):
    done = run("get", url(server, "other"), url(server, "file"), "-o", "-", "--json")
    assert done.stdout == b"other" + CONTENT
    assert [json.loads(line)["bytes"] for line in done.stderr.splitlines()] == [5, len(CONTENT)]


def test_json_tells_the_result(server, tmp_path):
    done = run("get", url(server, "file"), "-o", tmp_path / "x", "--json", "--blksize", 1428, "--windowsize", 16)
    result = json.loads(done.stdout)
    assert result["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert result["options"] == {"blksize": "1428", "windowsize": "16", "tsize": str(len(CONTENT))}
    assert result["bytes"] == len(CONTENT)
    assert result["seconds"] > 0
    assert result["retransmits"] == 0


def test_no_options_is_a_flag(server, tmp_path):
    done = run("get", url(server, "file"), "-o", tmp_path / "x", "--json", "--no-options")
    assert json.loads(done.stdout)["options"] == {}
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_put_and_put_from_standard_input(server, tmp_path):
    (tmp_path / "local").write_bytes(CONTENT)
    assert run("put", tmp_path / "local", url(server, "up/")).returncode == 0
    done = run("put", "-", url(server, "up/stdin"), "--json", input=CONTENT)
    assert json.loads(done.stdout)["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    for name in ("local", "stdin"):
        assert (tmp_path / "root/up" / name).read_bytes() == CONTENT


def test_refused_is_one_line_and_status_3(server, tmp_path):
    done = run("get", url(server, "missing"), "-o", tmp_path / "x", "--json")
    assert done.returncode == 3
    assert done.stderr.decode().count("\n") == 1
    assert "ERROR 1: File not found" in done.stderr.decode()
    assert json.loads(done.stdout)["error"] == "refused"
    assert not (tmp_path / "x").exists()


def test_silence_is_status_4():
    with fake_server(lambda talk: None) as server:
        done = run("get", server.url("x"), "-o", "-", "--timeout", "0.1", "--retries", "1")
    assert done.returncode == 4
    assert b"timed out" in done.stderr


def test_changed_is_status_5(tmp_path):
    def script(talk: Talk) -> None:
        talk.oack(tsize=7)
        talk.hear_ack(0)
        talk.data(1, b"123")
        talk.hear_error()

    with fake_server(script) as server:
        assert run("get", server.url("x"), "-o", tmp_path / "x").returncode == 5
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_status_6(server):
    assert run("get", url(server, "file"), "-o", "/dev/full").returncode == 6


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["get", "http://h/x"],
        ["get", "tftp://h/x", "--blksize", "7"],
        ["get", "tftp://h/x", "--blksize", "1428", "--no-options"],
        ["get", "tftp://h/x", "--port-range", "x"],
        ["get", "tftp://h/a", "tftp://h/b", "-o", "/does/not/exist"],
        ["get", "tftp://h/dir/"],
        ["put", "file", "nonsense"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_tells_the_server_and_leaves_nothing(tmp_path, number, status):
    heard = []

    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        process.send_signal(number)
        heard.append(talk.hear_error())

    with fake_server(script) as server:
        command = [sys.executable, "-m", "snow_owl_tftp", "get", server.url("x"), "-o", str(tmp_path / "x")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        assert process.wait(20) == status
        wait_for(lambda: heard, "the ERROR")
    assert heard == [0]
    assert list(tmp_path.iterdir()) == []


def test_nobody_at_the_port_is_status_7(tmp_path):
    done = run("get", "tftp://127.0.0.1:9/x", "-o", tmp_path / "x", "--json")
    assert done.returncode == 7
    assert b"unreachable: nothing listens on 127.0.0.1:9" in done.stderr
    assert json.loads(done.stdout)["error"] == "unreachable"
