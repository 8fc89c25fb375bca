"""SHA-256 of what was transferred.

May know: files. Must not know: transfers.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO

__all__ = ["Hashing", "sha256_of_file"]


class Hashing:
    """A file object that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        from snow_owl_tftp.client.targets import hand_over

        hand_over(data, self._file)
        self._digest.update(data)
        return len(data)

    def read(self, size_bytes: int = -1) -> bytes:
        data = self._file.read(size_bytes)
        self._digest.update(data)
        return data

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def sha256_of_file(path: Path) -> str | None:
    """Of a regular file; a device is not asked for what it was given."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
