"""What the rules say about one request, for whoever opens or receives the file.

May know: text, and what may be negotiated. Must not know rules, files or who asked.
"""

from typing import Final, Literal, NamedTuple

from msgspec import Struct

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.client_limits import ClientLimits
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import OptionLimits

__all__ = ["BeyondLimitError", "DeniedError", "ReadDecision", "Require", "RootPath", "WriteDecision"]

Require = Literal["nothing", "world_readable", "owned"]

_ERROR_BYTES: Final = 5
"""Opcode, code and the zero behind the text."""
_TOO_MANY_REQUESTS: Final = ("Too many requests, try again later", "Too many requests", "Busy")
_TOO_MANY_TRANSFERS: Final = ("too many transfers from your address, try again later",)
"""As the engine says both."""


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
        client_limits: How much its client may have; None: no rule has a say.
    """

    paths: tuple[bytes, ...]
    depends_on_asker: bool = False
    roots: tuple[RootPath, ...] = ()
    limits: OptionLimits | None = None
    require: Require = "nothing"
    rule: int = 0
    client_limits: ClientLimits | None = None


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
        client_limits: Likewise.
    """

    path: bytes
    on_existing: Literal["refuse", "replace", "version", "replace_writable"]
    create_directories: bool
    file_mode_bits: int
    fsync: bool
    root: RootPath | None = None
    limits: OptionLimits | None = None
    rule: int = 0
    client_limits: ClientLimits | None = None


class DeniedError(RefusedError):
    """A rule says no.

    Attributes:
        rule: Its number, from 1.
    """

    def __init__(self, code: int, text: str, rule: int, *, is_silent: bool = False, why: str = "") -> None:
        super().__init__(code, text, why=f"rule {rule}{': ' if why else ''}{why}")
        self.rule = rule
        self.is_silent = is_silent


class BeyondLimitError(DeniedError):
    """A client has all that a rule lets it have.

    Args:
        limits: Of the rule.
        limit: Which of them, as the engine calls it.
        request_bytes: How long its request was: what may be forged is answered with no more.
    """

    def __init__(self, limits: ClientLimits, limit: str, request_bytes: int) -> None:
        texts = _TOO_MANY_TRANSFERS if "transfers" in limit else _TOO_MANY_REQUESTS
        text = next((one for one in texts if len(one) + _ERROR_BYTES <= request_bytes), texts[-1])
        super().__init__(ErrorCode.NOT_DEFINED, text, limits.rule, why=limit)
        self.limit = limit
        if not limits.rule:  # what holds for every client
            self.why = f"limits.{limit}"
