"""A service manager hears when the server is ready, reloads and stops."""

import os
import signal
import socket
from pathlib import Path

from tests.support.server import serve_command


def test_ready_reloading_and_stopping_are_told_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    config = tmp_path / "snow-owl.toml"
    config.write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with serve_command(tmp_path / "root", "--config", str(config), env=environ) as server:
            ready = f"READY=1\nSTATUS=Serving {tmp_path}/root"
            assert manager.recv(4096).decode() == ready
            for text in ("drain_timeout_s = 3\n", "drain_timeout_s = \n"):  # a bad one is over as well
                config.write_text(text)
                server.signal(signal.SIGHUP)
                assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert manager.recv(4096).decode() == ready
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=Ending 0 transfers"
