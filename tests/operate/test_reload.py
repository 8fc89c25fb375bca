"""SIGHUP: what changes while the server runs, what is only named, and that a bad file changes nothing."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.support.boot import BOOT
from tests.support.client import Client, Refused
from tests.support.server import ServerProcess, serve_command, serve_in_thread, wait_for

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.operate import reload
from snow_owl_tftp.operate.reload import Reloader, merge
from snow_owl_tftp.protocol.packets import build_ack, build_data, build_error, parse_request_untrusted
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Accepted, IncomingRequest, Verdict
from snow_owl_tftp.server.writes import UploadAnswerer

DEBUG = '[logging]\nlevel = "debug"\nformat = "json"\n'
ENDS = ("settings reloaded", "reload refused, the old settings stay", "nothing to reload")


class Reloaded:
    """A command with a configuration file that the test rewrites."""

    def __init__(self, server: ServerProcess, config: Path) -> None:
        self.server = server
        self.config = config

    def lines(self, event: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.server.log.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in parsed if line["event"].startswith(event)]

    def reload(self, toml: str | None) -> list[dict[str, Any]]:
        """Write the file (None: remove it), send SIGHUP, and return the lines that it made."""
        if toml is None:
            self.config.unlink()
        else:
            self.config.write_text(toml, encoding="utf-8")
        wait_for(lambda: self.lines("server started"), "its first line, which follows the ready line")
        before = len(self.lines(""))
        self.server.signal(signal.SIGHUP)
        wait_for(lambda: any(line["event"].startswith(ENDS) for line in self.lines("")[before:]), "a reload")
        told = self.lines("")[before:]
        return [line for line in told if line["level"] != "debug" and not line["event"].startswith("transfer")]

    def batch_calls(self) -> list[dict[str, Any]]:
        return self.lines("batch calls")


@contextmanager
def serve_file(root: Path, tmp_path: Path, toml: str, *flags: str) -> Iterator[Reloaded]:
    config = tmp_path / "snow-owl.toml"
    config.write_text(toml, encoding="utf-8")
    arguments = ("--config", str(config), *flags)
    with serve_command(root, *arguments, stderr_path=tmp_path / "stderr") as server:
        yield Reloaded(server, config)


def ask_at_once(server: ServerProcess, clients: int = 16) -> None:
    """Several downloads of one block, whose datagrams arrive within one `batch_timeout_us`."""
    with ExitStack() as stack:
        asking = [stack.enter_context(Client(server.address)) for _ in range(clients)]
        for client in asking:
            client.request("small")
        for client in asking:
            assert client.receive()[0] == build_data(1, b"ten bytes.")
            client.send(build_ack(1), client.last_sender)


# ---- live keys


def test_batching_changes_while_the_server_runs(root: Path, tmp_path: Path) -> None:
    # 10 ms in which all that is sent meanwhile gathers; one recvfrom a datagram can carry no more than one.
    batch = "[performance.platform.batch]\nbatch_timeout_us = 10000\nenable_recvmmsg = "
    with serve_file(root, tmp_path, f"{DEBUG}{batch}true\n") as served:
        ask_at_once(served.server)
        wait_for(served.batch_calls, "a sample")
        assert max(line["datagrams_per_receive"] for line in served.batch_calls()) > 1
        told = served.reload(f"{DEBUG}{batch}false\n")
        assert [line["changed"] for line in told] == ["performance.platform.batch.enable_recvmmsg"]
        before = len(served.batch_calls())
        ask_at_once(served.server)
        wait_for(lambda: len(served.batch_calls()) > before, "a sample")
        assert {line["datagrams_per_receive"] for line in served.batch_calls()[before:]} == {1.0}


def test_cap_on_options_holds_for_the_next_request_although_the_engine_knew_it(root: Path, tmp_path: Path) -> None:
    toml = DEBUG + "[options]\nmax_blksize_bytes = "
    with serve_file(root, tmp_path, f"{toml}600\n") as served, Client(served.server.address) as client:

        def agreed() -> str:
            return client.get("small", options={"blksize": 1428}).oack["blksize"]

        assert [agreed(), agreed(), agreed()] == ["600"] * 3
        served.reload(f"{toml}700\n")
        wait_for(lambda: agreed() == "700", "the new cap")


def test_flow_is_decided_again_after_a_reload_that_changes_nothing(root: Path, tmp_path: Path) -> None:
    with serve_file(root, tmp_path, DEBUG) as served, Client(served.server.address) as client:
        for _ in range(4):
            assert client.get("small").payload == b"ten bytes."
        # What the engine repeats by itself has no line at its start.
        decided = len(served.lines("transfer started"))
        assert decided < 4
        assert [line["changed"] for line in served.reload(DEBUG)] == ["nothing"]
        wait_for(lambda: client.get("small") and len(served.lines("transfer started")) > decided, "a decision")


def test_size_limit_changes_for_reads_and_uploads(root: Path, tmp_path: Path) -> None:
    toml = DEBUG + '[write_config]\nenabled = true\nallowed_patterns = ["new*"]\n'
    with serve_file(root, tmp_path, toml) as served, Client(served.server.address) as client:
        assert client.get("boot.img").payload == BOOT
        client.put("new1", b"x" * 51)
        served.reload(f"max_file_size_bytes = 50\n{toml}")
        with pytest.raises(Refused, match="too large"):
            wait_for(lambda: not client.get("boot.img"), "the new limit")
        with pytest.raises(Refused):
            client.put("new2", b"x" * 51, options={"tsize": 51})
        assert client.get("small").payload == b"ten bytes."
    (root / "new1").unlink()


def test_hidden_names_appear_and_vanish_although_the_engine_knew_them(tmp_path: Path) -> None:
    root = tmp_path / "with hidden"
    root.mkdir()
    (root / ".hidden").write_bytes(b"seen")
    toml = DEBUG + "[write_config]\nenabled = true\n"
    with serve_file(root, tmp_path, toml) as served, Client(served.server.address) as client:
        for hidden in ("serve", "refuse", "serve"):
            (line,) = served.reload(f'hidden = "{hidden}"\n{toml}')
            assert line["changed"] == "hidden"
            for _ in range(3):
                if hidden == "serve":
                    assert client.get(".hidden").payload == b"seen"
                else:
                    with pytest.raises(Refused, match="ERROR 1"):
                        client.get(".hidden")


def test_log_level_changes(root: Path, tmp_path: Path) -> None:
    with serve_file(root, tmp_path, DEBUG) as served, Client(served.server.address) as client:
        served.reload(DEBUG.replace("debug", "info"))
        client.get("small")
        wait_for(lambda: served.lines("transfer completed"), "a line at info")
        assert served.lines("transfer started") == []
        served.reload(DEBUG)
        client.get("small")
        wait_for(lambda: served.lines("transfer started"), "a line at debug")


def test_running_transfer_goes_on_as_agreed(root: Path, tmp_path: Path) -> None:
    toml = DEBUG + "[options]\nmax_blksize_bytes = "
    with serve_file(root, tmp_path, f"{toml}65464\n") as served, Client(served.server.address) as client:
        client.request("boot.img", options={"blksize": 1000})
        client.receive()
        served.reload(f"max_file_size_bytes = 1\n{toml}8\n")
        client.send(build_ack(0), client.last_sender)
        while (datagram := client.receive()[0])[:2] != b"\0\3":
            pass  # an OACK that was repeated meanwhile
        assert datagram == build_data(1, BOOT[:1000])
        client.send(build_error(0, "enough"), client.last_sender)  # nothing is left to wait for at the end


# ---- keys that need a restart


def test_rules_of_uploads_change_while_the_server_runs(root: Path, tmp_path: Path) -> None:
    toml = DEBUG + "[write_config]\nenabled = true\n"
    first, second = (f'{toml}allowed_patterns = ["{name}*"]\n' for name in ("rule_a", "rule_b"))
    with serve_file(root, tmp_path, first) as served, Client(served.server.address) as client:
        client.put("rule_a1", b"by the first rules")
        with pytest.raises(Refused):
            client.put("rule_b1", b"too early")
        wait_for(lambda: served.lines("request refused"), "the line of that")
        (line,) = served.reload(f'{second}on_existing = "replace"\nfile_mode = "0600"\n')
        assert line["changed"] == "write_config.allowed_patterns,write_config.file_mode,write_config.on_existing"
        with pytest.raises(Refused):
            client.put("rule_a2", b"too late")
        for text in (b"by the second rules", b"and again"):
            client.put("rule_b1", text)
        assert (root / "rule_b1").read_bytes() == b"and again"
        assert (root / "rule_b1").stat().st_mode & 0o777 == 0o600
        assert served.lines("restart needed") == []


@contextmanager
def serve_two_roots(tmp_path: Path, more: str = "") -> Iterator[tuple[Reloaded, Callable[[str], str]]]:
    """A server whose configuration file names one of two roots; what makes the text of the file."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
        (tmp_path / name / "large").write_bytes(name.encode() * 100_000)
    config = tmp_path / "snow-owl.toml"

    def text(name: str) -> str:
        return f'root_dir = "{tmp_path}/{name}"\n{DEBUG}{more}'

    config.write_text(text("one"))
    with serve_command(None, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        yield Reloaded(server, config), text


def test_another_root_is_served_from_a_reload_on(tmp_path: Path) -> None:
    uploads = '[write_config]\nenabled = true\nallowed_patterns = ["**"]\n'
    with serve_two_roots(tmp_path, uploads) as (served, text), Client(served.server.address) as client:

        def reload(index: int) -> None:
            if index == 5:
                served.reload(text("two"))

        # What runs ends with the root that it began with.
        assert client.get("large", on_block=reload).payload == b"one" * 100_000
        assert served.lines("settings reloaded")[0]["changed"] == "root_dir"
        assert client.get("which").payload == b"two"
        client.put("new", b"uploaded")
        assert (tmp_path / "two/new").read_bytes() == b"uploaded"
        assert not (tmp_path / "one/new").exists()


@pytest.mark.parametrize("bad", ["missing", "two/which"])
def test_another_root_that_is_no_directory_is_refused_and_changes_nothing(tmp_path: Path, bad: str) -> None:
    with serve_two_roots(tmp_path) as (served, text), Client(served.server.address) as client:
        (line,) = served.reload(f"max_file_size_bytes = 1\n{text(bad)}")
        assert (line["level"], line["event"]) == ("error", "reload refused, the old settings stay")
        assert line["reason"].startswith("root_dir: ")
        assert client.get("which").payload == b"one"
        served.reload(text("two"))
        assert client.get("which").payload == b"two"


def test_another_root_above_the_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "three").mkdir()
    log = f'file = "{tmp_path}/three/log"\n'
    with serve_two_roots(tmp_path, log) as (served, text), Client(served.server.address) as client:
        served.server.stderr_path = tmp_path / "three/log"  # where its lines are
        (line,) = served.reload(text("three"))
        assert "lies below root_dir" in line["reason"]
        assert client.get("which").payload == b"one"


