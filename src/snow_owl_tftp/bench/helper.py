"""The load and the relay as processes of their own, and what is said to them: JSON, one message a line.

May know: `python -m` and pipes. Must not know: what the messages mean.
Invariant: the process ends with the `with` block, also when that fails.
"""

import json
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Helper", "RunError"]

_END_LIMIT_S: Final = 15.0


class RunError(Exception):
    """A run could not be made."""


class Helper:
    """A process of this package that speaks JSON lines."""

    def __init__(self, module: str, asked: dict[str, Any]) -> None:
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"snow_owl_tftp.bench.{module}", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is ours to answer
        )
        self._unread = b""

    def read(self, limit_s: float) -> dict[str, Any]:
        """The next message.

        Raises:
            RunError: It did not come in time, the process ended, or it reports an error.
        """
        assert self._process.stdout is not None
        end_s = time.monotonic() + limit_s
        while b"\n" not in self._unread:
            if not select.select([self._process.stdout], [], [], max(0.0, end_s - time.monotonic()))[0]:
                raise RunError(f"the {self._name} process said nothing for {limit_s:.0f} s")
            got = self._process.stdout.read(65536)
            if not got:
                raise RunError(f"the {self._name} process ended with status {self._process.wait()}")
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise RunError(message["error"])
        return message

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    def end_input(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
