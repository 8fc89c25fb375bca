"""Releases are switched by replacing a link: new requests see the new one, and nobody is cut off."""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.client import Client, Refused
from tests.support.server import serve_command, wait_for
from tests.support.uploads import WRITABLE

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.store import staging
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate import root_watch
from snow_owl_tftp.operate.root_watch import RootWatch
from snow_owl_tftp.plan.transfer import Role
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import parse_request_untrusted
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.writes import UploadAnswerer

CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18  # include/uapi/linux/mount.h
OLD, NEW = b"7" * 100_000, b"8" * 100_000
LIMIT_BYTES = 1000


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for release, content in (("7", OLD), ("8", NEW)):
        (tmp_path / "releases" / release / "up").mkdir(parents=True)
        (tmp_path / "releases" / release / "boot").write_bytes(content)
    (tmp_path / "current").symlink_to("releases/7")
    return tmp_path


def leave_mounts() -> None:
    """In a child before it becomes the server: its mounts are its own from here on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        os._exit(77)


def get_or_code(client: Client) -> bytes | int:
    try:
        return client.get("boot").payload
    except Refused as refused:
        return refused.code


def switch(base: Path, target: str = "releases/8") -> None:
    (base / "next").symlink_to(target)
    (base / "next").replace(base / "current")


def test_new_release_is_served_without_a_signal_although_the_engine_knew_the_old_one(base: Path) -> None:
    with serve_command(base / "current") as server, Client(server.address) as client:
        for _ in range(4):
            assert client.get("boot").payload == OLD
        switch(base)
        wait_for(lambda: client.get("boot").payload == NEW, "the new release")
        wait_for(lambda: "root or link_targets lead elsewhere now" in server.log, "the line about it")
        assert str(base / "releases/8") in server.log
        assert client.get("boot").payload == NEW


def test_running_transfer_ends_with_the_release_that_it_began_with(base: Path) -> None:
    with serve_command(base / "current") as server, Client(server.address) as client:

        def on_block(index: int) -> None:
            if index == 5:
                switch(base)
                with Client(server.address) as other:
                    wait_for(lambda: other.get("boot").payload == NEW, "the new release")

        assert client.get("boot", on_block=on_block).payload == OLD


def test_link_above_the_root_counts(base: Path) -> None:
    with serve_command(base / "current/up/..") as server, Client(server.address) as client:
        assert client.get("boot").payload == OLD
        switch(base)
        wait_for(lambda: client.get("boot").payload == NEW, "the new release")


@pytest.mark.parametrize("has_file", [True, False])
def test_root_without_links_is_looked_up_again_at_sighup(base: Path, tmp_path: Path, has_file: bool) -> None:
    root = base / "releases/7"
    (tmp_path / "owl.toml").write_text("workers = 1\n")
    flags = ("--config", str(tmp_path / "owl.toml")) if has_file else ()
    with serve_command(root, *flags) as server, Client(server.address) as client:
        for _ in range(3):
            assert client.get("boot").payload == OLD
        root.rename(base / "moved")
        (base / "releases/8").rename(root)
        server.signal(signal.SIGHUP)
        wait_for(lambda: client.get("boot").payload == NEW, "the new root")


def test_root_that_was_removed_and_made_anew_is_served_without_a_signal(base: Path) -> None:
    root = base / "releases/7"
    with serve_command(root) as server, Client(server.address) as client:
        assert client.get("boot").payload == OLD
        shutil.rmtree(root)
        wait_for(lambda: get_or_code(client) == ErrorCode.FILE_NOT_FOUND, "the refusal")
        wait_for(lambda: get_or_code(client) and "the old one stays" in server.log, "the warning")
        root.mkdir()
        (root / "boot").write_bytes(NEW)
        wait_for(lambda: get_or_code(client) == NEW, "the new root")
        assert server.log.count("the old one stays") == 1


@pytest.mark.parametrize("is_lazy", [False, True])
def test_file_system_that_is_mounted_over_the_root_is_served_and_so_is_what_lay_below_it(
    base: Path, is_lazy: bool
) -> None:
    """The mounts are in a namespace that the server's process has for itself."""
    root = base / "releases/7"
    if os.geteuid() != 0 or not shutil.which("nsenter"):
        pytest.skip("mounting in a namespace takes root and nsenter")
    with serve_command(root, preexec_fn=leave_mounts) as server, Client(server.address) as client:
        process = f"/proc/{server.process.pid}"
        enter = ["nsenter", f"--mount={process}/ns/mnt", f"--root={process}/root"]  # paths are as the server sees them
        assert client.get("boot").payload == OLD
        subprocess.run([*enter, "mount", "-t", "tmpfs", "none", root], check=True)
        inside = Path(f"/proc/{server.process.pid}/root{root}/boot")
        inside.write_bytes(NEW)
        wait_for(lambda: get_or_code(client) == NEW, "what is mounted")
        # Who serves from a file system holds it: without --lazy it stays, and is served on.
        done = subprocess.run([*enter, "umount", *(["--lazy"] if is_lazy else []), root], check=False)
        assert (done.returncode == 0) == is_lazy
        wait_for(lambda: get_or_code(client) == (OLD if is_lazy else NEW), "what is there now")


