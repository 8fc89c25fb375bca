"""Every key of [performance.platform.batch] is live: the engine counts differently when it is changed."""

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SEED
from tests.support.server import ServerThread, serve_in_thread, wait_for

from snow_owl_tftp.bench.load import Load
from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings

CONTENT = random.Random(SEED).randbytes(20_000)
TRANSFERS = 60


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_bytes(CONTENT)
    return tmp_path / "root"


@contextlib.contextmanager
def far(address: tuple[str, int], rtt_ms: float) -> Iterator[tuple[str, int]]:
    """The address of a relay to `address` with this round trip."""
    asked = {"host": address[0], "port": address[1], "rtt_ms": rtt_ms, "loss_percent": 0, "seed": SEED, "core": None}
    command = [sys.executable, "-m", "snow_owl_tftp.bench.relay", json.dumps(asked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        assert relay.stdout is not None
        yield "127.0.0.1", json.loads(relay.stdout.readline())["port"]
        relay.communicate(timeout=10)


def download(
    address: tuple[str, int],
    *,
    clients: int = 20,
    windowsize_blocks: int = 1,
    rtt_ms: float = 0,
    transfers: int = TRANSFERS,
) -> None:
    """So many downloads by so many clients at a time, at least one each."""
    with contextlib.ExitStack() as stack:
        host, port = stack.enter_context(far(address, rtt_ms)) if rtt_ms else address
        load = Load(
            host,
            port,
            "f",
            CONTENT,
            clients=clients,
            blksize_bytes=512,
            windowsize_blocks=windowsize_blocks,
            client_timeout_s=2.0,
        )
        stack.callback(load.close)
        load.learn(10)
        assert load.run(max(transfers, clients), 30, lambda ended: None)["failures"] == {}


def paths(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {f"performance.platform.batch.{key}": value for key, value in batch.items()}


def counted(root: Path, batch: Mapping[str, Any], **load: Any) -> dict[str, Any]:
    """What the engine counted of at least 60 downloads under these settings."""
    with serve_in_thread(root, {"logging.level": "warning", **paths(batch)}) as served:
        download(served.address, **load)
        return dict(served.counters())


def most_datagrams(histogram: list[int]) -> int:
    """The upper end of the highest bucket that is not empty."""
    return int(2 ** max(bucket for bucket, calls in enumerate(histogram) if calls))


@pytest.mark.parametrize(("is_on", "used", "unused"), [(True, "recvmmsg", "recvfrom"), (False, "recvfrom", "recvmmsg")])
def test_enable_recvmmsg(root: Path, is_on: bool, used: str, unused: str) -> None:
    counters = counted(root, {"enable_recvmmsg": is_on})
    assert counters[f"{used}_calls"] > 0
    assert counters[f"{unused}_calls"] == 0


@pytest.mark.parametrize(("is_on", "used", "unused"), [(True, "sendmmsg", "sendto"), (False, "sendto", "sendmmsg")])
def test_enable_sendmmsg(root: Path, is_on: bool, used: str, unused: str) -> None:
    counters = counted(root, {"enable_sendmmsg": is_on})
    assert counters[f"{used}_calls"] > 0
    assert counters[f"{unused}_calls"] == 0


@pytest.mark.parametrize("is_on", [True, False])
def test_enable_gso(root: Path, is_on: bool) -> None:
    assert (counted(root, {"enable_gso": is_on}, windowsize_blocks=8)["gso_trains"] > 0) == is_on


@pytest.mark.parametrize("is_on", [True, False])
def test_enable_flows(root: Path, is_on: bool) -> None:
    assert (counted(root, {"enable_flows": is_on})["flow_hits"] > 0) == is_on


def test_max_batch_size(root: Path) -> None:
    # Long enough for all 20 clients to wait in the queue at once.
    gathering = {"batch_timeout_us": 2000}
    assert most_datagrams(counted(root, {**gathering, "max_batch_size": 4})["receive_histogram"]) == 4
    assert most_datagrams(counted(root, {**gathering, "max_batch_size": 64})["receive_histogram"]) > 4


def test_batch_timeout_us(root: Path) -> None:
    assert counted(root, {"batch_timeout_us": 0})["lingers"] == 0
    counters = counted(root, {"batch_timeout_us": 300})
    assert counters["lingers"] > 0
    # By the clock: never shorter than asked, and longer by no more than a busy machine takes to wake a thread.
    assert 300_000 <= counters["linger_ns"] / counters["lingers"] < 5_000_000


def test_enable_adaptive_batching(root: Path) -> None:
    below = {"batch_timeout_us": 300, "adaptive_batch_threshold": 1000}
    assert counted(root, {**below, "enable_adaptive_batching": False})["lingers"] > 0
    assert counted(root, {**below, "enable_adaptive_batching": True})["lingers"] == 0


def test_adaptive_batch_threshold(root: Path) -> None:
    # A hundred clients, 40 ms away: an eighth of their round trip gathers more than eight of their ACKs.
    adaptive = {"batch_timeout_us": 5000, "enable_adaptive_batching": True}
    assert counted(root, {**adaptive, "adaptive_batch_threshold": 1000}, clients=100, rtt_ms=40)["lingers"] == 0
    counters = counted(root, {**adaptive, "adaptive_batch_threshold": 5}, clients=100, rtt_ms=40)
    assert counters["lingers"] > 0
    slept_ns = counters["linger_ns"] / counters["lingers"]
    # The law's own bound is in tests/engine/test_linger.py; here a busy machine may wake the worker late.
    assert slept_ns < 20 * 5_000_000, "batch_timeout_us was handed over in its unit"


def test_adaptive_batching_does_not_linger_where_it_would_slow_the_clients_down(root: Path) -> None:
    adaptive = {"batch_timeout_us": 2000, "enable_adaptive_batching": True, "adaptive_batch_threshold": 5}
    near = counted(root, adaptive, clients=10)
    assert near["linger_ns"] < 10 * 2_000_000, "ten lock-step clients on a LAN would wait for nothing"


def test_fifty_clients_are_batched_as_promised(root: Path) -> None:
    """The bounds that the project set itself. A forced linger makes sure that all clients' ACKs have gathered.

    Two downloads each, for it is about fifty clients, and not about the few that are left at the end.
    """
    batched = counted(root, {"batch_timeout_us": 2000}, clients=50, transfers=100)
    plain = counted(root, {"enable_recvmmsg": False, "enable_sendmmsg": False}, clients=50)
    assert plain["recvmmsg_calls"] == plain["sendmmsg_calls"] == 0
    receive_calls = batched["recvmmsg_calls"] + batched["recvfrom_calls"]
    # By the datagram: the one that has to repeat something must not look the worse for it.
    receives = receive_calls / batched["datagrams_received"]
    sends = (batched["sendmmsg_calls"] + batched["sendto_calls"]) / batched["datagrams_sent"]
    assert receives <= 0.1 * plain["recvfrom_calls"] / plain["datagrams_received"], "receive calls: at least -90 %"
    assert sends <= 0.1 * plain["sendto_calls"] / plain["datagrams_sent"], "send calls: at least -90 %"
    assert batched["recvmmsg_calls"] / receive_calls >= 0.99, "batch efficiency"
    assert batched["datagrams_received"] / receive_calls >= 10, "datagrams a receive call"


# ---- told, and changed while the server runs


def told_modes(served: ServerThread) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in served.log.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line["event"] == "batching mode changed"]


def test_change_of_mode_is_told_with_what_it_was_decided_from(root: Path) -> None:
    adaptive = {"batch_timeout_us": 5000, "enable_adaptive_batching": True, "adaptive_batch_threshold": 5}
    with serve_in_thread(root, {"logging.format": "json", **paths(adaptive)}) as served:
        download(served.address, clients=100, rtt_ms=40)
        lines = wait_for(lambda: [line for line in told_modes(served) if line["mode"] == "lingering"], "the line")
        first = told_modes(served)[0]
        assert (first["mode"], first["live_transfers"]) == ("at once", 0)
        for line in lines:
            assert line["level"] == "debug"
            assert line["live_transfers"] >= line["adaptive_batch_threshold"] == 5
            cycle_ns = line["live_transfers"] / line["datagrams_per_s"] * 1e9
            assert 50_000 <= line["linger_ns"] <= min(5_000_000, 1.01 * cycle_ns / 8)


def test_modes_are_not_told_below_debug(root: Path) -> None:
    with serve_in_thread(root, {"logging.format": "json", "logging.level": "info"}) as served:
        download(served.address)
        assert told_modes(served) == []


Counted = dict[str, Any]
LIVE: dict[str, tuple[dict[str, Any], Any, Callable[[Counted], bool]]] = {
    # key: (settings from the start, the value it is changed to, what is true of the load after and not before)
    "enable_recvmmsg": ({}, False, lambda c: c["recvmmsg_calls"] == 0 and c["recvfrom_calls"] > 0),
    "enable_sendmmsg": ({}, False, lambda c: c["sendmmsg_calls"] == 0 and c["sendto_calls"] > 0),
    "enable_gso": ({}, False, lambda c: c["gso_trains"] == 0),
    "enable_flows": ({}, False, lambda c: c["flow_hits"] == 0),
    "max_batch_size": ({"batch_timeout_us": 2000}, 4, lambda c: most_datagrams(c["receive_histogram"]) <= 4),
    "batch_timeout_us": ({}, 300, lambda c: c["lingers"] > 0),
    "enable_adaptive_batching": (
        {"batch_timeout_us": 300, "enable_adaptive_batching": True, "adaptive_batch_threshold": 1000},
        False,
        lambda c: c["lingers"] > 0,
    ),
    "adaptive_batch_threshold": (
        {"enable_adaptive_batching": True, "adaptive_batch_threshold": 1000},
        1,
        lambda c: "batching" in c["modes"],
    ),
}


def test_every_key_of_batching_is_tried() -> None:
    assert set(LIVE) == set(Settings().performance.platform.batch.__struct_fields__)


def counted_meanwhile(served: ServerThread) -> Counted:
    """What one more load adds to the counters."""
    before, told_before = served.counters(), len(told_modes(served))
    download(served.address, windowsize_blocks=8)
    wait_for(lambda: served.counters()["live_transfers"] == 0, "the last ACKs")
    after = served.counters()
    counted: Counted = {name: after[name] - before[name] for name in after if isinstance(after[name], int)}
    counted["receive_histogram"] = [
        late - early for late, early in zip(after["receive_histogram"], before["receive_histogram"], strict=True)
    ]
    return counted | {"modes": [line["mode"] for line in told_modes(served)[told_before:]]}


@pytest.mark.parametrize("key", LIVE)
def test_key_takes_effect_while_the_server_runs(root: Path, key: str) -> None:
    batch, later, is_in_force = LIVE[key]
    start = {"logging.format": "json", "logging.level": "debug", **paths(batch)}
    with serve_in_thread(root, start) as served:

        async def reload() -> None:
            served.server.reload(override(Settings(), {**start, **paths({key: later})}))

        assert not is_in_force(counted_meanwhile(served))
        served.call(reload)
        # One load is enough for all but a change of mode, which may be told up to 100 ms later.
        wait_for(lambda: is_in_force(counted_meanwhile(served)), f"{key} in force")
