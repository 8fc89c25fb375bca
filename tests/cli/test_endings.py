"""How `get` and `put` end when the terminal, a pipe or the shell does something unusual."""

import array
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tests.support.fake_server import Talk, drop_options, fake_server
from tests.support.server import wait_for
from tests.support.uploads import serve_uploads

CONTENT = os.urandom(200_001)
COMMAND = [sys.executable, "-m", "snow_owl_tftp"]


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    with serve_uploads(root, allowed_patterns=("*",)) as server:
        yield server


def url(server, name):
    return f"tftp://127.0.0.1:{server.address[1]}/{name}"


def shell(line, *arguments, env=None):
    """`$@` is the command and its arguments."""
    command = ["sh", "-c", line, "sh", *COMMAND, *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )


def one_line(done) -> str:
    text = done.stderr.decode()
    assert text.count("\n") == 1, text
    assert "Errno" not in text
    return text


# --- signals


def is_up(process) -> bool:
    """It handles SIGHUP, and another thread has begun."""
    caught = int(Path(f"/proc/{process.pid}/status").read_text().split("SigCgt:")[1].split()[0], 16)
    return bool(caught & 1 << (signal.SIGHUP - 1)) and len(list(Path(f"/proc/{process.pid}/task").iterdir())) > 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_idle_standard_input_does_not_hold_up_a_signal(number):
    read, write = os.pipe()
    process = subprocess.Popen([*COMMAND, "put", "-", "tftp://127.0.0.1:9/x"], stdin=read, stderr=subprocess.PIPE)
    try:
        os.close(read)
        wait_for(lambda: is_up(process), "the transfer")
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert process.communicate()[1] == b""
    finally:
        os.close(write)
        process.kill()
        process.wait()


def waiting_bytes(fd) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stalled_standard_output_does_not_hold_up_a_signal(server, number):
    process = subprocess.Popen([*COMMAND, "get", url(server, "file"), "-o", "-"], stdout=subprocess.PIPE)
    try:
        wait_for(lambda: waiting_bytes(process.stdout.fileno()) >= 65536, "a full pipe")
        process.send_signal(number)
        assert process.wait(10) == 128 + number
    finally:
        process.kill()
        process.communicate()


def test_hangup_tells_the_server_and_leaves_nothing(tmp_path):
    heard = []

    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        process.send_signal(signal.SIGHUP)
        heard.append(talk.hear_error())

    with fake_server(script) as server:
        process = subprocess.Popen([*COMMAND, "get", server.url("x"), "-o", str(tmp_path / "x")])
        assert process.wait(20) == 129
        wait_for(lambda: heard, "the ERROR")
    assert list(tmp_path.iterdir()) == []


def test_hangup_is_ignored_where_nohup_says_so(tmp_path):
    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        process.send_signal(signal.SIGHUP)
        talk.data(2, b"end")
        talk.hear_ack(2)

    ignoring = "trap '' HUP; exec \"$@\""
    with fake_server(script) as server:
        arguments = ["get", server.url("x"), "-o", str(tmp_path / "x")]
        process = subprocess.Popen(["sh", "-c", ignoring, "sh", *COMMAND, *arguments])
        assert process.wait(20) == 0
    assert (tmp_path / "x").stat().st_size == 515


def test_killed_leaves_nothing(tmp_path):
    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        process.kill()

    with fake_server(script) as server:
        process = subprocess.Popen([*COMMAND, "get", server.url("x"), "-o", str(tmp_path / "x")])
        assert process.wait(20) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


# --- streams


@pytest.mark.parametrize(
    ("line", "arguments", "text"),
    [
        ('"$@" >&-', ["get", "file", "-o", "-"], "standard output is closed"),
        ('"$@" >&-', ["get", "file", "-o", "x", "--json"], "standard output is closed"),
        ('"$@" <&-', ["put", "-", "up"], "standard input is closed"),
    ],
)
def test_closed_stream_is_wrong_usage(server, line, arguments, text):
    done = shell(line, *[url(server, word) if word in ("file", "up") else word for word in arguments])
    assert done.returncode == 2
    assert text in one_line(done)


def test_closed_standard_error_does_not_spoil_standard_output(server):
    done = shell('"$@" 2>&-', "get", url(server, "missing"), "-o", "-")
    assert (done.returncode, done.stdout) == (3, b"")


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("extra", [["-o", "-"], ["-o", "/dev/null", "--json"]])
def test_full_standard_output_is_status_6(server, extra, env):
    done = shell('"$@" >/dev/full', "get", url(server, "file"), *extra, env=env)
    assert done.returncode == 6
    assert "No space left on device" in one_line(done)


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("extra", [["-o", "-"], ["-o", "/dev/null", "--json"]])
def test_output_that_nobody_reads_ends_quietly(server, extra, env):
    # The status of the command itself, not that of the pipe.
    line = '{ "$@"; echo $? >&2; } | true'
    done = shell(f"trap '' PIPE; {line}", "get", url(server, "file"), *extra, env=env)
    assert done.stderr == b"141\n"


def test_small_file_system_ends_unbuffered_output_with_an_error(server, tmp_path):
    """A limit of file size stands for a disk with a little room: one write is short, the next one fails."""
    line = f"ulimit -f 100; trap '' XFSZ; \"$@\" > {tmp_path}/out"
    done = shell(line, "get", url(server, "file"), "-o", "-", env={"PYTHONUNBUFFERED": "1"})
    assert done.returncode == 6
    assert "File too large" in one_line(done)


