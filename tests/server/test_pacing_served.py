"""Soak: bytes a second are kept within 5 %, for one client and for fifty, in lock-step and in windows.

A native load drives the server: what is measured is the server's pacing, not a client in Python.
"""

import random
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SEED
from tests.support.server import serve_command

from snow_owl_tftp.bench.load import Load

pytestmark = [pytest.mark.soak, pytest.mark.alone("measures how fast transfers go"), pytest.mark.timeout(300)]
SIZES = {"512": (512, 1), "1428x16": (1428, 16)}
CONTENT_BYTES = 400_000


def run(tmp_path: Path, limits: dict[str, int], clients: int, transfers: int, size: tuple[int, int]) -> dict[str, Any]:
    content = random.Random(SEED).randbytes(CONTENT_BYTES)
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(content)
    config = tmp_path / "owl.toml"
    config.write_text("[limits]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items()))
    with serve_command(root, "--config", str(config), "--log-level", "error") as server:
        load = Load(
            *server.address,
            "file",
            content,
            clients=clients,
            blksize_bytes=size[0],
            windowsize_blocks=size[1],
            client_timeout_s=5.0,
        )
        try:
            load.learn(60)  # so much less is in the bucket of all
            result = load.run(transfers, 200, lambda ended: None)
        finally:
            load.close()
    assert (result["finished"], result["failed"], result["wrong_bytes"]) == (transfers, 0, 0), result
    return result


def on_the_wire(blksize_bytes: int) -> int:
    return CONTENT_BYTES + 4 * (CONTENT_BYTES // blksize_bytes + 1)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("clients", [1, 50])
def test_soak_what_all_may_have_is_what_they_get(tmp_path: Path, clients: int, size: tuple[int, int]) -> None:
    rate = 400_000 if clients == 1 else 2_000_000
    transfers = 10 if clients == 1 else 50
    limits = {"max_bytes_per_s": rate, "max_unproven_bytes_per_s": 10**9}
    result = run(tmp_path, limits, clients, transfers, size)
    burst_bytes = max(rate - on_the_wire(size[0]), 0)
    expected_s = (transfers * on_the_wire(size[0]) - burst_bytes) / rate
    print(f"all, {clients} clients, {size}: {result['wall_s'] / expected_s:.4f} of {expected_s:.2f} s")
    assert 0.95 < result["wall_s"] / expected_s < 1.05, result


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("clients", [1, 50])
def test_soak_what_each_may_have_is_what_each_gets(tmp_path: Path, clients: int, size: tuple[int, int]) -> None:
    rate = 50_000
    limits = {"max_bytes_per_s_per_client": rate, "max_unproven_bytes_per_s": 10**9}
    result = run(tmp_path, limits, clients, clients, size)  # each from an address of its own
    expected_s = on_the_wire(size[0]) / rate - 1  # its bucket was full
    for figure in ("p50_s", "max_s"):
        print(f"each of {clients}, {size}: {figure} {result[figure] / expected_s:.4f} of {expected_s:.2f} s")
        assert 0.95 < result[figure] / expected_s < 1.05, result
