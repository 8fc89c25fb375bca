"""Where content comes from: a source opens what was decided, at once or in a thread, and answers in one of three ways.

    open_now(named) ─► an open file | NotHere | LATER ─► open(named), in a thread ─► an open file | NotHere

May know: paths and errors. Must not know rules, peers or how a file is opened; `files` is one source.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from snow_owl_tftp.errors import RefusedError

__all__ = ["LATER", "ContentSource", "Identity", "Later", "Named", "NamedInRoots", "NamedRoot", "NotHere"]


class Named(Protocol):
    """What was decided may be read; `policy.decision.ReadDecision` is such an object."""

    @property
    def paths(self) -> tuple[bytes, ...]:
        """Spellings of one name, normalised, relative to the root: the first that exists is meant."""

    @property
    def require(self) -> Literal["nothing", "world_readable", "owned"]:
        """Of the file: o+r; or that it belongs to the server's user, and where that is root o+r."""


class NamedRoot(Protocol):
    """One of the directories in which a name is looked for; `policy.decision.RootPath` is such an object."""

    @property
    def directory(self) -> str:
        """Relative to root_dir or absolute; empty: root_dir."""

    @property
    def below(self) -> bytes:
        """A path beneath it that leads to the root; empty: it is the root itself."""


class NamedInRoots(Named, Protocol):
    """A name that is looked for in several directories, one after another."""

    @property
    def roots(self) -> Sequence[NamedRoot]:
        """At least one."""


class Identity(NamedTuple):
    """Tells one content from another.

    Attributes:
        device: Of the file.
        inode: Of the file.
        size_bytes: As of opening.
        mtime_ns: Likewise.
        ctime_ns: Likewise. Unlike mtime nobody can set it back.
    """

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


class NotHere(Struct, frozen=True):
    """There is nothing to send.

    Attributes:
        refusal: What to answer instead.
    """

    refusal: RefusedError


class _Answer(Enum):
    LATER = "later"


LATER: Final = _Answer.LATER
"""Nothing is known yet without waiting: call `open`, in a thread."""
Later: TypeAlias = Literal[_Answer.LATER]

_O = TypeVar("_O", covariant=True)


class ContentSource(Protocol[_O]):
    """Opens what may be read, as an object of one kind: the caller's to close."""

    def open_now(self, named: Named) -> _O | NotHere | Later:
        """Open if that can be done without waiting for anything."""

    def open(self, named: Named) -> _O | NotHere:
        """Open; may wait, so call it in a thread of the device that `device_of` names."""

    def device_of(self, named: Named, may_wait_on: int | None = None) -> int:
        """Return on which device (st_dev) a name has to be waited for next.

        Args:
            named: As for `open`.
            may_wait_on: None: do not wait at all.
        """
