"""What a service manager hears of us, at its own socket."""

import socket
from pathlib import Path

import pytest

from snow_owl_tftp.linux.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def test_variables_are_lines_of_one_datagram(tmp_path: Path, manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "OTHER": "x"}
    notifier = Notifier(environ)
    notifier.tell(READY="1", STATUS="Serving")
    notifier.close()
    notifier.tell(READY="1")

    assert manager.recv(4096) == b"READY=1\nSTATUS=Serving"
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
    assert environ == {"OTHER": "x"}, "no child takes it for its own"


def test_reload_has_the_time_of_its_beginning(tmp_path: Path, manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.tell_reloading()
    notifier.close()

    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert int(second.partition("=")[2]) > 0


def test_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("")  # the kernel chooses one
        notifier = Notifier({"NOTIFY_SOCKET": "@" + heard.getsockname()[1:].decode()})
        notifier.tell(STOPPING="1")
        notifier.close()
        assert heard.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "relative", "/no/such/socket"])
def test_nobody_who_listens_is_no_failure(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.tell(READY="1")
    notifier.close()

    assert notifier.lost_total == (address == "/no/such/socket")
