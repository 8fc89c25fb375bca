"""A server with every feature on that reloads one of two configurations, and clients who look what they meet.

    with serve_every_feature(folder) as served, served.visitors():
        served.reload("B")

May know: the command and its log. Invariant: whatever a reload says, the server tells no defect of its own.
"""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.conftest import SEED
from tests.support.every_feature import TwoConfigurations, Visitor
from tests.support.server import ServerProcess, serve_command, wait_for

__all__ = ["ALIKE", "Reloading", "serve_every_feature"]

ALIKE: Final = ("/A/", "/B/")
"""Of paths: where the two differ."""


class Reloading:
    """A server with every feature, and its file."""

    def __init__(self, two: TwoConfigurations, server: ServerProcess) -> None:
        self.two = two
        self.server = server
        self.pid = server.process.pid

    def count(self, line: str) -> int:
        """How often the log says something."""
        return (self.two.folder / "log").read_text().count(f'"event":"{line}')

    def lines(self) -> list[dict[str, Any]]:
        """Of the log."""
        return [json.loads(line) for line in (self.two.folder / "log").read_text().splitlines()]

    def reloads(self) -> int:
        return self.count("settings reloaded") + self.count("reload refused")

    def hang_up(self) -> None:
        self.server.signal(signal.SIGHUP)

    def reload(self, which: str = "", more: str = "") -> None:
        """And wait until it is over; without `which` the file stays as it is."""
        self.reload_text(self.two.text(which, more) if which else "")

    def reload_text(self, text: str) -> None:
        """The same, with this text of the configuration."""
        before = self.reloads()
        if text:
            self.two.write_text(text)
        self.hang_up()
        wait_for(lambda: self.reloads() > before, "a reload")

    @contextmanager
    def visitors(self, count: int = 3) -> Iterator[list[Visitor]]:
        """Clients at work until the end of the block."""
        is_over, failed = threading.Event(), []
        visitors = [Visitor(self.two, self.server.address, SEED + number) for number in range(count)]

        def play(visitor: Visitor) -> None:
            try:
                while not is_over.is_set():
                    visitor.play()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=play, args=(visitor,)) for visitor in visitors]
        for thread in threads:
            thread.start()
        try:
            yield visitors
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert not failed, failed


@contextmanager
def serve_every_feature(folder: Path) -> Iterator[Reloading]:
    """With the configuration "A"."""
    two = TwoConfigurations(folder)
    two.write("A")
    arguments = ("--config", str(two.config))
    with serve_command(None, *arguments, stderr_path=folder / "stderr", env=two.environment) as server:
        served = Reloading(two, server)
        wait_for(lambda: served.count("server started"), "its first line")
        yield served
        assert (folder / "stderr").read_text() == ""
        assert served.count("internal error") == 0