def test_links_lead_where_a_reload_allows(tmp_path: Path) -> None:
    with serve_two_roots(tmp_path) as (served, text), Client(served.server.address) as client:
        (tmp_path / "one/other").symlink_to(tmp_path / "two/which")
        with pytest.raises(Refused):
            client.get("other")
        served.reload(f'link_targets = ["{tmp_path}/two"]\n{text("one")}')
        assert client.get("other").payload == b"two"


def test_another_root_that_does_not_answer_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "_PATIENCE_S", 0.05)
    answers, lines = threading.Event(), Recorder()

    async def play() -> None:
        def exchange(_: Ready, before: Settings) -> Any:
            raise AssertionError("exchanged")

        def prepare(_: Settings) -> Ready:
            answers.wait(10)
            return ready

        asked = override(Settings(), {"root_dir": "/hung"})
        reloader = Reloader(Settings(), threads, lambda: asked, prepare, exchange)
        running = asyncio.create_task(reloader.run(cast(Any, lines)))
        reloader.ask()
        await asyncio.wait_for(lines.is_told.wait(), 10)
        running.cancel()
        assert not ready.is_closed.is_set()
        answers.set()
        assert ready.is_closed.wait(10), "what nobody waits for any more is closed"
        assert reloader.settings == Settings()

    ready = Ready()
    with ThreadPoolExecutor(1) as threads:
        asyncio.run(play())
    what = "it, a link target, a root of a rule or a template does not answer"
    assert lines.told == [("error", f"root_dir: /hung: {what}")]


