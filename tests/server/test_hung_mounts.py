"""A mount below the root that hangs costs its own files only, and not the end of the process."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from tests.support.client import Client, Refused
from tests.support.fuse import Fuse, own_mounts
from tests.support.server import DEADLINE_S, ServerThread, serve_command, serve_in_thread, wait_for
from tests.support.uploads import WRITABLE, serve_uploads_command

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Error, build_data
from snow_owl_tftp.server import engine as assemble
from snow_owl_tftp.server import slow_opens
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.writes import UploadAnswerer

MANY = 300
CONTENT = os.urandom(700_000)


def ask(server: ServerThread, *names: str) -> list[Client]:
    """Clients that have asked, and wait."""
    clients = [Client(server.address) for _ in names]
    heard = server.counters()["requests"]
    for number, (client, name) in enumerate(zip(clients, names, strict=True), 1):
        client.request(name)
        if number % 50 == 0:  # no more at a time than a socket's buffer holds: nobody here asks again
            wait_for(lambda number=number: server.counters()["requests"] >= heard + number, "requests to be heard")
    return clients


def served(server: ServerThread, name: str, mode: str = "octet") -> bytes:
    with Client(server.address) as client:
        return client.get(name, mode).payload


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "local").mkdir(parents=True)
    (root / "up").mkdir()
    for number in range(40):
        (root / "local" / str(number)).write_bytes(CONTENT)
    (root / "local" / "text").write_bytes(b"a\nb\n")
    return root


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second instead of ten."""
    file_io = assemble._file_io
    monkeypatch.setattr(assemble, "_file_io", lambda settings: {**file_io(settings), "io_patience_ns": 1_000_000_000})
    monkeypatch.setattr(slow_opens, "OPEN_PATIENCE_S", 1.0)


def check_that_all_is_well(server: ServerThread, first: int) -> None:
    """Cold names, cold content, netascii, names that do not exist, and an upload, on a file system that is well."""
    for number in range(first, first + 10):
        assert served(server, f"local/{number}") == CONTENT
    assert served(server, "local/text", "netascii") == b"a\r\nb\r\n"
    with pytest.raises(Refused, match="not found"):
        served(server, f"local/none-{first}")
    with Client(server.address) as client:
        client.put(f"up/new-{first}", CONTENT)


@contextlib.contextmanager
def serve(root: Path, further: Mapping[str, object] = MappingProxyType({})) -> Iterator[ServerThread]:
    """With uploads, and with the engine asked who is sick, as in the command."""
    settings = override(Settings(), {"root_dir": str(root), **WRITABLE, **further}, source="test")
    desk = UploadAnswerer(settings)
    decider = FileDecider(settings, desk.answer)
    try:
        with serve_in_thread(root, WRITABLE, decider=decider) as server:
            decider.slow_opens.is_sick = desk.slow_opens.is_sick = server.server.is_sick
            yield server
    finally:
        desk.close()
        decider.close()


def check_that_it_is_told_to_come_again(client: Client) -> None:
    packet = None
    while not isinstance(packet, Error):  # others send on the loopback as well
        packet, _ = client.receive_packet(DEADLINE_S)
    assert (packet.code, packet.text) == (0, "Server busy, try again")


@own_mounts
def test_reads_that_hang_cost_their_own_mount_only(root: Path, impatient: None) -> None:
    files = {f"h{number}": b"x" * 100_000 for number in range(MANY)}
    with Fuse(root / "bad", files) as bad, Fuse(root / "good", {"g": CONTENT}), serve(root) as server:
        assert served(server, "bad/h0") == b"x" * 100_000
        bad.hang("read")
        waiting = ask(server, *[f"bad/h{number}" for number in range(1, MANY)])
        wait_for(lambda: bad.stuck >= 2, "reads that hang")
        check_that_all_is_well(server, 0)
        assert served(server, "good/g") == CONTENT
        for client in waiting[:20]:
            check_that_it_is_told_to_come_again(client)
        check_that_all_is_well(server, 10)
        bad.go_on()
        for client in waiting:
            client.close()

        def is_well() -> bool:
            with contextlib.suppress(Refused):  # while the last ones that hang come back
                return served(server, "bad/h7") == b"x" * 100_000
            return False

        wait_for(is_well, "the mount to be well again")
        wait_for(lambda: server.counters()["file_threads_hung"] == 0, "no thread to hang")