def test_no_room_to_copy_standard_input_is_status_6(server):
    done = shell("ulimit -f 100; trap '' XFSZ; head -c 1000000 /dev/zero | \"$@\"", "put", "-", url(server, "up"))
    assert done.returncode == 6
    one_line(done)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["put", "/does/not/exist", "tftp://127.0.0.1:9/x"], "No such file or directory: /does/not/exist"),
        (["get", "tftp://127.0.0.1:9/x", "-o", "/does/not/exist"], "No such file or directory: /does/not/exist"),
        (["get", "tftp://[fe80::1]/x", "-o", "-"], "fe80::1%"),
    ],
)
def test_errors_are_told_in_words(arguments, text):
    assert text in one_line(shell('"$@"', *arguments))


def test_silence_is_told_in_words():
    with fake_server(lambda talk: None) as server:
        name = server.url("x").replace("tftp:", "TFTP:")
        assert "timed out" in one_line(shell('"$@"', "get", name, "-o", "-", "--timeout", "0.01", "--retries", "0"))


# --- terminals


def on_a_terminal(*arguments, stdout=subprocess.DEVNULL, rows=24):
    """Exit status, and what standard error, a terminal, was told."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))
    out = follower if stdout is None else stdout
    # Readline puts a LINES into the environment behind Python's back; a worker of pytest-xdist has inherited it.
    env = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    env["TERM"] = "xterm"  # without one, as under cron, a bar does not move
    command = [*COMMAND, *map(str, arguments)]
    process = subprocess.Popen(command, stderr=follower, stdout=out, stdin=subprocess.DEVNULL, env=env)
    os.close(follower)
    seen = bytearray()
    try:
        while chunk := os.read(leader, 65536):
            seen += chunk
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(leader)
    return process.wait(20), seen.decode(errors="replace")


def test_bar_on_a_terminal(server, tmp_path):
    status, seen = on_a_terminal("get", url(server, "file"), "-o", tmp_path / "x")
    assert status == 0
    assert "━" in seen
    assert "file" in seen


def test_failure_on_a_terminal_is_one_whole_line(server, tmp_path):
    name = "missing-" + "x" * 100
    status, seen = on_a_terminal("get", url(server, name), "-o", tmp_path / "x")
    assert status == 3
    assert f"snow-owl-tftp: {url(server, name)}: refused by the server: ERROR 1: File not found" in seen


def test_no_bar_where_the_content_goes_to_the_terminal(tmp_path):
    with fake_server(lambda talk: talk.serve(b"content")) as server:
        status, seen = on_a_terminal("get", server.url("x"), "-o", "-", stdout=None)
    assert (status, seen) == (0, "content")


def test_json_has_no_bar(server, tmp_path):
    read, write = os.pipe()
    status, seen = on_a_terminal("get", url(server, "file"), "-o", tmp_path / "x", "--json", stdout=write)
    os.close(write)
    with os.fdopen(read) as file:
        assert json.loads(file.read())["bytes"] == len(CONTENT)
    assert (status, seen) == (0, "")


def lines_drawn_over(seen) -> int:
    """The most lines that were ever drawn again; rich goes up one, and clears it, for each but the last.

    None where all transfers ended before anything was drawn a second time.
    """
    return max((len(run) // len(UP) for run in re.findall(f"(?:{re.escape(UP)})+", seen)), default=0) + 1


CLEARED = "\x1b[2K"
UP = f"\x1b[1A{CLEARED}"


@pytest.mark.parametrize(("rows", "lines"), [(24, 11), (8, 6), (3, 2)])
def test_many_transfers_never_scroll_the_terminal(tmp_path, rows, lines):
    """What scrolled away cannot be drawn over: every step of every bar would stay on the screen."""
    root = tmp_path / "root"
    root.mkdir()
    names = [f"file-{i}" for i in range(41)]
    for name in names:
        (root / name).write_bytes(CONTENT)
    with serve_uploads(root) as server:
        status, seen = on_a_terminal("get", *[url(server, n) for n in names], "-o", f"{tmp_path}/out/", rows=rows)
    assert status == 0
    assert lines_drawn_over(seen) <= lines
    assert "41 of 41 files" in seen
    assert all((tmp_path / "out" / name).read_bytes() == CONTENT for name in names)


def test_few_transfers_have_a_bar_each_to_the_end(server, tmp_path):
    (tmp_path / "root/other").write_bytes(CONTENT)
    status, seen = on_a_terminal("get", url(server, "file"), url(server, "other"), "-o", f"{tmp_path}/out/")
    assert status == 0
    assert "of 2 files" not in seen
    last_frame = seen.rpartition(CLEARED)[2]
    assert "file" in last_frame
    assert "other" in last_frame


def test_silent_server_is_named_where_its_bar_would_be(tmp_path):
    with fake_server(lambda talk: None) as server:
        host = server.url("").removeprefix("tftp://").rstrip("/")
        arguments = ["--timeout", "0.5", "--retries", "3"]
        status, seen = on_a_terminal("get", server.url("x"), "-o", tmp_path / "x", *arguments)
    assert status == 4
    # A busy machine may draw one line for both repeats.
    assert re.search(rf"x: no answer from {re.escape(host)} yet, asked [23] times", seen)


def test_bar_is_back_when_a_silent_server_answers(tmp_path):
    with fake_server(drop_options(lambda talk: talk.serve(CONTENT))) as server:
        status, seen = on_a_terminal("get", server.url("x"), "-o", tmp_path / "x", "--timeout", "0.5")
    assert status == 0
    assert "yet, asked 2 times" in seen
    assert "yet, asked" not in seen.rpartition(CLEARED)[2]
    assert "━" in seen