async def test_one_reload_at_a_time_and_one_more_for_all_that_was_asked_meanwhile() -> None:
    lines, running, done = Recorder(), threading.Semaphore(1), 0
    goes_on = threading.Event()

    def prepare(_: Settings) -> Ready:
        assert running.acquire(blocking=False), "two at once"
        goes_on.wait(10)
        return Ready()

    def exchange(_: Ready, before: Settings) -> Any:
        nonlocal done
        running.release()
        done += 1
        return lines

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while done < count:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    with ThreadPoolExecutor(4) as threads:
        reloader = Reloader(Settings(), threads, Settings, prepare, exchange)
        task = asyncio.create_task(reloader.run(cast(Any, lines)))
        reloader.ask()
        await asyncio.sleep(0.05)
        for _ in range(300):
            reloader.ask()
            await asyncio.sleep(0)
        assert done == 0
        goes_on.set()
        await until(2)
        await asyncio.sleep(0.1)
        assert done == 2
        reloader.ask()
        await until(3)
        task.cancel()


async def test_reload_that_the_end_of_the_server_overtakes_is_closed() -> None:
    ready, goes_on, begun = Ready(), threading.Event(), threading.Event()

    def prepare(_: Settings) -> Ready:
        begun.set()
        goes_on.wait(10)
        return ready

    with ThreadPoolExecutor(1) as threads:
        reloader = Reloader(Settings(), threads, Settings, prepare, lambda ready, before: cast(Any, None))
        task = asyncio.create_task(reloader.run(cast(Any, Recorder())))
        reloader.ask()
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        goes_on.set()
    assert ready.is_closed.is_set()


