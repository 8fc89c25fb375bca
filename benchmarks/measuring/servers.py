"""The servers that are compared: how each is started, and until when it is waited for.

May know: command lines. Must not know loads. Invariants: every server listens on loopback only and serves one folder,
with uploads below `up/` where it can take them.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from snow_owl_tftp.bench.servers import KINDS, Asked

LIMIT, OURS = "limit", "snow-owl-tftp"
PEERS = ("tftpd-hpa", "atftpd", "dnsmasq")
READY_LIMIT_S = 15.0
_NO_PORT = 65535  # where a report says PORT
_PROBE = b"\0\1no-such-file\0octet\0"
_UPLOADS = '[write_config]\nenabled = true\nallowed_patterns = ["up/**"]\nfsync = false\n'


@dataclass(frozen=True)
class Where:
    """What a server is started with.

    Attributes:
        root: The folder to serve.
        host: On which address.
        port: And UDP port.
        scratch: A folder for files of its own.
        is_upload: Whether it must take uploads.
    """

    root: Path
    host: str
    port: int
    scratch: Path
    is_upload: bool


@dataclass(frozen=True)
class Server:
    """One row of the comparison.

    Attributes:
        name: In tables.
        command: The argv for a place.
        lacks: Of what loads need (Load.needs); such a load is left out, and the table has a dash.
        address: Where it has to listen, if it cannot choose; (host, port).
    """

    name: str
    command: Callable[[Where], list[str]]
    lacks: frozenset[str] = frozenset()
    address: tuple[str, int] | None = None


class NotReadyError(Exception):
    """A server did not begin to answer."""


def ours(where: Where) -> list[str]:
    """One worker, no log of successes; uploads into `up/`, not synced, as the peers do it."""
    command = [sys.executable, "-m", "snow_owl_tftp", "serve", str(where.root)]
    command += ["--bind", f"{where.host}:{where.port}", "--log-level", "warning"]
    if where.is_upload:
        config = where.scratch / "uploads.toml"
        config.write_text(_UPLOADS)
        command += ["--config", str(config)]
    return command


def limit(program: Path) -> Server:
    def command(where: Where) -> list[str]:
        return [str(program), str(where.root), str(where.port)]

    return Server(LIMIT, command, lacks=frozenset({"uploads", "timers"}))


def peer(name: str) -> Server:
    """An installed peer; one that listens on port 69 alone gets an address of its own, where nobody else's is."""
    kind = KINDS[name]
    program = kind.find() or name

    def command(where: Where) -> list[str]:
        words = kind.command(Asked(program, where.root, where.host, where.port, where.scratch, {}))
        # It makes no file by itself unless told to.
        return [words[0], "--create", *words[1:]] if where.is_upload and name == "tftpd-hpa" else words

    address = ("127.77.0.1", kind.fixed_port) if kind.fixed_port else None
    lacks = frozenset({"uploads"}) if name == "dnsmasq" else frozenset[str]()
    return Server(name, command, lacks=lacks, address=address)


def why_no_peer(name: str) -> str:
    """What keeps a peer from being measured here; empty: nothing."""
    if KINDS[name].find() is None:
        return "not installed"
    return "needs root" if KINDS[name].needs_root and os.geteuid() else ""


def other(text: str) -> Server:
    """NAME=COMMAND with {root} and {port}.

    Raises:
        ValueError: The text is not that.
    """
    name, is_given, command = text.partition("=")
    if not is_given or not re.fullmatch(r"[\w.-]{1,32}", name) or "{root}" not in command or "{port}" not in command:
        raise ValueError(f"not NAME=COMMAND with {{root}} and {{port}}: {text}")
    words = shlex.split(command)

    def filled(where: Where) -> list[str]:
        return [word.replace("{root}", str(where.root)).replace("{port}", str(where.port)) for word in words]

    return Server(name, filled)


def template(server: Server) -> str:
    """Its command for reports: placeholders instead of places, programs without their folders."""
    words = server.command(Where(Path("ROOT"), "127.0.0.1", _NO_PORT, Path("SCRATCH"), is_upload=False))
    return shlex.join([Path(words[0]).name, *words[1:]]).replace(str(_NO_PORT), "PORT")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def await_ready(process: "subprocess.Popen[bytes]", address: tuple[str, int], log: Path) -> None:
    """Until it answers a request for a file that is not there.

    Raises:
        NotReadyError: It ended, or said nothing within `READY_LIMIT_S`; with the last line of its log.
    """
    end_s = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < end_s and process.poll() is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.1)
            with suppress(OSError):
                sock.sendto(_PROBE, address)
                sock.recvfrom(600)
                return
    said = log.read_text(errors="replace").strip().splitlines()
    raise NotReadyError(said[-1] if said else "it said nothing")