def test_release_that_is_away_is_told_once_and_the_old_one_stays(base: Path) -> None:
    with serve_command(base / "current") as server, Client(server.address) as client:
        assert client.get("boot").payload == OLD
        switch(base, "releases/9")
        wait_for(lambda: "the old one stays" in server.log, "the warning")
        assert client.get("boot").payload == OLD
        switch(base)
        wait_for(lambda: client.get("boot").payload == NEW, "the new release")
        assert server.log.count("the old one stays") == 1


# ---- uploads


@pytest.fixture
def desk(base: Path) -> Iterator[UploadAnswerer]:
    overrides = {"root_dir": str(base / "current"), **WRITABLE, "write_config.max_total_bytes": LIMIT_BYTES}
    desk = UploadAnswerer(override(Settings(), overrides, source="test"))
    yield desk
    desk.close()


class Asked:
    transfer_id, peer, local_address, endpoint = 1, ("127.0.0.1", 1), None, 0

    def __init__(self, datagram: bytes) -> None:
        self.datagram = datagram


async def begin(desk: UploadAnswerer, name: str) -> Any:
    asked = Asked(f"\0\2up/{name}\0octet\0".encode())
    plan = (await cast(Any, desk.answer(asked, parse_request_untrusted(asked.datagram)))).plan
    assert plan.role == Role.RECEIVER
    fd = (await plan.context.open()).fd
    os.pwrite(fd, name.encode(), 0)
    return plan, fd


async def test_upload_is_stored_in_the_release_that_it_began_in(base: Path, desk: UploadAnswerer) -> None:
    before, _ = await begin(desk, "old")
    switch(base)
    assert desk.look_again()
    assert not desk.look_again()
    after, _ = await begin(desk, "new")
    for plan in (before, after):
        assert await plan.context.commit(3) is None
        plan.context.retired()
    assert (base / "releases/7/up/old").read_bytes() == b"old"
    assert (base / "releases/8/up/new").read_bytes() == b"new"
    assert not (base / "releases/8/up/old").exists()


async def test_upload_keeps_to_the_limit_although_the_root_has_moved(base: Path, desk: UploadAnswerer) -> None:
    plan, fd = await begin(desk, "old")
    switch(base)
    assert desk.look_again()

    async def write_on() -> None:
        # How the server cuts off one that outgrew the limit together with others.
        while os.pwrite(fd, b"x" * (LIMIT_BYTES + 1), 0):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)

    with pytest.raises(OSError, match="No space left"):
        await asyncio.wait_for(write_on(), 20)
    refusal = await plan.context.commit(LIMIT_BYTES + 1)
    assert refusal is not None
    assert refusal.code == ErrorCode.DISK_FULL
    plan.context.retired()


def generation_of(base: Path, name: str) -> Generation:
    return Generation.of(override(Settings(), {"root_dir": str(base / name), **WRITABLE}, source="test"))


async def test_upload_that_waits_while_another_root_comes_is_stored_in_the_one_it_was_allowed_in(
    base: Path, desk: UploadAnswerer
) -> None:
    """By rules of the old configuration nothing is written in the root of the new one, nor the other way round."""
    goes_on = threading.Event()
    device = (base / "current").stat().st_dev
    for _ in range(4):
        desk._beginning.submit_for(device, goes_on.wait, 10)
    waiting = asyncio.ensure_future(begin(desk, "old"))
    await asyncio.sleep(0.01)
    generation = generation_of(base, "releases/8")
    desk.reload(generation, desk.area_for(generation))
    goes_on.set()
    before, _ = await waiting
    after, _ = await begin(desk, "new")
    for plan in (before, after):
        assert await plan.context.commit(3) is None
        plan.context.retired()
    assert (base / "releases/7/up/old").read_bytes() == b"old"
    assert (base / "releases/8/up/new").read_bytes() == b"new"
    assert not (base / "releases/8/up/old").exists()