async def test_file_that_does_not_answer_is_told_and_holds_up_no_later_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "_PATIENCE_S", 0.05)
    answers, lines, exchanged = threading.Event(), Recorder(), asyncio.Event()

    def read() -> Settings:
        if not lines.told:
            answers.wait(10)
        return Settings()

    def exchange(_: Ready, before: Settings) -> Any:
        exchanged.set()
        return lines

    with ThreadPoolExecutor(2) as threads:
        reloader = Reloader(Settings(), threads, read, lambda _: Ready(), exchange)
        task = asyncio.create_task(reloader.run(cast(Any, lines)))
        reloader.ask()
        await asyncio.wait_for(lines.is_told.wait(), 10)
        assert lines.told == [("error", "the configuration file does not answer")]
        monkeypatch.setattr(reload, "_PATIENCE_S", 10.0)
        reloader.ask()
        await asyncio.wait_for(exchanged.wait(), 10)
        answers.set()
        task.cancel()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(24, "Too many open files"), "Too many open files; raise the limit of open files"),
        (MemoryError(), "Cannot allocate memory; free memory"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
    ],
)
async def test_what_the_system_has_no_more_of_is_one_line_and_no_traceback(error: Exception, reason: str) -> None:
    lines = Recorder()

    def exchange(_: Ready, before: Settings) -> Any:
        raise error

    class NoThreads(ThreadPoolExecutor):
        def submit(self, *arguments: Any) -> Any:
            if isinstance(error, RuntimeError):
                raise error
            return super().submit(*arguments)

    with NoThreads(1) as threads:
        reloader = Reloader(Settings(), threads, Settings, lambda _: Ready(), exchange)
        task = asyncio.create_task(reloader.run(cast(Any, lines)))
        reloader.ask()
        await asyncio.wait_for(lines.is_told.wait(), 10)
        task.cancel()
    ((level, told),) = lines.told
    assert level == "error"
    assert reason in told


class Ready:
    """What is prepared."""

    def __init__(self) -> None:
        self.is_closed = threading.Event()

    def close(self) -> None:
        self.is_closed.set()


class Recorder:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.is_told = asyncio.Event()

    def error(self, _: str, *, reason: str) -> None:
        self.told.append(("error", reason))
        self.is_told.set()

    def info(self, _: str, *, changed: str) -> None:
        """Of a reload that went well."""


def test_pattern_that_is_none_is_refused_at_a_reload_and_changes_nothing(root: Path, tmp_path: Path) -> None:
    toml = "[write_config]\nenabled = true\nallowed_patterns = "
    with serve_file(root, tmp_path, f'{DEBUG}{toml}["rule_c*"]\n') as served, Client(served.server.address) as client:
        (line,) = served.reload(f'max_file_size_bytes = 3\n{DEBUG}{toml}["a//b"]\n')
        assert (line["level"], line["event"]) == ("error", "reload refused, the old settings stay")
        assert line["reason"].startswith('write_config.allowed_patterns: "a//b"')
        client.put("rule_c1", b"more than three bytes")
        assert [line["changed"] for line in served.reload(f'{DEBUG}{toml}["rule_c*"]\n')] == ["nothing"]


