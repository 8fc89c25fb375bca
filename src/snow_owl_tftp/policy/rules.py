"""The rules: may this path be read, may it be written, and under which conditions.

May know: settings and text. Must not open anything, and must not know who asks by anything but its
arguments.

Invariant: what is not allowed in so many words is refused. A server that takes uploads nobody meant
to allow hands its boot images to whoever can send a datagram.
"""

from typing import Final, Literal

from snow_owl_tftp.config.schema import WriteSettings
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import ReadDecision, WriteDecision
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.policy.patterns import PathPatterns
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Request

__all__ = ["Policy", "is_hidden"]

_WHY_HIDDEN: Final = 'a part of the name begins with a dot; hidden = "serve" would allow it'


class Policy:
    """The rules of one configuration; made anew when it is reloaded."""

    def __init__(
        self, write: WriteSettings, hidden: Literal["refuse", "serve"] = "refuse", machines: Machines = NO_MACHINES
    ) -> None:
        """Compile the rules.

        Args:
            write: Which uploads are taken.
            hidden: What to do about names of which a part begins with a dot.
            machines: Who is known.

        Raises:
            ConfigError: A pattern is none.
        """
        try:
            self._writable = PathPatterns(write.allowed_patterns)
        except ConfigError as error:
            raise ConfigError(f"write_config.allowed_patterns: {error}") from error
        self._machines = machines
        self._write = write
        self._refuses_hidden = hidden == "refuse"
        # `allow_overwrite = true` is the older spelling of `on_existing = "replace"`.
        refuses = write.on_existing == "refuse"
        self._on_existing = "replace" if refuses and write.allow_overwrite else write.on_existing

    def decide_read(self, asker: Asker, request: Request, paths: tuple[bytes, ...]) -> ReadDecision:
        """Decide about an RRQ.

        Args:
            asker: Who asks.
            request: For what.
            paths: The file name in its spellings, normalised, relative to the root; the one that was sent first.

        Raises:
            RefusedError: FILE_NOT_FOUND for a hidden name, as if it were not there, for that is what hiding means.
        """
        # The spelling as sent stands for all: what may be cut off its end hides no part, and bares none.
        if self._refuses_hidden and is_hidden(paths[0]):
            raise RefusedError(ErrorCode.FILE_NOT_FOUND, "File not found", why=_WHY_HIDDEN)
        return ReadDecision(paths, self._machines.tells_apart)

    def decide_write(self, asker: Asker, request: Request, path: bytes) -> WriteDecision:
        """Decide about a WRQ.

        Args:
            asker: Who asks.
            request: For what.
            path: The file name, normalised, relative to the root.

        Raises:
            RefusedError: ACCESS_VIOLATION: writing is off, no pattern allows this path, or it is hidden.
        """
        self._check_write(path)
        return WriteDecision(
            path, self._on_existing, self._write.create_directories, self._write.file_mode_bits, self._write.fsync
        )

    @property
    def machines(self) -> Machines:
        """Who is known."""
        return self._machines

    def is_writable(self, path: bytes) -> bool:
        """Tell whether anybody may write a path, normalised as for `decide_write`."""
        try:
            self._check_write(path)
        except RefusedError:
            return False
        return True

    def _check_write(self, path: bytes) -> None:
        if not self._write.enabled:
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing is not allowed")
        # A pattern sees text: `open/../closed/x` would match `open/**` and be written elsewhere.
        if path == b"." or b".." in path.split(b"/") or not self._writable.match(path):
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing this name is not allowed")
        if self._refuses_hidden and is_hidden(path):
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing this name is not allowed", why=_WHY_HIDDEN)


def is_hidden(path: bytes) -> bool:
    """Tell whether any part of a path begins with a dot; `..` leads somewhere and hides nothing."""
    # First what is quick to see: hardly any path has such a part.
    return (path.startswith(b".") or b"/." in path) and any(
        part.startswith(b".") and part not in (b".", b"..") for part in path.split(b"/")
    )