@own_mounts
def test_names_that_hang_cost_their_own_mount_only_though_links_lead_there(root: Path, impatient: None) -> None:
    (root / "links").mkdir()
    for number in range(MANY):
        (root / "links" / str(number)).symlink_to(f"../two/bad/h{number}")
    (root / "two").mkdir()
    with Fuse(root / "two" / "bad", {}) as bad, Fuse(root / "two" / "good", {"g": CONTENT}), serve(root) as server:
        bad.hang("lookup")
        names = [f"two/bad/x{number}" for number in range(MANY)] + [f"links/{number}" for number in range(MANY)]
        waiting = ask(server, *names)
        wait_for(lambda: bad.stuck, "names that hang")
        check_that_all_is_well(server, 0)
        (root / "links" / "well").symlink_to("../two/good/g")
        assert served(server, "links/well") == CONTENT
        assert served(server, "two/good/g") == CONTENT
        for client in waiting:
            check_that_it_is_told_to_come_again(client)
            client.close()
        check_that_all_is_well(server, 10)
        bad.go_on()

        def is_well() -> bool:
            with contextlib.suppress(Refused):
                served(server, "two/bad/x0")
            with Client(server.address) as client:
                client.request("two/bad/x0")
                packet, _ = client.receive_packet(DEADLINE_S)
            return isinstance(packet, Error) and packet.code == 1

        wait_for(is_well, "the mount to be well again")


@own_mounts
def test_uploads_that_cannot_begin_are_told_and_cost_no_other(root: Path, impatient: None) -> None:
    with Fuse(root / "up" / "bad", {}) as bad, serve(root) as server, contextlib.ExitStack() as clients:
        bad.hang("lookup")
        waiting = [clients.enter_context(Client(server.address)) for _ in range(100)]
        for number, client in enumerate(waiting):
            client.request(f"up/bad/{number}", kind=Opcode.WRQ)
        wait_for(lambda: bad.stuck, "a look-up to hang")
        check_that_all_is_well(server, 0)
        for client in waiting:
            check_that_it_is_told_to_come_again(client)
        check_that_all_is_well(server, 10)


@own_mounts
def test_writes_that_hang_cost_no_other_upload(root: Path, impatient: None) -> None:
    with Fuse(root / "up" / "bad", {}) as bad, serve(root) as server, contextlib.ExitStack() as clients:
        bad.hang("write")
        for number in range(40):
            client = clients.enter_context(Client(server.address))
            client.request(f"up/bad/{number}", kind=Opcode.WRQ)
            _, tid = client.receive_packet(DEADLINE_S)
            client.send(build_data(1, b"all of it"), tid)
        wait_for(lambda: server.counters()["file_threads_hung"], "writes to hang")
        check_that_all_is_well(server, 0)
        assert server.counters()["file_threads"] <= 30
        bad.go_on()
        wait_for(lambda: server.counters()["file_threads_hung"] == 0, "writes to come back")
        check_that_all_is_well(server, 10)


@own_mounts
def test_directory_that_hangs_costs_no_upload_beside_it_where_all_are_counted(root: Path) -> None:
    """A count walks what lies below the root; whoever waited for it was refused, and its device a thread short."""
    with Fuse(root / "bad", {}) as bad, serve_uploads_command(root, "max_total_bytes = 100000000") as server:
        bad.hang("opendir")
        for number in range(20):  # more than a device has threads
            server.signal(signal.SIGHUP)
            wait_for(
                lambda number=number: server.log.count("settings reloaded") > number, "a reload: all is counted anew"
            )
            with Client(server.address) as client:
                client.put(f"up/counted-{number}", b"content")
        assert bad.stuck == 1, "one walk at a time"
        bad.go_on()


