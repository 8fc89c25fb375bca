"""The operator's command for finished uploads: `on_upload = ["program", "{path}", "{client}"]`.

    {path}     where the file is, absolute, links resolved        {client}   the client's address, without port

May know processes and the log. Must not know requests, transfers or content.

Invariants:
- No shell. A placeholder fills a part of one argument, whatever the name holds; as the path is
  absolute, a file called `-rf` cannot become an option, and the program itself may not be a placeholder.
- At most `on_upload_max_running` run at a time and `MAX_WAITING` wait; more are dropped with a line in
  the log. None runs longer than `on_upload_timeout_s`: its whole process group is killed then.
- What it does, or fails to do, changes nothing for the client, who was answered already.
- The command sees no secret of ours: a minimal environment, no descriptor but /dev/null and standard
  error, where all its output goes.

Used by the thread of the event loop.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snow_owl_tftp.config.schema import WriteSettings
from snow_owl_tftp.errors import ConfigError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["UploadHook"]

MAX_WAITING: Final = 1024
"""A night's backup of a thousand switches; an entry holds two short texts."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT: Final = {"PATH": _PATH, "LANG": "C.UTF-8"}
_PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")
_KNOWN: Final = frozenset({"path", "client"})


class UploadHook:
    """Runs one command per upload, a few at a time.

    Attributes:
        log: Where lines go.
        dropped_total: Uploads whose command never ran because too many were waiting.
        failed_total: Commands that could not be started, ended with another status than 0, or took too long.
    """

    def __init__(self, settings: WriteSettings, log: "FilteringBoundLogger") -> None:
        """Check the command; an empty one makes `submit` do nothing.

        Raises:
            ConfigError: The program is not there, or a placeholder is none of ours.
        """
        self.dropped_total = 0
        self.failed_total = 0
        self.log = log
        self._timeout_s = settings.on_upload_timeout_s
        self._max_running = settings.on_upload_max_running
        self._command = _checked(settings.on_upload)
        self._waiting: deque[list[bytes]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, real_path: Path, client: str) -> None:
        """Run the command for one upload, now or when another one has ended; never waits, never raises."""
        if not self._command:
            return
        arguments = _filled(self._command, {"path": os.fspath(real_path), "client": client})
        if len(self._running) < self._max_running:
            self._start(arguments)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(arguments)
        else:
            self.dropped_total += 1
            self.log.warning("on_upload dropped", path=os.fspath(real_path), waiting=len(self._waiting))

    async def close(self) -> None:
        """Let those that run come to their end, within their time; forget those that wait."""
        if self._waiting:
            self.log.warning("on_upload not run", uploads=len(self._waiting))
        self._waiting.clear()
        while self._running:
            await asyncio.wait(self._running)

    def _start(self, arguments: list[bytes]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(arguments))
        self._running.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if self._waiting:
            self._start(self._waiting.popleft())

    async def _run(self, arguments: list[bytes]) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._note_failure(arguments, reason=error.strerror or "cannot be started")
            return
        try:
            status = await asyncio.wait_for(process.wait(), self._timeout_s)
        except TimeoutError:
            # It is not reaped yet, so its number still names it and its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            self._note_failure(arguments, reason=f"took longer than {self._timeout_s} s")
        else:
            if status:
                self._note_failure(arguments, reason=f"status {status}")

    def _note_failure(self, arguments: list[bytes], *, reason: str) -> None:
        self.failed_total += 1
        command = " ".join(os.fsdecode(argument) for argument in arguments)
        self.log.warning("on_upload failed", command=command, reason=reason)


def _checked(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command with the program's full path."""
    if not command:
        return ()
    key = "write_config.on_upload"
    program, *arguments = command
    if _PLACEHOLDER.search(program):
        raise ConfigError(f"{key}: the program may hold no placeholder; pass it as an argument")
    for argument in arguments:
        unknown = set(_PLACEHOLDER.findall(argument)) - _KNOWN
        if unknown:
            raise ConfigError(f"{key}: {argument}: use {{path}} and {{client}}, there are no other placeholders")
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise ConfigError(f"{key}: {program}: no such program; give its absolute path")
    return (str(Path(found).absolute()), *arguments)


def _filled(command: tuple[str, ...], values: dict[str, str]) -> list[bytes]:
    # One pass: what was filled in is not looked at again, whatever braces a name holds.
    return [os.fsencode(_PLACEHOLDER.sub(lambda match: values[match[1]], argument)) for argument in command]
