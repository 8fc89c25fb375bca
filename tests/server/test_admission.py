"""How much of the server one client, and all of them, may hold; and that nobody is starved by a greedy one."""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Address, Client
from tests.support.server import serve_command, serve_in_thread
from tests.support.uploads import serve_uploads

from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import Data, Error, Oack, build_ack, build_error, build_request

BIG_BYTES = 40_000_000
SMALL = bytes(range(256)) * 100  # 51 lock-step blocks
WINDOW_CAP_BYTES = 1_000_000
GREEDY = {"blksize": 8192, "windowsize": 65535}  # of larger blocks a window is bounded by more than the cap


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/small").write_bytes(SMALL)
    with (tmp_path / "root/big").open("wb") as big:
        big.truncate(BIG_BYTES)
    return tmp_path / "root"


@contextmanager
def serving(root: Path, limits: Mapping[str, Any]) -> Iterator[Address]:
    with serve_in_thread(root, {"logging.level": "error", **limits}) as served:
        yield served.address


def first_answer(client: Client, filename: str = "small") -> Any:
    packet, _ = client.exchange(build_request(Opcode.RRQ, filename))
    return packet


def begin(client: Client) -> None:
    """Acknowledge the first block: who has answered nothing would give way."""
    client.request("small")
    packet, tid = client.receive_packet()
    assert isinstance(packet, Data)
    client.send(build_ack(1), tid)
    packet, _ = client.receive_packet()
    assert isinstance(packet, Data)


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("limits.max_transfers", "server busy: too many transfers"),
        ("limits.max_transfers_per_client", "too many transfers from your address"),
    ],
)
def test_beyond_a_limit_a_request_is_refused_and_told_why(root: Path, limit: str, told: str) -> None:
    with serving(root, {limit: 3}) as address, ExitStack() as clients:
        for _ in range(3):
            begin(clients.enter_context(Client(address)))
        refusal = first_answer(clients.enter_context(Client(address)))
        assert isinstance(refusal, Error)
        assert refusal.code == ErrorCode.NOT_DEFINED
        assert refusal.text.startswith(told)


@pytest.mark.parametrize("limit", ["max_half_open", "max_half_open_per_client", "max_transfers"])
def test_requests_that_nobody_goes_on_with_lock_nobody_out(root: Path, limit: str) -> None:
    """With the longest `timeout` that can be asked for; the server would wait for each of them."""
    with serving(root, {f"limits.{limit}": 3}) as address, ExitStack() as clients:
        for _ in range(6):
            silent = clients.enter_context(Client(address))
            silent.request("small", options={"timeout": 255})
            assert isinstance(silent.receive_packet()[0], Oack)
        with Client(address) as client:
            assert client.get("small").payload == SMALL


@pytest.mark.parametrize(("share", "blocks"), [(1, 8 * 4), (0, 400)])
def test_what_an_unproven_network_is_sent_is_a_setting(root: Path, share: int, blocks: int) -> None:
    """Each ACK by the clock, as a forger sends it; about eight windows are sent at most, 0 means no limit."""
    (root / "blocks").write_bytes(bytes(128 * 400 + 1))
    settings = {"limits.max_unproven_network_bytes": share, "options.max_window_bytes": 512}
    with serving(root, settings) as address, Client(address) as client:
        client.request("blocks", options={"blksize": 128, "windowsize": 4})
        _, tid = client.receive_packet()
        heard = set()
        for block in range(0, 404, 2):  # never too early: half of the window is still to be acknowledged
            client.send(build_ack(block), tid)
            while client.has_heard():
                datagram, _ = client.receive(0)
                heard.add(int.from_bytes(datagram[2:4], "big"))
    if share:
        assert max(heard, default=0) < blocks + 16
    else:
        assert max(heard) >= blocks