async def test_upload_that_has_begun_ends_by_the_rules_it_began_with(root: Path) -> None:
    settings = override(
        Settings(root_dir=str(root)), {"write_config.enabled": True, "write_config.allowed_patterns": ("rule_d*",)}
    )
    later = override(settings, {"write_config.allowed_patterns": ("none",), "write_config.file_mode": "0600"})
    uploads = UploadAnswerer(settings)
    try:
        request = parse_request_untrusted(b"\0\2rule_d1\0octet\0")
        verdict = uploads.answer(Begun(), request)
        accepted = verdict if isinstance(verdict, Accepted) else await cast(Any, verdict)
        uploads.reload(Generation.of(later))
        context = accepted.plan.context
        sink = await context.open()
        os.pwrite(sink.fd, b"data", 0)
        assert await context.commit(4) is None
        context.retired()
        with pytest.raises(RefusedError):
            uploads.answer(Begun(), request)
    finally:
        uploads.close()
    assert (root / "rule_d1").stat().st_mode & 0o777 == 0o644


class Begun:
    transfer_id = 1
    datagram = b""
    peer = ("127.0.0.1", 2070)
    local_address = None
    endpoint = 0


def test_keys_that_need_a_restart_are_named_on_one_line_every_time(root: Path, tmp_path: Path) -> None:
    changed = (
        f"workers = 2\nmax_file_size_bytes = 1000000\n{DEBUG}[limits]\nmax_transfers = 7\n"
        "[retransmit]\nfloor_ms = 11\n[write_config]\nenabled = true\n[performance.platform.file_io]\nio_threads = 2\n"
    )
    named = (
        "restart needed for: limits.max_transfers, performance.platform.file_io.io_threads, retransmit.floor_ms, "
        "workers, write_config.enabled"
    )
    with serve_file(root, tmp_path, DEBUG) as served:
        served.reload(changed)
        wait_for(lambda: served.lines("restart needed"), "the warning")
        served.reload(changed)
        lines = wait_for(lambda: len(found := served.lines("restart needed")) == 2 and found, "the second warning")
        assert [(line["level"], line["event"]) for line in lines] == [("warning", named)] * 2
        assert [line["changed"] for line in served.lines("settings reloaded")] == ["max_file_size_bytes", "nothing"]


def test_flags_still_win_over_the_file(root: Path, tmp_path: Path) -> None:
    flags = ("--workers", "1", "--log-format", "json", "--log-level", "info")
    with serve_file(root, tmp_path, "", *flags) as served:
        text = f'root_dir = "{tmp_path}"\nworkers = 3\n[logging]\nlevel = "error"\nformat = "text"\n'
        assert [line["changed"] for line in served.reload(text)] == ["nothing"]
        assert served.lines("restart needed") == []


def leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize(
    "changes",
    [
        {"options.max_windowsize_blocks": 4, "tid_sockets": 3},
        {"logging.level": "error", "logging.format": "json"},
        {"drain_timeout_s": 1, "bind_addr": ("127.0.0.1:1", "127.0.0.1:2")},
        {"performance.platform.batch.max_batch_size": 9, "performance.platform.socket.recv_buffer_kb": 64},
    ],
)
def test_every_difference_is_either_applied_or_named(changes: dict[str, Any]) -> None:
    running, asked = Settings(), override(Settings(), changes)
    merged, live, needs_restart = merge(running, asked)
    assert live + needs_restart == list(changes)
    expected = {**dict(leaves(msgspec.to_builtins(running))), live[0]: changes[live[0]]}
    assert dict(leaves(msgspec.to_builtins(merged))) == expected


# ---- what cannot be reloaded


