"""`tftp://` for fsspec, so that pandas and whatever else opens URLs through it can read and write them.

    fsspec.open("tftp://10.0.0.1/boot/grub.cfg").open()

May know: fsspec (the extra `fsspec`) and the blocking client. Must not be imported by the rest of the package.
Invariants: TFTP has no seek and no listing: a file is fetched whole when it is opened, and stored whole when it is
closed; what it cannot do raises instead of guessing.
"""

import io
import tempfile
from typing import Any, BinaryIO, cast

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from snow_owl_tftp.client.faces import Client, SettingsArguments
from snow_owl_tftp.client.url import parse_url
from snow_owl_tftp.errors import TransferRefused
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["TftpFileSystem"]

_MEMORY_BYTES = 16 << 20
"""Larger files are kept on disk while they are open."""


class TftpFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files of any TFTP server; paths are whole URLs. Storage options are the fields of ClientSettings."""

    protocol = "tftp"
    cachable = False  # an instance holds the caller's settings only; nothing is worth sharing

    def __init__(self, **settings: Any) -> None:
        """Keep the settings; see ClientSettings."""
        own = {name: settings.pop(name) for name in list(settings) if name not in SettingsArguments.__annotations__}
        super().__init__(**own)
        self._settings = settings

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        """Nothing is stripped: the host is part of the name."""
        return path

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        """The file as a seekable file object.

        Raises:
            FileNotFoundError: The server says so.
            TransferError: Anything else that went wrong.
        """
        parse_url(path)
        if mode == "rb":
            return self._fetched(path)
        if mode in ("wb", "xb"):
            return _Stored(path, self._settings)
        raise ValueError(f"TFTP cannot open for {mode!r}")

    def _fetched(self, path: str) -> BinaryIO:
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_MEMORY_BYTES))  # noqa: SIM115 - the caller's to close
        try:
            with Client(**self._settings) as client:
                client.get(path, file)
        except TransferRefused as error:
            file.close()
            if error.code == ErrorCode.FILE_NOT_FOUND:
                raise FileNotFoundError(path) from error
            raise
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The bytes, or a slice of them."""
        with self._fetched(path) as file:
            return file.read()[start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Store bytes; whether an existing file is replaced is the server's choice."""
        with Client(**self._settings) as client:
            client.put(path, value)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name and size; TFTP tells the size only with the file, so it is fetched.

        Raises:
            FileNotFoundError: The server says so.
        """
        with self._fetched(path) as file:
            size_bytes = file.seek(0, io.SEEK_END)
        return {"name": path, "size": size_bytes, "type": "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Raises: NotImplementedError, TFTP has no listing."""
        raise NotImplementedError("TFTP has no listing")


class _Stored(io.BytesIO):
    """Written to in memory, stored when it is closed."""

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self._url = url
        self._settings = settings

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            super().close()  # half a file is not stored
        self.close()

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            super().close()
            with Client(**self._settings) as client:
                client.put(self._url, content)