def test_refusals_by_a_limit_are_logged_and_audited(root: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    settings = {
        "limits.max_transfers_per_client": 1,
        "logging.audit_enabled": True,
        "logging.audit_file": str(audit),
        "logging.level": "warning",
    }
    with serve_in_thread(root, settings) as served, ExitStack() as clients:
        begin(clients.enter_context(Client(served.address)))
        for _ in range(3):
            first_answer(clients.enter_context(Client(served.address)))
    told = [line for line in served.log.splitlines() if "requests refused by a limit" in line]
    assert "limit=max_transfers_per_client" in told[0]
    assert "last_peer=127.0.0.1:" in told[0]
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    refused = [event for event in events if event["event_type"] == "requests_refused"]
    assert sum(event["count"] for event in refused) == 3
    assert {event["limit"] for event in refused} == {"max_transfers_per_client"}


def test_uploads_one_after_the_other_are_never_too_many(root: Path) -> None:
    (root / "up").mkdir()
    with serve_uploads(root, **{"limits.max_transfers_per_client": 2, "logging.level": "error"}) as served:
        for number in range(30):
            with Client(served.address) as client:
                client.put(f"up/{number}", SMALL)


def test_what_one_client_may_hold_is_not_taken_from_another(root: Path) -> None:
    with serving(root, {"limits.max_transfers_per_client": 3}) as address, ExitStack() as clients:
        for _ in range(3):
            begin(clients.enter_context(Client(address)))
        assert isinstance(first_answer(clients.enter_context(Client(address))), Error)
        with Client(address, source="127.0.0.2") as other:
            assert other.get("small").payload == SMALL


def test_an_ended_transfer_makes_room(root: Path) -> None:
    with serving(root, {"limits.max_transfers_per_client": 1}) as address:
        for _ in range(5):
            with Client(address) as client:
                assert client.get("small").payload == SMALL


def test_a_greedy_client_does_not_starve_a_lock_step_one(root: Path) -> None:
    with serving(root, {"options.max_window_bytes": WINDOW_CAP_BYTES}) as address:
        greedy_done = threading.Event()
        greedy: list[Any] = []

        def take_everything() -> None:
            with Client(address) as client:
                try:
                    greedy.append(client.get("big", options=GREEDY))
                finally:
                    greedy_done.set()

        thread = threading.Thread(target=take_everything)
        thread.start()
        served_beside = 0
        while not greedy_done.is_set():
            with Client(address) as client:
                assert client.get("small").payload == SMALL
            served_beside += 1
        thread.join()
    (transfer,) = greedy
    assert len(transfer.payload) == BIG_BYTES
    assert served_beside >= 5, "who starves hears of its first file when the greedy one has gone"


def test_no_window_is_larger_than_the_cap(root: Path) -> None:
    asked = {name: str(value) for name, value in GREEDY.items()}
    with serving(root, {"options.max_window_bytes": WINDOW_CAP_BYTES}) as address, Client(address) as client:
        packet, _ = client.exchange(build_request(Opcode.RRQ, "big", options=list(asked.items())))
    granted = dict(packet.options)
    assert int(granted["blksize"]) == GREEDY["blksize"]
    assert int(granted["windowsize"]) == WINDOW_CAP_BYTES // GREEDY["blksize"]


def resident_bytes(pid: int) -> int:
    """Of a process: its own memory and what it has mapped (proc_pid_statm(5), field 2)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def take_a_window(clients: ExitStack, address: Address) -> None:
    """Take what one window brings and acknowledge none of it, until the stack unwinds."""
    client = clients.enter_context(Client(address))
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)  # 200 of them queue in the kernel's memory
    client.request("big", options={**GREEDY, "timeout": 255})
    packet, peer = client.receive_packet()
    assert isinstance(packet, Oack)
    clients.callback(client.send, build_error(ErrorCode.NOT_DEFINED, "enough"), peer)
    client.send(build_ack(0), peer)
    packet, _ = client.receive_packet()
    assert isinstance(packet, Data)


def test_memory_does_not_grow_with_windows_in_flight(root: Path, tmp_path: Path) -> None:
    transfers = 200
    # Who takes windows and acknowledges nothing would soon have had its network's share.
    (tmp_path / "settings.toml").write_text("limits.max_unproven_network_bytes = 0\n")
    start = serve_command(root, "--log-level", "error", "--config", str(tmp_path / "settings.toml"))
    with start as server, ExitStack() as clients:
        for _ in range(2):  # the file is mapped, and what is sent of it is resident
            take_a_window(clients, server.address)
        before_bytes = resident_bytes(server.process.pid)
        for _ in range(transfers):
            take_a_window(clients, server.address)
        grown_bytes = resident_bytes(server.process.pid) - before_bytes
    # A copy of every window would be 400 MB.
    assert grown_bytes < 8 << 20, grown_bytes