async def test_reload_that_comes_while_the_root_is_looked_up_is_not_undone_by_that(
    base: Path, desk: UploadAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch(base)
    sweep, generation = UploadArea.sweep, generation_of(base, "releases/7")

    def reload_meanwhile(area: UploadArea) -> Any:
        desk.reload(generation, desk.area_for(generation))
        return sweep(area)

    monkeypatch.setattr(UploadArea, "sweep", reload_meanwhile)
    descriptors = count_descriptors()
    assert not desk.look_again()
    assert count_descriptors() == descriptors
    plan, _ = await begin(desk, "new")
    assert await plan.context.commit(3) is None
    plan.context.retired()
    assert (base / "releases/7/up/new").read_bytes() == b"new"


async def test_leftovers_of_a_crash_are_removed_from_another_root_too(base: Path, desk: UploadAnswerer) -> None:
    leftover = base / "releases/8/up" / os.fsdecode(staging._new_staging_name())
    leftover.write_bytes(b"half")
    generation = generation_of(base, "releases/8")
    area = desk.area_for(generation)
    assert leftover.exists(), "who only prepares changes nothing"
    desk.reload(generation, area)
    desk.tidy()
    assert desk._walking.finish(10)
    assert not leftover.exists()


# ---- the parts


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - without a descriptor of its own


def test_switching_for_years_costs_no_descriptors(base: Path, desk: UploadAnswerer) -> None:
    decider = FileDecider(override(Settings(), {"root_dir": str(base / "current")}, source="test"))
    counts = []
    for number in range(20):
        switch(base, f"releases/{7 + (number + 1) % 2}")
        assert decider.look_again()
        assert desk.look_again()
        counts.append(count_descriptors())
    decider.close()
    assert len(set(counts[3:])) == 1, counts


def test_missing_root_is_a_config_error_and_changes_nothing(base: Path, desk: UploadAnswerer) -> None:
    decider = FileDecider(override(Settings(), {"root_dir": str(base / "current")}, source="test"))
    switch(base, "nowhere")
    for look in (decider.look_again, desk.look_again):
        with pytest.raises(ConfigError, match="root_dir"):
            look()
    decider.in_force[1].tree.open_for_reading("boot").close()
    decider.close()


async def test_one_part_that_moved_is_followed_although_another_could_not(base: Path) -> None:
    moved, lines = asyncio.Event(), []

    def fail() -> bool:
        raise ConfigError("root_dir: gone")

    class Log:
        def info(self, event: str, **fields: Any) -> None:
            lines.append(event)

        warning = info

    report = cast(Any, type("Report", (), {"log": Log()}))
    with ThreadPoolExecutor(1) as threads:
        watch = RootWatch(str(base / "current"), [lambda: True, fail], threads, moved.set, report)
        watch.ask()
        task = asyncio.create_task(watch.run())
        await asyncio.wait_for(moved.wait(), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert lines == ["root cannot be looked up again, the old one stays", "root or link_targets lead elsewhere now"]


async def test_only_a_root_behind_links_is_looked_up_unasked(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_watch, "_LOOK_S", 0.001)
    counts = {"current": 0, "releases/7": 0}

    def watch(name: str) -> RootWatch:
        def look() -> bool:
            counts[name] += 1
            return False

        return RootWatch(str(base / name), [look], threads, lambda: None, cast(Any, None))

    async def until(condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - a count in a thread sets no event
                await asyncio.sleep(0.001)

    with ThreadPoolExecutor(1) as threads:
        watches = {name: watch(name) for name in counts}
        tasks = [asyncio.create_task(one.run()) for one in watches.values()]
        await until(lambda: counts["current"] > 50)
        assert counts["releases/7"] == 1
        watches["releases/7"].ask()
        await until(lambda: counts["releases/7"] == 2)
        before = counts["current"]
        await until(lambda: counts["current"] > before + 5)
        assert counts["releases/7"] == 2, "an idle server looks at nothing"
        watches["releases/7"].suspect()
        await until(lambda: counts["releases/7"] == 3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
