"""Snow Owl: a TFTP server that decides in Python once per request and streams in native code once per datagram.

    get, put            one file, blocking
    Client, AsyncClient many files over one engine
    Server              a server whose answers are a function of yours

May know: the names that callers of the package use, nothing of how they work.
Invariant: importing the package costs next to nothing; it pulls in no engine, no event loop and no command line. A name
is imported when it is first used.
Must not: hold logic, or the version anywhere else (pyproject.toml reads it from here, as text).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "snow_owl_tftp.client.api",
    "BadPacket": "snow_owl_tftp.errors",
    "Client": "snow_owl_tftp.client.api",
    "ClientSettings": "snow_owl_tftp.client.settings",
    "Completion": "snow_owl_tftp.library.told",
    "ConfigError": "snow_owl_tftp.errors",
    "ConfinedFile": "snow_owl_tftp.library.confined",
    "Counts": "snow_owl_tftp.library.counts",
    "EngineError": "snow_owl_tftp.errors",
    "ForkedError": "snow_owl_tftp.errors",
    "InternalError": "snow_owl_tftp.errors",
    "ReadRequest": "snow_owl_tftp.library.responses",
    "Refuse": "snow_owl_tftp.library.responses",
    "RefusedError": "snow_owl_tftp.errors",
    "Response": "snow_owl_tftp.library.responses",
    "Server": "snow_owl_tftp.library.server",
    "TftpError": "snow_owl_tftp.errors",
    "TftpUrl": "snow_owl_tftp.client.url",
    "TransferAborted": "snow_owl_tftp.errors",
    "TransferChanged": "snow_owl_tftp.errors",
    "TransferDiskFull": "snow_owl_tftp.errors",
    "TransferError": "snow_owl_tftp.errors",
    "TransferRefused": "snow_owl_tftp.errors",
    "TransferResult": "snow_owl_tftp.client.transfer",
    "TransferTimedOut": "snow_owl_tftp.errors",
    "TransferUnreachable": "snow_owl_tftp.errors",
    "Upload": "snow_owl_tftp.library.responses",
    "get": "snow_owl_tftp.client.api",
    "parse_url": "snow_owl_tftp.client.url",
    "put": "snow_owl_tftp.client.api",
}

__all__ = [
    "AsyncClient",
    "BadPacket",
    "Client",
    "ClientSettings",
    "Completion",
    "ConfigError",
    "ConfinedFile",
    "Counts",
    "EngineError",
    "ForkedError",
    "InternalError",
    "ReadRequest",
    "Refuse",
    "RefusedError",
    "Response",
    "Server",
    "TftpError",
    "TftpUrl",
    "TransferAborted",
    "TransferChanged",
    "TransferDiskFull",
    "TransferError",
    "TransferRefused",
    "TransferResult",
    "TransferTimedOut",
    "TransferUnreachable",
    "Upload",
    "__version__",
    "get",
    "parse_url",
    "put",
]

if TYPE_CHECKING:
    from snow_owl_tftp.client.api import AsyncClient, Client, get, put
    from snow_owl_tftp.client.settings import ClientSettings
    from snow_owl_tftp.client.transfer import TransferResult
    from snow_owl_tftp.client.url import TftpUrl, parse_url
    from snow_owl_tftp.errors import (
        BadPacket,
        ConfigError,
        EngineError,
        ForkedError,
        InternalError,
        RefusedError,
        TftpError,
        TransferAborted,
        TransferChanged,
        TransferDiskFull,
        TransferError,
        TransferRefused,
        TransferTimedOut,
        TransferUnreachable,
    )
    from snow_owl_tftp.library.confined import ConfinedFile
    from snow_owl_tftp.library.counts import Counts
    from snow_owl_tftp.library.responses import ReadRequest, Refuse, Response, Upload
    from snow_owl_tftp.library.server import Server
    from snow_owl_tftp.library.told import Completion


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
