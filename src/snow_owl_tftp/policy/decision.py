"""What the rules say about one request, for whoever opens or receives the file.

May know: text, and what may be negotiated. Must not know rules, files or who asked.
"""

from typing import Literal, NamedTuple

from msgspec import Struct

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.options import OptionLimits

__all__ = ["DeniedError", "ReadDecision", "Require", "RootPath", "WriteDecision"]

Require = Literal["nothing", "world_readable", "owned"]


class RootPath(NamedTuple):
    """A directory in which content is looked for.

    Attributes:
        directory: As the operator wrote it, relative to root_dir or absolute; empty: root_dir itself.
        below: What variables made of the rest, beneath it; empty: nothing, the directory is the root.
    """

    directory: str
    below: bytes = b""


class ReadDecision(Struct, frozen=True, gc=False):
    """A name that may be read, as far as rules go; the root confines it when it is opened.

    Attributes:
        paths: Normalised, relative to the root: the name as sent, and what is meant by it if that is another one. The
            first that exists is read.
        depends_on_asker: Another client might be told something else, so nobody may repeat this for him; by rules that
            are classed (RuleSet.is_classed), another one of the same class.
        roots: Where it is looked for, in this order; empty: in root_dir.
        limits: What may be negotiated; None: what the settings say for all.
        require: Of the file.
        rule: By which rule, from 1; 0: by none.
    """

    paths: tuple[bytes, ...]
    depends_on_asker: bool = False
    roots: tuple[RootPath, ...] = ()
    limits: OptionLimits | None = None
    require: Require = "nothing"
    rule: int = 0


class WriteDecision(Struct, frozen=True, gc=False):
    """This path may be written.

    Attributes:
        path: Normalised, relative to the root, without `..`.
        on_existing: What to do where the path exists already.
        create_directories: Whether missing directories on the way are made.
        file_mode_bits: Permissions of the new file, 0..0o777.
        fsync: Whether the file must be on the disk before its last ACK.
        root: Where it goes; None: to root_dir.
        limits: As of ReadDecision.
        rule: Likewise.
    """

    path: bytes
    on_existing: Literal["refuse", "replace", "version", "replace_writable"]
    create_directories: bool
    file_mode_bits: int
    fsync: bool
    root: RootPath | None = None
    limits: OptionLimits | None = None
    rule: int = 0


class DeniedError(RefusedError):
    """A rule says no.

    Attributes:
        rule: Its number, from 1.
    """

    def __init__(self, code: int, text: str, rule: int, *, is_silent: bool = False, why: str = "") -> None:
        super().__init__(code, text, why=f"rule {rule}{': ' if why else ''}{why}")
        self.rule = rule
        self.is_silent = is_silent
