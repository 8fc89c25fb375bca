"""What the rules say about one request, for whoever opens or receives the file.

May know: text. Must not know rules, files or who asked.
"""

from typing import Literal

from msgspec import Struct

__all__ = ["ReadDecision", "WriteDecision"]


class ReadDecision(Struct, frozen=True, gc=False):
    """A name that may be read, as far as rules go; the root confines it when it is opened.

    Attributes:
        paths: Normalised, relative to the root: the name as sent, and what is meant by it if that is another one. The
            first that exists is read.
        depends_on_asker: Another client might be told something else, so nobody may repeat this for him.
    """

    paths: tuple[bytes, ...]
    depends_on_asker: bool = False


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
