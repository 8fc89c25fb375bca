"""Which TFTP servers can be benchmarked here, and how each is started.

    KINDS["tftpd-hpa"].find()            → the program, or None
    KINDS["tftpd-hpa"].command(asked)    → argv

May know: command lines of other people's servers. Must not start anything.
Invariants: every server serves `root` read-only to 127/8 in the foreground, logs no more than its defaults to
nobody, and needs no file of the system's configuration.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from snow_owl_tftp.bench.settings import BenchTarget
from snow_owl_tftp.errors import ConfigError

__all__ = [
    "KINDS",
    "OURS",
    "Asked",
    "Kind",
    "has_classical",
    "installed_peers",
    "our_targets",
    "version_of",
    "why_not_started",
]

OURS: Final = "ours"
_VERSION_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """How a server is to be started.

    Attributes:
        program: What `find` returned.
        root: The folder to serve.
        host: IPv4 address to listen on.
        port: UDP port to listen on.
        scratch: A folder for files of the server's own.
        batch: Of the BenchTarget.
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
        version: Arguments after the program that make it say its version; empty: it cannot.
        fixed_port: It listens nowhere else.
        in_root: It serves the folder in which it is started.
        needs_root: It takes a port below 1024, or gives up rights that only root has.
    """

    find: Callable[[], str | None]
    command: Callable[[Asked], list[str]]
    version: tuple[str, ...] = ()
    fixed_port: int | None = None
    in_root: bool = False
    needs_root: bool = False


_CHECKOUT: Final = Path(__file__).resolve().parents[3]
"""Where this is one; in an installed package nothing that is looked for lies there."""
_PEERS: Final = _CHECKOUT / "build/peers"
"""`make peers-all` puts servers here that Debian does not package."""


def _on_path(name: str) -> Callable[[], str | None]:
    # Debian keeps servers out of an ordinary user's PATH; the environment of this Python has its own scripts.
    places = ["/usr/local/sbin", "/usr/sbin", "/sbin", str(Path(sys.executable).parent), str(_PEERS / "bin")]
    return lambda: shutil.which(name) or shutil.which(name, path=":".join(places))


def _python_with(module: str) -> Callable[[], str | None]:
    """The Python that has this module: ours, or that of the peers."""

    def find() -> str | None:
        from importlib.util import find_spec

        if find_spec(module) is not None:
            return sys.executable
        has_it = any(_PEERS.glob(f"lib/python*/site-packages/{module}/__init__.py"))
        return str(_PEERS / "bin/python") if has_it else None

    return find


def _module_version(name: str) -> tuple[str, str]:
    return ("-c", f"from importlib.metadata import version; print(version({name!r}))")


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

_CLASSICAL_SOURCE: Final = _CHECKOUT / "benchmarks/classical.c"


def _classical_program() -> str | None:
    """The compiler, where this is a checkout: the reference server is no part of the product."""
    return shutil.which("gcc") if _CLASSICAL_SOURCE.exists() else None


def _classical(mode: str) -> Callable[[Asked], list[str]]:
    def command(asked: Asked) -> list[str]:
        binary = asked.scratch / "classical"
        if not binary.exists():
            compiled = subprocess.run(
                [asked.program, "-O2", "-o", str(binary), str(_CLASSICAL_SOURCE)],
                capture_output=True,
                text=True,
                check=False,
            )
            if compiled.returncode:
                raise ConfigError(f"bench: gcc: {(compiled.stderr.strip().splitlines() or ['no message'])[0]}")
        linger_us = str(asked.batch.get("linger_us", 0))
        return [str(binary), asked.host, str(asked.port), str(asked.root), mode, linger_us]

    return command


KINDS: Final[dict[str, Kind]] = {
    OURS: Kind(lambda: sys.executable, _ours),
    "tftpd-hpa": Kind(
        _on_path("in.tftpd"),
        lambda a: [a.program, "-L", "--address", f"{a.host}:{a.port}", "-s", str(a.root)],
        version=("-V",),
        needs_root=True,
    ),
    "atftpd": Kind(
        _on_path("atftpd"),
        lambda a: [
            *(a.program, "--daemon", "--no-fork", "--user", "root.root", "--maxthread", "20000"),
            *("--port", str(a.port), "--bind-address", a.host, str(a.root)),
        ],
        version=("--version",),
        needs_root=True,
    ),
    "dnsmasq": Kind(_on_path("dnsmasq"), _dnsmasq, fixed_port=69, version=("--version",), needs_root=True),
    "py3tftp": Kind(
        _python_with("py3tftp"),
        lambda a: [a.program, "-m", "py3tftp", "--host", a.host, "-p", str(a.port)],
        in_root=True,
        version=_module_version("py3tftp"),
    ),
    "tftpy": Kind(
        _python_with("tftpy"),
        lambda a: [a.program, "-c", _TFTPY, a.host, str(a.port), str(a.root)],
        version=_module_version("tftpy"),
    ),
    "fbtftp": Kind(
        _python_with("fbtftp"),
        lambda a: [a.program, "-c", _FBTFTP, a.host, str(a.port), str(a.root)],
        version=_module_version("fbtftp"),
    ),
    "rs-tftpd": Kind(
        _on_path("tftpd"),
        lambda a: [a.program, "-i", a.host, "-p", str(a.port), "-d", str(a.root), "-r"],
        version=("-V",),
    ),
    "classical": Kind(_classical_program, _classical("batch")),
    "classical-plain": Kind(_classical_program, _classical("plain")),
}
"""By the name that --servers takes."""

_REFERENCES: Final = ("classical", "classical-plain")


def installed_peers() -> dict[str, str | None]:
    """All servers here that are not ours: name → why it cannot be started; None: it can."""
    ours = (OURS, *_REFERENCES)
    return {name: why_not_started(name) for name, kind in KINDS.items() if name not in ours and kind.find() is not None}


def why_not_started(name: str) -> str | None:
    """What keeps an installed server from being started by this user, in a few words."""
    return "needs root" if KINDS[name].needs_root and os.geteuid() != 0 else None


def has_classical() -> bool:
    """Whether the reference server with a socket per transfer can be built here."""
    return _classical_program() is not None


def our_targets() -> list[BenchTarget]:
    """Ours with and without batching, with and without GSO."""
    plain = {"enable_recvmmsg": False, "enable_sendmmsg": False, "enable_gso": False}
    return [
        BenchTarget("ours"),
        BenchTarget("ours, no GSO", batch={"enable_gso": False}),
        BenchTarget("ours, no batching", batch=plain),
    ]


def version_of(name: str) -> str:
    """What an installed server says of its version: the first line; empty where it says nothing."""
    kind = KINDS[name]
    program = kind.find()
    if program is None or not kind.version:
        return ""
    try:
        ran = subprocess.run(
            [program, *kind.version],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = ran.stdout.decode("utf-8", "replace").strip().splitlines()
    return lines[0].strip() if lines else ""
