"""Which TFTP servers can be benchmarked here, and how each is started.

    KINDS["tftpd-hpa"].find()            → the program, or None
    KINDS["tftpd-hpa"].command(asked)    → argv

May know: command lines of other people's servers. Must not start anything.
Invariants: every server serves `root` read-only to 127/8 in the foreground, logs no more than its defaults to
nobody, and needs no file of the system's configuration.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from snow_owl_tftp.client.bench.settings import Target

__all__ = ["KINDS", "OURS", "Asked", "Kind", "has_classical", "installed_peers", "our_targets"]

OURS: Final = "ours"


@dataclass(frozen=True, slots=True)
class Asked:
    """How a server is to be started.

    Attributes:
        program: What `find` returned.
        root: The folder to serve.
        host: IPv4 address to listen on.
        port: UDP port to listen on.
        scratch: A folder for files of the server's own.
        batch: For ours: [performance.platform.batch].
    """

    program: str
    root: Path
    host: str
    port: int
    scratch: Path
    batch: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One server program.

    Attributes:
        find: The program or None.
        command: The argv.
        has_windows: Knows the option windowsize; else it serves windowed requests in lock-step.
        fixed_port: It listens nowhere else.
        in_root: It serves the folder in which it is started.
    """

    find: Callable[[], str | None]
    command: Callable[[Asked], list[str]]
    has_windows: bool = False
    fixed_port: int | None = None
    in_root: bool = False


def _on_path(name: str) -> Callable[[], str | None]:
    # Debian keeps servers out of an ordinary user's PATH; the environment of this Python has its own scripts.
    folders = ":".join(["/usr/local/sbin", "/usr/sbin", "/sbin", str(Path(sys.executable).parent)])
    return lambda: shutil.which(name) or shutil.which(name, path=folders)


def _ours(asked: Asked) -> list[str]:
    config = asked.scratch / "snow-owl-tftp.toml"
    lines = [
        f'root_dir = "{asked.root}"',
        f'bind_addr = "{asked.host}:{asked.port}"',
        "[logging]",
        'level = "warning"',
        "[performance.platform.batch]",
        *(f"{key} = {str(value).lower()}" for key, value in asked.batch.items()),
    ]
    config.write_text("\n".join(lines) + "\n")
    return [asked.program, "-m", "snow_owl_tftp", "serve", "--config", str(config)]


def _dnsmasq(asked: Asked) -> list[str]:
    return [
        asked.program,
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--group=root",
        "--pid-file=",
        "--enable-tftp",
        f"--tftp-root={asked.root}",
        "--tftp-max=20000",
        f"--listen-address={asked.host}",
        "--bind-interfaces",
    ]


_FBTFTP: Final = """
import sys
from fbtftp.base_handler import BaseHandler, ResponseData
from fbtftp.base_server import BaseServer

class File(ResponseData):
    def __init__(self, path):
        self._file, self._path = open(path, "rb"), path
    def read(self, n):
        return self._file.read(n)
    def size(self):
        import os
        return os.stat(self._path).st_size
    def close(self):
        self._file.close()

class Handler(BaseHandler):
    def get_response_data(self):
        return File(sys.argv[3] + "/" + self._path)

class Server(BaseServer):
    def get_handler(self, server_addr, peer, path, options):
        return Handler(server_addr, peer, path, options, lambda stats: None)

Server(sys.argv[1], int(sys.argv[2]), retries=5, timeout=5).run()
"""
"""fbtftp is a library: the smallest server that its documentation shows."""

_TFTPY: Final = "import sys, tftpy; tftpy.TftpServer(sys.argv[3]).listen(sys.argv[1], int(sys.argv[2]))"
"""tftpy installs no command."""

_CLASSICAL_SOURCE: Final = Path(__file__).resolve().parents[4] / "benchmarks/classical.c"


def _classical_program() -> str | None:
    """The compiler, where this is a checkout: the reference server is no part of the product."""
    return shutil.which("gcc") if _CLASSICAL_SOURCE.exists() else None


def _classical(mode: str) -> Callable[[Asked], list[str]]:
    def command(asked: Asked) -> list[str]:
        binary = asked.scratch / "classical"
        if not binary.exists():
            subprocess.run([asked.program, "-O2", "-o", str(binary), str(_CLASSICAL_SOURCE)], check=True)
        return [str(binary), asked.host, str(asked.port), str(asked.root), mode]

    return command


KINDS: Final[dict[str, Kind]] = {
    OURS: Kind(lambda: sys.executable, _ours, has_windows=True),
    "tftpd-hpa": Kind(
        _on_path("in.tftpd"),
        lambda a: [a.program, "-L", "--address", f"{a.host}:{a.port}", "-s", str(a.root)],
    ),
    "atftpd": Kind(
        _on_path("atftpd"),
        lambda a: [
            *(a.program, "--daemon", "--no-fork", "--user", "root.root", "--maxthread", "20000"),
            *("--port", str(a.port), "--bind-address", a.host, str(a.root)),
        ],
        has_windows=True,
    ),
    "dnsmasq": Kind(_on_path("dnsmasq"), _dnsmasq, fixed_port=69),
    "py3tftp": Kind(
        _on_path("py3tftp"),
        lambda a: [a.program, "--host", a.host, "-p", str(a.port)],
        has_windows=True,
        in_root=True,
    ),
    "tftpy": Kind(
        lambda: sys.executable if _has_module("tftpy") else None,
        lambda a: [a.program, "-c", _TFTPY, a.host, str(a.port), str(a.root)],
    ),
    "fbtftp": Kind(
        lambda: sys.executable if _has_module("fbtftp") else None,
        lambda a: [a.program, "-c", _FBTFTP, a.host, str(a.port), str(a.root)],
    ),
    "rs-tftpd": Kind(
        _on_path("tftpd"),
        lambda a: [a.program, "-i", a.host, "-p", str(a.port), "-d", str(a.root), "-r"],
        has_windows=True,
    ),
    "classical": Kind(_classical_program, _classical("batch")),
    "classical-plain": Kind(_classical_program, _classical("plain")),
}
"""By the name that --servers takes."""

_REFERENCES: Final = ("classical", "classical-plain")


def installed_peers() -> list[str]:
    """Names of all servers here that are not ours."""
    ours = (OURS, *_REFERENCES)
    return [name for name, kind in KINDS.items() if name not in ours and kind.find() is not None]


def has_classical() -> bool:
    """Whether the reference server with a socket per transfer can be built here."""
    return _classical_program() is not None


def our_targets() -> list[Target]:
    """Ours with and without batching, with and without GSO."""
    plain = {"enable_recvmmsg": False, "enable_sendmmsg": False, "enable_gso": False}
    return [
        Target("ours"),
        Target("ours, no GSO", batch={"enable_gso": False}),
        Target("ours, no batching", batch=plain),
    ]


def _has_module(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
