"""The root is looked up again: at SIGHUP, and once a second where links lead to it, or while the server has work.

    root_dir = "/srv/tftp/current"      current -> releases/7
                                        current -> releases/8     new requests are served from here

A release is switched by replacing a link, and whoever does it does not want to restart the server, which
would cut off running transfers. A root without links on its way may be removed and made anew, or be mounted
over: who asks for files finds out. An idle server is not woken for that.

May know: whom to ask and whom to tell. Must not know what a root is.
Invariant: the event loop never waits for the disk that holds the root.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.linux.paths import real_path
from snow_owl_tftp.server.narrate import Report

__all__ = ["RootWatch"]

_LOOK_S: Final = 1.0
"""How long a new release may go unnoticed; a look costs some ten system calls in a thread."""


class RootWatch:
    """Has the root looked up when it is asked to, and when it may have moved."""

    def __init__(
        self,
        root: str,
        looks: Sequence[Callable[[], bool]],
        threads: Executor,
        on_moved: Callable[[], None],
        report: Report,
        what: str = "root or link_targets",
    ) -> None:
        """Prepare; nothing is looked up before `run`.

        Args:
            root: Its path.
            looks: Each looks it up again, goes on there and says whether that is elsewhere; raises ConfigError when
                there is no root now, and keeps the old one. Called in a thread.
            threads: Where.
            on_moved: Called by the loop when it was.
            report: Told.
            what: That may lead elsewhere, for the report.
        """
        self._root = root
        self._looks = looks
        self._threads = threads
        self._on_moved = on_moved
        self._report = report
        self._moved_line = f"{what} lead elsewhere now"
        self._wakes = asyncio.Event()
        self._is_asked = False
        self._looked_s = -_LOOK_S
        self._failed = ""
        self._has_moved = False
        self._real_path = root

    def follow(self, root: str) -> None:
        """Say where another root leads from now on, if it is another one: the server has gone there."""
        if root != self._root:
            self._root = root
            self.ask()

    def ask(self) -> None:
        """Look soon."""
        self._is_asked = True
        self._wakes.set()

    def suspect(self) -> None:
        """Look, unless the last look was a moment ago; somebody has asked for a file. Called very often."""
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._wakes.set()

    async def run(self) -> None:
        """Look until this is cancelled."""
        loop, is_by_link = asyncio.get_running_loop(), True
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakes.wait(), _LOOK_S if is_by_link or self._failed else None)
            if self._is_asked:
                self._failed = ""  # who asks wants to be told again
            self._is_asked = False
            self._looked_s = time.monotonic()
            self._wakes.clear()
            try:
                is_by_link = await loop.run_in_executor(self._threads, self._look)
                self._failed = ""
            except ConfigError as error:
                self._tell_failure(str(error))
            except Exception as error:  # a bug of ours must cost a look, not the next ones too
                self._report.log.error("internal error", exc_info=error)
            if self._has_moved:
                self._has_moved = False
                self._on_moved()
                self._report.log.info(self._moved_line, root=self._root, to=self._real_path)

    def _look(self) -> bool:
        """Return whether links lead to the root; runs in a thread."""
        self._real_path = real_path(self._root)
        for look in self._looks:
            # Kept although the next one may fail: those that moved must be followed.
            self._has_moved = look() or self._has_moved
        return self._real_path != os.path.abspath(self._root)  # noqa: PTH100 - with its links

    def _tell_failure(self, reason: str) -> None:
        """Once, not once a second: a link that is removed and made anew is away for a moment only."""
        if self._failed != reason:
            self._report.log.warning("root cannot be looked up again, the old one stays", reason=reason)
        self._failed = reason
