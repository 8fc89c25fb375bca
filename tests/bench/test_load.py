"""The load generator against a real server: many clients, every byte compared, failures counted."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.support.server import ServerThread, serve_in_thread

from snow_owl_tftp.bench.load import Load, quantile

CONTENT = random.Random(SEED).randbytes(30_000)
BLOCKS = len(CONTENT) // 512 + 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_bytes(CONTENT)
    return tmp_path / "root"


@contextmanager
def load(
    served: ServerThread, filename: str = "f", *, clients: int = 8, blksize_bytes: int = 512, windowsize_blocks: int = 1
) -> Iterator[Load]:
    host, port = served.address
    made = Load(
        host,
        port,
        filename,
        CONTENT,
        clients=clients,
        blksize_bytes=blksize_bytes,
        windowsize_blocks=windowsize_blocks,
        client_timeout_s=1.0,
    )
    try:
        yield made
    finally:
        made.close()


def test_every_transfer_is_made_and_counted_once(root: Path) -> None:
    told: list[int] = []
    with serve_in_thread(root) as served, load(served, clients=8) as clients:
        clients.learn(10)
        result = clients.run(20, 20, told.append)
    assert (result["finished"], result["failed"], result["wrong_bytes"]) == (20, 0, 0)
    assert result["blocks"] == 20 * BLOCKS
    assert result["payload_bytes"] == 20 * len(CONTENT)
    assert 0 < result["p50_s"] <= result["p99_s"] <= result["max_s"] <= result["wall_s"]
    assert served.server.tally.transfers_total == 21


def test_every_client_has_an_address_of_its_own(root: Path) -> None:
    with serve_in_thread(root) as served, load(served, clients=3) as clients:
        clients.learn(10)
        clients.run(6, 20, lambda ended: None)
        served.call(served.server.stop)
    peers = {word.split(":")[0] for word in served.log.split() if word.startswith("peer=127.64.")}
    assert peers == {f"peer=127.64.0.{i}" for i in range(1, 8)}


@pytest.mark.parametrize(
    ("blksize_bytes", "windowsize_blocks"), [(1428, 1), (512, 4), (1428, 16), (65464, 1), (8192, 2)]
)
def test_options_are_learnt_and_kept_to(root: Path, blksize_bytes: int, windowsize_blocks: int) -> None:
    sizes = {"blksize_bytes": blksize_bytes, "windowsize_blocks": windowsize_blocks}
    with serve_in_thread(root) as served, load(served, **sizes) as clients:
        clients.learn(10)
        result = clients.run(16, 20, lambda ended: None)
    assert result["granted"] == sizes
    assert result["finished"] == 16
    assert result["blocks"] == 16 * (len(CONTENT) // blksize_bytes + 1)


def test_what_still_runs_when_the_measurement_is_over_is_cut_off(root: Path) -> None:
    with serve_in_thread(root) as served, load(served, clients=4) as clients:
        clients.learn(10)
        result = clients.run(None, 20, lambda ended: None, stop_after_s=0.3)
        again = clients.run(4, 20, lambda ended: None)
    assert result["finished"] > 4
    assert result["failures"] == {}
    assert result["transfers"] == result["finished"] + result["cut_off"]
    whole = result["finished"] * BLOCKS
    assert whole <= result["blocks"] <= whole + result["cut_off"] * BLOCKS
    assert result["wall_s"] == pytest.approx(0.3, abs=0.2)
    assert again["finished"] == 4, "nothing is left over from the run before"


def test_transfer_that_moved_nothing_is_not_cut_off_but_failed(root: Path) -> None:
    with serve_in_thread(root) as served, load(served, clients=2) as clients:
        clients.learn(10)
        served.call(served.server.stop)
        result = clients.run(None, 20, lambda ended: None, stop_after_s=0.2)
    assert result["failed"] == 2
    assert result["cut_off"] == 0


def test_other_options_than_before_fail_once(root: Path) -> None:
    with serve_in_thread(root) as served, load(served, clients=2, blksize_bytes=1024) as clients:
        clients.learn(10)
        clients._agreed = clients._agreed.__class__()  # as if the first answer had been another one
        result = clients.run(2, 20, lambda ended: None)
    assert result["failures"] == {"the server granted other options than before": 2}
    assert result["failed"] == 2


def test_one_wrong_byte_is_found(root: Path) -> None:
    with serve_in_thread(root) as served, load(served, clients=2) as clients:
        clients.learn(10)
        wrong = bytearray(CONTENT)
        wrong[-1] ^= 1
        (root / "new").write_bytes(wrong)
        (root / "new").rename(root / "f")
        result = clients.run(4, 20, lambda ended: None)
    assert result["wrong_bytes"] == result["failed"] == 4
    assert result["finished"] == 0
    assert list(result["failures"]) == ["CHANGED: content differs"]


def test_file_that_lacks_a_byte_is_wrong(root: Path) -> None:
    (root / "short").write_bytes(CONTENT[:-1])
    with (
        serve_in_thread(root) as served,
        load(served, "short") as clients,
        pytest.raises(RuntimeError, match="content differs"),
    ):
        clients.learn(10)


def test_refusal_names_its_reason(root: Path) -> None:
    with (
        serve_in_thread(root) as served,
        load(served, "missing") as clients,
        pytest.raises(RuntimeError, match="the first transfer failed: PEER_ERROR: "),
    ):
        clients.learn(10)


def test_what_does_not_end_in_time_has_failed(root: Path) -> None:
    with serve_in_thread(root) as served, load(served, clients=2) as clients:
        clients.learn(10)
        served.call(served.server.stop)
        result = clients.run(2, 0.2, lambda ended: None)
    assert result["finished"] == 0
    assert result["failures"] == {"not ended in time": 2}


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_quantile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == expected


def test_quantile_of_nothing_is_nothing() -> None:
    assert quantile([], 0.5) is None
