"""`tftp://` for fsspec, so that pandas and whatever else opens URLs through it can read and write them.

    fsspec.open("tftp://10.0.0.1/boot/grub.cfg").open()

May know: fsspec (the extra `fsspec`) and the blocking client. Must not be imported by the rest of the package.
Invariants: TFTP has no seek, no listing and no directories: a file is fetched whole when it is opened, and stored whole
when it is closed; half a file is never stored; what TFTP cannot do raises instead of guessing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from fsspec.core import get_compression  # type: ignore[import-untyped]
from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.utils import stringify_path  # type: ignore[import-untyped]

from snow_owl_tftp.client.api import Client, SettingsArguments
from snow_owl_tftp.client.fs.files import DownloadFile, UploadFile
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.url import parse_url
from snow_owl_tftp.errors import TransferRefused
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["TftpFileSystem"]

_OPTIONS_OF_FSSPEC = frozenset(
    {"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "asynchronous", "loop"}
)
"""What AbstractFileSystem documents as storage options of every file system."""


class TftpFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files of any TFTP server; paths are whole URLs. Storage options are the fields of ClientSettings.

    TFTP tells no time of change: behind `filecache::` give an expiry_time, since a file of the same size counts as the
    same file. `blockcache::` is refused: a block costs the whole file.
    fsspec takes `::` for its own: an IPv6 address is written without it, as in `tftp://[fd00:0:0:0:0:0:0:1]/boot.cfg`.
    """

    protocol = "tftp"
    cachable = False  # an instance holds the caller's settings only; nothing is worth sharing

    def __init__(self, **settings: Any) -> None:
        """Keep the settings; see ClientSettings.

        Raises:
            TypeError: There is no such setting.
            ConfigError: A setting is out of its range.
        """
        own = {name: settings.pop(name) for name in _OPTIONS_OF_FSSPEC & settings.keys()}
        super().__init__(**own)
        ClientSettings(**settings)
        self._settings = cast(SettingsArguments, settings)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Nothing is stripped: the host is part of the name."""
        return [stringify_path(p) for p in path] if isinstance(path, list) else stringify_path(path)

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Any = None,
        compression: str | None = None,
        **options: Any,
    ) -> Any:
        """As AbstractFileSystem.open.

        Raises:
            ValueError: TFTP has no such mode; or what is written is to be compressed, by a file object of fsspec's that
                would never close ours.
            FileNotFoundError: The server says so.
            TransferError: Anything else that went wrong.
        """
        if "r" not in mode and get_compression(path, compression) is not None:
            raise ValueError("to write compressed, use fsspec.open(url, mode, compression=...)")
        return super().open(path, mode, block_size, cache_options, compression, **options)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        cache_type: Any = None,
        size: int | None = None,
    ) -> Any:
        """What fsspec asks for; sizes and caches are for files that can be read in parts."""
        parse_url(path)
        if mode == "rb":
            return self._fetched(path)
        if mode == "wb":
            return UploadFile(path, self._settings, autocommit)
        if mode == "xb":
            raise ValueError("TFTP cannot say that a file must be new; with 'wb' the server decides")
        raise ValueError(f"TFTP cannot open for {mode!r}")

    def _fetched(self, path: str) -> DownloadFile:
        file = DownloadFile(path)
        try:
            with Client(**self._settings) as client, _missing_as_not_found(path):
                client.get(path, cast(BinaryIO, file))
        except BaseException:
            file.close()
            raise
        file.size = file.tell()
        file.seek(0)
        return file

    def _size(self, path: str) -> int | None:
        with Client(**self._settings) as client, _missing_as_not_found(path):
            return client.size(path)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name and size; the file is fetched only where the server does not tell its size otherwise.

        Raises:
            FileNotFoundError: The server says so.
            TransferError: Anything else that went wrong.
        """
        path = self._strip_protocol(path)
        size_bytes = self._size(path)
        if size_bytes is None:
            with self._fetched(path) as file:
                size_bytes = file.size
        return {"name": path, "size": size_bytes, "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a file.

        Raises:
            TransferError: The server says neither; it may be dead.
        """
        try:
            self._size(self._strip_protocol(path))
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """As `exists`: whatever TFTP can name is a file."""
        return self.exists(path)

    def isdir(self, path: str) -> bool:
        """False, and nobody is asked: TFTP has no directories."""
        return False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Raises: NotImplementedError, TFTP has no listing."""
        raise NotImplementedError("TFTP has no listing")


@contextmanager
def _missing_as_not_found(path: str) -> Iterator[None]:
    """ERROR 1, in the words of files."""
    try:
        yield
    except TransferRefused as error:
        if error.code == ErrorCode.FILE_NOT_FOUND:
            raise FileNotFoundError(path) from error
        raise
