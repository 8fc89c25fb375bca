"""[[handlers]]: what they answer, what they leave to files, and that no mistake of theirs is the server's end."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.client import Client, Refused
from tests.support.server import ServerProcess, run_command, serve_command, wait_for

MODULE = """
import asyncio, time
from snow_owl_tftp import ReadRequest, Refuse, RefusedError, Response

asked = 0

async def answer(request: ReadRequest) -> Response | Refuse | None:
    global asked
    asked += 1
    name = request.path.rpartition("/")[2]
    if name == "made":
        return Response(f"made for {request.client}, {request.options.get('blksize')}\\n")
    if name == "count":
        return Response(str(asked))
    if name == "refused":
        return Refuse(2, "Not for you")
    if name == "raised":
        raise RefusedError(3, "No room")
    if name == "broken":
        raise RuntimeError("a defect of the handler")
    if name == "wrong":
        return 5
    if name == "stream":
        return Response(part for part in [b"a" * 600, b"b"])
    if name == "cut":
        def parts():
            yield b"a" * 2000
            raise RuntimeError("in mid-stream")
        return Response(parts())
    return None

def plain(request):
    return Response(b"by a thread") if request.path.endswith("made") else None

not_a_function = 5

def two(a, b):
    pass

class Site:
    @staticmethod
    async def answer(request):
        return Response("of a class")
"""


def command_environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "modules").mkdir(exist_ok=True)
    (tmp_path / "modules/site_boot.py").write_text(MODULE)
    (tmp_path / "modules/broken_boot.py").write_text("raise RuntimeError('at the\\nimport')")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}/modules:{os.environ.get('PYTHONPATH', '')}"}


def entry(match: str, handler: str) -> str:
    return f'[[handlers]]\nmatch = "{match}"\nhandler = "{handler}"\n'


@contextmanager
def serve(tmp_path: Path, toml: str) -> Iterator[ServerProcess]:
    root = tmp_path / "root"
    (root / "h").mkdir(parents=True)
    (root / "h/left").write_bytes(b"of a file")
    (root / "h/made").write_bytes(b"never sent")
    (root / "small").write_bytes(b"ten bytes.")
    (tmp_path / "made.j2").write_text("of a template {{ x }}")
    (tmp_path / "c.toml").write_text(toml)
    arguments = ("--config", str(tmp_path / "c.toml"))
    environment = command_environment(tmp_path)
    with serve_command(root, *arguments, stderr_path=tmp_path / "stderr", env=environment) as server:
        yield server


def get(server: ServerProcess, name: str, **more: object) -> bytes:
    with Client(server.address) as client:
        return client.get(name, **more).payload  # type: ignore[arg-type]


def test_handler_answers_what_its_pattern_matches(tmp_path: Path) -> None:
    toml = entry("h/**", "site_boot:answer") + entry("t/**", "site_boot:plain") + entry("c", "site_boot:Site.answer")
    with serve(tmp_path, toml) as server:
        assert get(server, "h/made", options={"blksize": 600}) == b"made for 127.0.0.1, 600\n"
        assert get(server, "h/made", mode="netascii") == b"made for 127.0.0.1, None\r\n"
        assert get(server, "t/made") == b"by a thread"
        assert get(server, "c") == b"of a class"
        assert get(server, "h/stream") == b"a" * 600 + b"b"
        assert get(server, "small") == b"ten bytes."


def test_what_a_handler_leaves_goes_to_templates_and_files_and_it_is_asked_again(tmp_path: Path) -> None:
    toml = entry("**", "site_boot:answer") + '[[templates]]\nmatch = "t/{x}"\ntemplate = "made.j2"\n'
    with serve(tmp_path, toml) as server:
        for _ in range(5):
            assert get(server, "h/left") == b"of a file"
        assert get(server, "count") == b"6"  # no answer of the engine's own
        assert get(server, "t/y") == b"of a template y"
        assert get(server, "h/left", mode="netascii") == b"of a file"
        with pytest.raises(Refused, match="ERROR 1"):
            get(server, "absent")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("h/refused", "ERROR 2: Not for you"),
        ("h/raised", "ERROR 3: No room"),
        ("h/broken", "ERROR 0: Internal error"),
        ("h/wrong", "ERROR 0: Internal error"),
        ("h/cut", "ERROR 0"),
        ("h/../../secret", "ERROR 2"),
        (".hidden/made", "ERROR 1"),
    ],
)
def test_no_answer_and_no_mistake_ends_the_server(tmp_path: Path, name: str, error: str) -> None:
    with serve(tmp_path, entry("**", "site_boot:answer")) as server:
        for _ in range(2):
            with pytest.raises(Refused, match=error):
                get(server, name)
        assert get(server, "h/made").startswith(b"made for")
    if name == "h/broken":
        assert server.log.count("RuntimeError: a defect of the handler") == 2


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (entry("x", "no_such_module:f"), "handlers[1].handler: no_such_module cannot be imported ("),
        (entry("x", "broken_boot:f"), "handlers[1].handler: broken_boot cannot be imported (RuntimeError: at the)"),
        (entry("x", "site_boot:nothing"), "handlers[1].handler: site_boot has no nothing; "),
        (entry("x", "site_boot:not_a_function"), "handlers[1].handler: site_boot:not_a_function must be a function"),
        (entry("x", "site_boot:two"), "handlers[1].handler: site_boot:two is called with one argument"),
        (entry("x", "site_boot"), 'handlers[1].handler: expected "module:function", got "site_boot"'),
        (entry("../x", "site_boot:answer"), "handlers[1].match: "),
        ('[[handlers]]\nmatch = "x"\n', "handlers[1].handler: missing; "),
    ],
)
def test_wrong_entry_is_one_clear_line(tmp_path: Path, toml: str, problem: str) -> None:
    (tmp_path / "c.toml").write_text(toml)
    arguments = (str(tmp_path), "--config", str(tmp_path / "c.toml"), "--bind", "127.0.0.1:0")
    done = run_command(*arguments, env=command_environment(tmp_path))
    assert done.returncode == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_reload_keeps_the_code_and_changes_the_caps(tmp_path: Path) -> None:
    toml = entry("h/**", "site_boot:answer")
    with serve(tmp_path, toml) as server:
        assert get(server, "h/made", options={"blksize": 600}).endswith(b"600\n")
        caps = "[options]\nmax_blksize_bytes = 100\n"
        (tmp_path / "c.toml").write_text(caps + toml + entry("small", "site_boot:plain"))
        wait_for(lambda: "server started" in server.log, "the start")
        server.signal(signal.SIGHUP)
        wait_for(lambda: "restart needed for: handlers" in server.log, "a reload")
        with Client(server.address) as client:
            assert client.get("h/made", options={"blksize": 600}).oack["blksize"] == "100"