@pytest.mark.parametrize(
    ("toml", "reasons"),
    [
        ("wrokers = 2\n[options]\nmax_blksize_bytes = 1\n", ["wrokers: unknown key", "expected 8..65464, got 1"]),
        ("workers = ", ["not TOML"]),
        ('tid_ports = "5000-6000"\n', ["snow-owl.toml:1: tid_ports: has no effect with single_port"]),
        (None, ["No such file or directory"]),
    ],
)
def test_bad_file_is_told_on_one_line_and_changes_nothing(
    root: Path, tmp_path: Path, toml: str | None, reasons: list[str]
) -> None:
    good = DEBUG + "[options]\nmax_blksize_bytes = 600\n"
    with serve_file(root, tmp_path, good, "--single-port") as served, Client(served.server.address) as client:
        (line,) = served.reload(toml)
        assert line["level"] == "error"
        for reason in reasons:
            assert reason in line["reason"]
        assert client.get("boot.img", options={"blksize": 1428}).oack == {"blksize": "600"}
        assert [line["changed"] for line in served.reload(good)] == ["nothing"]


def test_server_without_a_file_says_so_and_goes_on(root: Path, tmp_path: Path) -> None:
    with serve_command(root, "--log-format", "json", stderr_path=tmp_path / "stderr") as server:
        served = Reloaded(server, tmp_path / "none")
        (line,) = served.reload("")
        assert line["level"] == "warning"
        assert "--config" in line["event"]
        with Client(server.address) as client:
            assert client.get("boot.img").payload == BOOT


def test_hangup_while_draining_is_ignored(root: Path, tmp_path: Path) -> None:
    with serve_file(root, tmp_path, DEBUG) as served, Client(served.server.address) as client:

        def hang_up(index: int) -> None:
            if index == 5:
                served.server.signal(signal.SIGTERM)
                wait_for(lambda: served.lines("draining"), "draining")
                served.server.signal(signal.SIGHUP)

        # 190 blocks later, and two looks of the draining server, a reload would have been told.
        assert client.get("boot.img", on_block=hang_up).payload == BOOT
        assert served.server.wait(8) == 0
        assert served.lines("server stopped")[0]["drained"]
        assert served.lines("settings reloaded") == []


# ---- the server as a part


def test_engine_counts_by_the_new_settings(root: Path) -> None:
    decider = FileDecider(Settings(root_dir=str(root)))
    try:
        with serve_in_thread(root, decider=decider) as served, Client(served.address) as client:

            async def reload() -> None:
                off = {"performance.platform.batch.enable_recvmmsg": False}
                off["performance.platform.batch.enable_flows"] = False
                settings = override(Settings(), off)
                decider.reload(Generation.of(settings))
                served.server.reload(settings)

            for _ in range(4):
                client.get("small")
            assert served.counters()["recvfrom_calls"] == 0
            assert served.counters()["flow_hits"] > 0
            served.call(reload)
            wait_for(lambda: client.get("small") and served.counters()["recvfrom_calls"] > 0, "recvfrom")
            before = served.counters()
            client.get("small")
            after = wait_for(
                lambda: (now := served.counters())["transfers_ended"] > before["transfers_ended"] and now, "the end"
            )
            assert after["flow_misses"] == before["flow_misses"] + 1
            assert after["recvmmsg_calls"] == before["recvmmsg_calls"]
    finally:
        decider.close()


class Waiting:
    """Decides as a FileDecider, but not before `may_decide` is set."""

    def __init__(self, files: FileDecider) -> None:
        self.files = files
        self.is_asked = False
        self.may_decide = asyncio.Event()

    def decide(self, asked: IncomingRequest) -> Awaitable[Verdict]:
        self.is_asked = True
        return self._decide(asked)

    async def _decide(self, asked: IncomingRequest) -> Verdict:
        verdict = self.files.decide(asked)
        await self.may_decide.wait()
        return await verdict if isinstance(verdict, Awaitable) else verdict


def test_decision_that_a_reload_overtook_is_not_repeated_by_the_engine(root: Path) -> None:
    decider = Waiting(FileDecider(Settings(root_dir=str(root))))
    try:
        with serve_in_thread(root, decider=decider) as served, Client(served.address) as client:

            async def reload() -> None:
                served.server.reload(Settings())
                decider.may_decide.set()

            client.request("small")
            wait_for(lambda: decider.is_asked, "a request")
            served.call(reload)
            assert client.receive()[0] == build_data(1, b"ten bytes.")
            client.send(build_ack(1), client.last_sender)
            with Client(served.address) as second:
                assert second.get("small").payload == b"ten bytes."
                assert (served.counters()["flow_misses"], served.counters()["flow_hits"]) == (2, 0)
                second.get("small")
                assert served.counters()["flow_hits"] == 1
    finally:
        decider.files.close()
