"""What a handler is given and what it gives back: the words of the library's server, without its work.

May know: confined names, ERROR codes. Must not know plans, threads or the engine.
Invariant: what cannot be sent is refused where it is made, in the handler's own line, not where it would be sent.
"""

import io
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from snow_owl_tftp.library.confined import ConfinedFile
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["Content", "ReadHandler", "ReadRequest", "Refuse", "Response", "Upload", "WriteHandler"]

_MAX_TEXT_CHARACTERS: Final = 250
"""As the engine cuts the text of an abort; an ERROR of some thousand bytes arrives nowhere."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Who asks for what.

    Attributes:
        client: Address of the client.
        client_port: Its UDP port (TID).
        server: The address it asked, or None where the server is bound to one.
        path: The name, made safe: relative, parts joined by "/", no ".." in it. What would lead above the top, and what
            holds control characters, was refused before. Links are not looked at: `under` does that.
        mode: 'octet' or 'netascii'; the server converts, a handler need not look.
        options: Asked for, names in lower case; the server negotiates them.
        raw_name: The name as sent, any bytes but NUL. Bytes, so that it cannot be joined to a path by mistake.
    """

    client: str
    client_port: int
    server: str | None
    path: str
    mode: str
    options: Mapping[str, str]
    raw_name: bytes = b""

    def under(self, root: str | os.PathLike[str], *, hidden: bool = False) -> ConfinedFile:
        """Name the file that is asked for, below a directory: the safe way to send files.

        Args:
            root: The directory.
            hidden: Whether to send what begins with a dot, a file or a directory on the way. Not given: there is no
                such file.

        Returns:
            The file, for a Response: no name and no link leads out of the directory.
        """
        return ConfinedFile(Path(root), self.path, hidden)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client has sent, whole, before it is told so.

    Attributes:
        client: Address of the client.
        client_port: Its UDP port (TID).
        path: As ReadRequest.path.
        mode: 'octet' or 'netascii'; `data` is converted already.
        options: As ReadRequest.options.
        raw_name: As ReadRequest.raw_name.
        data: The bytes.
    """

    client: str
    client_port: int
    path: str
    mode: str
    options: Mapping[str, str]
    raw_name: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """An ERROR instead of a file.

    Attributes:
        code: ErrorCode, 0..8; 1: file not found, 2: access violation.
        text: For the human at the other end; ASCII. What exceeds 250 characters is cut off.

    Raises:
        ValueError: There is no such code.
    """

    code: int = int(ErrorCode.FILE_NOT_FOUND)
    text: str = "File not found"

    def __post_init__(self) -> None:
        if self.code not in tuple(ErrorCode):
            raise ValueError(f"the code of an ERROR must be 0..8, not {self.code!r}")
        object.__setattr__(self, "text", self.text[:_MAX_TEXT_CHARACTERS])


Content: TypeAlias = (
    bytes
    | str
    | ConfinedFile
    | os.PathLike[str]
    | BinaryIO
    | AsyncIterable[bytes]
    | Iterator[bytes]
    | list[bytes]
    | tuple[bytes, ...]
    | Refuse
)


@dataclass(frozen=True, slots=True)
class Response:
    """A file.

    Attributes:
        content: One of
            bytes;
            a str: text, sent as UTF-8 (the name of a file is a Path);
            what `ReadRequest.under` returns: a regular file below a directory;
            a Path of a regular file, opened as this program opens it, links followed; with `Server(root=...)` only
            below that;
            a file object open for reading bytes: read from where it stands to its end, as fast as the client takes it,
            and not closed. A client that asks for tsize is told it where the file can be measured by seeking, in
            octet mode. A `read` that hangs ends its transfer when its time is up, but holds one of 32 threads until it
            returns;
            an iterator, a list or an async iterable of bytes, whose length nobody knows, so that nobody is told a
            tsize; an iterator's steps run in threads, as `read` does;
            a Refuse.

    Raises:
        TypeError: It is something else.
    """

    content: Content

    def __post_init__(self) -> None:
        problem = _problem_of(self.content)
        if problem:
            raise TypeError(problem)


ReadHandler: TypeAlias = Callable[[ReadRequest], Awaitable[Response | Refuse] | Response | Refuse]
WriteHandler: TypeAlias = Callable[[Upload], Awaitable[Refuse | None] | Refuse | None]

_KINDS: Final = (bytes, bytearray, memoryview, str, os.PathLike, ConfinedFile, Refuse)
_CHUNKS: Final = (AsyncIterable, Iterator, list, tuple)


def _problem_of(content: Any) -> str:
    """Say what to write instead; empty: it can be sent."""
    if isinstance(content, io.TextIOBase):
        return 'a file must be open for reading bytes: open(path, "rb")'
    if isinstance(content, Awaitable):
        return f"a Response cannot hold {type(content).__name__}: await it first"
    if isinstance(content, _KINDS) or hasattr(content, "read") or isinstance(content, _CHUNKS):
        return ""
    instead = "give bytes, a str, a Path, request.under(root), a file object or an iterator of bytes"
    return f"a Response cannot hold {type(content).__name__}; {instead}"
