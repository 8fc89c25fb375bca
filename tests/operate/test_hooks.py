"""The command after an upload: what it is given, how many run, how long, and that nothing of it reaches the client."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client
from tests.support.server import wait_for
from tests.support.uploads import make_root, serve_uploads_command

from snow_owl_tftp.config.schema import WriteSettings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate import hooks
from snow_owl_tftp.operate.hooks import UploadHook


class Log:
    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.warnings.append((event, fields))


def make_hook(*command: str, timeout_s: int = 60, max_running: int = 4) -> tuple[UploadHook, Log]:
    log = Log()
    settings = WriteSettings(on_upload=command, on_upload_timeout_s=timeout_s, on_upload_max_running=max_running)
    return UploadHook(settings, log), log  # type: ignore[arg-type]


async def until(condition: Callable[[], Any]) -> None:
    await asyncio.to_thread(wait_for, condition, "what the command does")


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Makes a program of a few lines of Python."""

    def make(source: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{source}\n")
        path.chmod(0o755)
        return str(path)

    return make


async def test_command_gets_path_and_client_as_parts_of_arguments(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    out = tmp_path / "out"
    name = program(f"open({str(out)!r}, 'w').write(repr(sys.argv[1:]))")
    hook, log = make_hook(name, "--file={path}", "{client}", "{path}:{client}", "plain")
    path = Path("/root dir/-rf; $(reboot) {client}\n*")
    hook.submit(path, "192.0.2.7")
    await hook.close()
    assert out.read_text() == repr([f"--file={path}", "192.0.2.7", f"{path}:192.0.2.7", "plain"])
    assert log.warnings == []


async def test_name_that_is_no_utf8_arrives_byte_by_byte(tmp_path: Path, program: Callable[[str], str]) -> None:
    out = tmp_path / "out"
    hook, _ = make_hook(program(f"open({str(out)!r}, 'wb').write(os.fsencode(sys.argv[1]))"), "{path}")
    hook.submit(Path(os.fsdecode(b"/up/\xff\xfe")), "::1")
    await hook.close()
    assert out.read_bytes() == b"/up/\xff\xfe"


async def test_command_inherits_nothing_of_ours(
    tmp_path: Path, program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("SECRET", "token")
    secret_fd = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(secret_fd, True)
    source = f"""
fds = sorted(int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd))
open({str(out)!r}, 'w').write(repr((sorted(os.environ), fds, os.getcwd(), os.read(0, 1), os.getsid(0) == os.getpid())))
"""
    hook, _ = make_hook(program(source))
    hook.submit(Path("/x"), "::1")
    await hook.close()
    os.close(secret_fd)
    environment, fds, cwd, stdin, is_leader = eval(out.read_text())
    assert set(environment) <= {"PATH", "LANG", "LC_CTYPE"}
    assert fds == [0, 1, 2]
    assert (cwd, stdin, is_leader) == ("/", b"", True)


async def test_failing_command_is_logged_and_no_more(program: Callable[[str], str]) -> None:
    hook, log = make_hook(program("sys.exit(3)"), "{path}")
    hook.submit(Path("/up/x"), "::1")
    await hook.close()
    assert hook.failed_total == 1
    ((event, fields),) = log.warnings
    assert (event, fields["reason"]) == ("on_upload failed", "status 3")
    assert fields["command"].endswith(" /up/x")


async def test_command_that_vanished_is_logged_and_no_more(program: Callable[[str], str]) -> None:
    name = program("")
    hook, log = make_hook(name)
    os.unlink(name)  # noqa: PTH108 - a path object would be taken for a blocking one
    hook.submit(Path("/up/x"), "::1")
    await hook.close()
    assert [event for event, _ in log.warnings] == ["on_upload failed"]


async def test_command_that_takes_too_long_dies_with_its_children(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    out = tmp_path / "out"
    source = f"""
child = os.fork()
if child:
    open({str(out)!r}, 'w').write(f'{{os.getpid()}} {{child}}\\n')
time.sleep(600)
"""
    hook, log = make_hook(program(source), timeout_s=1)
    hook.submit(Path("/up/x"), "::1")
    await hook.close()
    pids = [int(pid) for pid in out.read_text().split()]
    assert len(pids) == 2
    await until(lambda: not any(is_running(pid) for pid in pids))
    assert log.warnings[0][1]["reason"] == "took longer than 1 s"


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def test_number_running_and_waiting_is_bounded(
    tmp_path: Path, program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "MAX_WAITING", 3)
    go_on = tmp_path / "go_on"
    started = tmp_path / "started"
    started.mkdir()
    source = f"""
open({str(started)!r} + sys.argv[1], 'w')
while not os.path.exists({str(go_on)!r}):
    time.sleep(0.005)
"""
    hook, log = make_hook(program(source), "{path}", max_running=2)
    for number in range(7):
        hook.submit(Path(f"/{number}"), "::1")
    assert hook.dropped_total == 2
    assert [event for event, _ in log.warnings] == ["on_upload dropped"] * 2
    await until(lambda: len(list(started.iterdir())) == 2)
    go_on.touch()
    await until(lambda: len(list(started.iterdir())) == 5)
    await hook.close()
    assert {path.name for path in started.iterdir()} == {"0", "1", "2", "3", "4"}
    assert hook.failed_total == 0


async def test_close_forgets_those_that_wait_and_says_so(tmp_path: Path, program: Callable[[str], str]) -> None:
    started = tmp_path / "started"
    started.mkdir()
    hook, log = make_hook(program(f"open({str(started)!r} + sys.argv[1], 'w')"), "{path}", max_running=1)
    hook.submit(Path("/0"), "::1")
    hook.submit(Path("/1"), "::1")
    await hook.close()
    assert [path.name for path in started.iterdir()] == ["0"]
    assert log.warnings == [("on_upload not run", {"uploads": 1})]


def test_without_a_command_nothing_happens() -> None:
    hook, _ = make_hook()
    hook.submit(Path("/x"), "::1")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("{path}",), "placeholder"),
        (("/bin/true", "{paht}"), "no other placeholders"),
        (("/bin/true", "{}"), "no other placeholders"),
        (("/no/such/program",), "no such program"),
        (("no-such-program-anywhere",), "no such program"),
        (("/etc/passwd",), "no such program"),
    ],
)
def test_command_that_cannot_work_is_a_config_error(command: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make_hook(*command)


def test_program_is_found_on_the_standard_path() -> None:
    hook, _ = make_hook("true")
    assert Path(hook._command[0]).is_absolute()


def test_command_runs_for_an_upload_and_its_failure_changes_nothing(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    (root / "alias").symlink_to("up")
    toml = 'on_upload = ["cp", "{path}", "{path}.copy-{client}"]'
    with serve_uploads_command(root, toml) as server, Client(server.address) as client:
        client.put("up/x", b"content")
        copy = wait_for(lambda: list((root / "up").glob("x.copy-*")), "the copy")[0]
        assert copy.name == "x.copy-127.0.0.1"
        wait_for(lambda: copy.read_bytes() == b"content", "its content")
    with serve_uploads_command(root, 'on_upload = ["false"]') as server, Client(server.address) as client:
        client.put("up/y", b"content")
        wait_for(lambda: "on_upload failed" in server.log, "the failure in the log")
    assert (root / "up/y").read_bytes() == b"content"
