"""The rules: may this path be read, may it be written, and under which conditions.

May know: settings and text. Must not open anything, and must not know who asks by anything but its
arguments.

Invariant: what is not allowed in so many words is refused. A server that takes uploads nobody meant
to allow hands its boot images to whoever can send a datagram.
"""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from snow_owl_tftp.config.schema import WriteSettings
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.policy.patterns import PathPatterns
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode

__all__ = ["Decision", "Policy", "ReadDecision", "WriteDecision", "is_hidden"]

_WHY_HIDDEN: Final = 'a part of the name begins with a dot; hidden = "serve" would allow it'


class ReadDecision(Struct, frozen=True, gc=False):
    """This path may be read, as far as rules go; the root confines it when it is opened.

    Attributes:
        path: Normalised, relative to the root.
    """

    path: bytes


class WriteDecision(Struct, frozen=True, gc=False):
    """This path may be written.

    Attributes:
        path: Normalised, relative to the root, without `..`.
        on_existing: What to do where the path exists already.
        create_directories: Whether missing directories on the way are made.
        file_mode_bits: Permissions of the new file, 0..0o777.
        fsync: Whether the file must be on the disk before its last ACK.
    """

    path: bytes
    on_existing: Literal["refuse", "replace", "version", "replace_writable"]
    create_directories: bool
    file_mode_bits: int
    fsync: bool


Decision: TypeAlias = ReadDecision | WriteDecision


class Policy:
    """The rules of one configuration; made anew when it is reloaded."""

    def __init__(self, write: WriteSettings, hidden: Literal["refuse", "serve"] = "refuse") -> None:
        """Compile the rules.

        Args:
            write: Which uploads are taken.
            hidden: What to do about names of which a part begins with a dot.

        Raises:
            ConfigError: A pattern is none.
        """
        try:
            self._writable = PathPatterns(write.allowed_patterns)
        except ConfigError as error:
            raise ConfigError(f"write_config.allowed_patterns: {error}") from error
        self._write = write
        self._refuses_hidden = hidden == "refuse"
        # `allow_overwrite = true` is the older spelling of `on_existing = "replace"`.
        refuses = write.on_existing == "refuse"
        self._on_existing = "replace" if refuses and write.allow_overwrite else write.on_existing

    def decide(self, kind: Opcode, path: bytes) -> Decision:
        """Decide about a request.

        Args:
            kind: RRQ or WRQ.
            path: Normalised, relative to the root.

        Raises:
            RefusedError: ACCESS_VIOLATION; FILE_NOT_FOUND for a hidden name that is to be read, as if it were not
                there, for that is what hiding means.
        """
        if kind == Opcode.WRQ:
            return self.decide_write(path)
        if self._refuses_hidden and is_hidden(path):
            raise RefusedError(ErrorCode.FILE_NOT_FOUND, "File not found", why=_WHY_HIDDEN)
        return ReadDecision(path)

    def decide_write(self, path: bytes) -> WriteDecision:
        """Decide about a WRQ.

        Args:
            path: Normalised, relative to the root.

        Raises:
            RefusedError: ACCESS_VIOLATION: writing is off, no pattern allows this path, or it is hidden.
        """
        if not self._write.enabled:
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing is not allowed")
        # A pattern sees text: `open/../closed/x` would match `open/**` and be written elsewhere.
        if path == b"." or b".." in path.split(b"/") or not self._writable.match(path):
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing this name is not allowed")
        if self._refuses_hidden and is_hidden(path):
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing this name is not allowed", why=_WHY_HIDDEN)
        return WriteDecision(
            path, self._on_existing, self._write.create_directories, self._write.file_mode_bits, self._write.fsync
        )


def is_hidden(path: bytes) -> bool:
    """Tell whether any part of a path begins with a dot; `..` leads somewhere and hides nothing."""
    # First what is quick to see: hardly any path has such a part.
    return (path.startswith(b".") or b"/." in path) and any(
        part.startswith(b".") and part not in (b".", b"..") for part in path.split(b"/")
    )
