"""How much of the server one client, and all of them, may hold; and that nobody is starved by a greedy one."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Address, Client
from tests.support.server import serve_in_thread

from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import Error, build_request

BIG_BYTES = 40_000_000
SMALL = bytes(range(256)) * 100  # 51 lock-step blocks
WINDOW_CAP_BYTES = 1_000_000


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


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("limits.max_half_open", "server busy: too many unanswered requests"),
        ("limits.max_half_open_per_client", "too many unanswered requests from your address"),
        ("limits.max_transfers", "server busy: too many transfers"),
        ("limits.max_transfers_per_client", "too many transfers from your address"),
    ],
)
def test_beyond_a_limit_a_request_is_refused_and_told_why(root: Path, limit: str, told: str) -> None:
    with serving(root, {limit: 3}) as address, ExitStack() as clients:
        for _ in range(3):
            assert not isinstance(first_answer(clients.enter_context(Client(address))), Error)
        refusal = first_answer(clients.enter_context(Client(address)))
        assert isinstance(refusal, Error)
        assert refusal.code == ErrorCode.NOT_DEFINED
        assert refusal.text.startswith(told)


def test_what_one_client_may_hold_is_not_taken_from_another(root: Path) -> None:
    with serving(root, {"limits.max_half_open_per_client": 3}) as address, ExitStack() as clients:
        for _ in range(3):
            first_answer(clients.enter_context(Client(address)))
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
                    greedy.append(client.get("big", options={"blksize": 65464, "windowsize": 65535}))
                finally:
                    greedy_done.set()

        thread = threading.Thread(target=take_everything)
        thread.start()
        waits_s = []
        while not greedy_done.is_set() or not waits_s:
            began_s = time.monotonic()
            with Client(address) as client:
                assert client.get("small").payload == SMALL
            waits_s.append(time.monotonic() - began_s)
        thread.join()
    (transfer,) = greedy
    assert len(transfer.payload) == BIG_BYTES
    assert max(waits_s) < 2, waits_s


def test_no_window_is_larger_than_the_cap(root: Path) -> None:
    asked = {"blksize": "65464", "windowsize": "65535"}
    with serving(root, {"options.max_window_bytes": WINDOW_CAP_BYTES}) as address, Client(address) as client:
        packet, _ = client.exchange(build_request(Opcode.RRQ, "big", options=list(asked.items())))
    granted = dict(packet.options)
    assert int(granted["blksize"]) == 65464
    assert int(granted["windowsize"]) == WINDOW_CAP_BYTES // 65464