@own_mounts
def test_directory_that_hangs_keeps_no_switch_of_the_root_from_being_seen(root: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(root)
    for name in ("second", "third"):
        (tmp_path / name / "up").mkdir(parents=True)
        (tmp_path / name / "release").write_text(name)
    with Fuse(tmp_path / "second" / "bad", {}) as bad, serve_uploads_command(current) as server:
        bad.hang("opendir")
        for name in ("second", "third"):
            current.unlink()
            current.symlink_to(tmp_path / name)
            server.signal(signal.SIGHUP)

            def is_followed(name: str = name) -> bool:
                with Client(server.address) as client:
                    client.put(f"up/to-{name}", b"content")
                with contextlib.suppress(Refused), Client(server.address) as client:
                    is_read = client.get("release").payload == name.encode()
                    return is_read and (tmp_path / name / "up" / f"to-{name}").exists()
                return False

            wait_for(is_followed, f"reads and uploads of the {name} root")
        bad.go_on()


@own_mounts
@pytest.mark.parametrize("question", ["lookup", "open", "read", "flush"])
def test_process_is_gone_two_seconds_after_its_drain_whatever_hangs(root: Path, question: str) -> None:
    config = root.parent / "drain.toml"
    config.write_text("drain_timeout_s = 1\n")
    with (
        Fuse(root / "bad", {f"h{number}": CONTENT for number in range(20)}) as bad,
        serve_command(root, "--config", str(config)) as server,
    ):
        bad.hang(question)
        clients = [Client(server.address) for _ in range(20)]
        for number, client in enumerate(clients):
            client.request(f"bad/h{number}", options={"tsize": 0} if question == "flush" else None)
        if question == "flush":
            for client in clients:
                client.receive_packet(DEADLINE_S)
        else:
            wait_for(lambda: bad.stuck, f"{question} to hang")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert time.monotonic() - began < 1 + 2 + 2, "and what a busy machine adds"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(server.address)  # the port is free although threads hang
        for client in clients:
            client.close()
        assert server.process.stdout is not None
        assert server.process.stdout.read() == b""  # and nobody is kept waiting for what it says
        assert "left behind what hangs" in server.log or "not everything has ended" in server.log or question == "flush"


@own_mounts
def test_root_of_a_rule_that_hangs_costs_whom_the_rule_is_for(root: Path, impatient: None) -> None:
    """Clients of the second rule wait for their first root; those of the first have the same mount behind their own."""
    (root / "127.0.0.3").mkdir()
    (root / "127.0.0.3" / "own").write_bytes(b"own")
    rules = [
        {"clients": ["127.0.0.3"], "roots": ["{address}", "bad"]},
        {"clients": ["127.0.0.2"], "allow": ["read", "write"], "roots": ["bad/{address}", "local"]},
    ]
    with Fuse(root / "bad", {}) as bad, serve(root, {"rules": rules}) as server, contextlib.ExitStack() as clients:
        bad.hang("lookup")
        waiting = [clients.enter_context(Client(server.address, source="127.0.0.2")) for _ in range(MANY)]
        for number, client in enumerate(waiting):
            client.request(
                f"up/{number}" if number < 20 else str(number % 40), kind=Opcode.WRQ if number < 20 else Opcode.RRQ
            )
        wait_for(lambda: bad.stuck, "a look-up to hang")
        check_that_all_is_well(server, 0)
        with Client(server.address, source="127.0.0.3") as client:
            assert client.get("own").payload == b"own"
        for client in waiting:
            check_that_it_is_told_to_come_again(client)
        check_that_all_is_well(server, 10)
        bad.go_on()

        def is_well() -> bool:
            with contextlib.suppress(Refused), Client(server.address, source="127.0.0.2") as client:
                return client.get("7").payload == CONTENT
            return False

        wait_for(is_well, "the mount to be well again")
