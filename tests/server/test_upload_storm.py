"""kill -9 in an upload storm: what was acknowledged is there, what is there is whole, and nothing else is.

Every payload starts with the SHA-256 of the rest, so a file is judged by itself. Half of the uploads have names of
their own, the others fight for a few.
"""

import hashlib
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.client import Client, Refused, Silence
from tests.support.server import Address, wait_for
from tests.support.soak import many
from tests.support.uploads import make_root, serve_uploads_command

from snow_owl_tftp.content.store.staging import is_staging_name

WRITERS = 4
CONTESTED = 3


def make_payload(rng: random.Random) -> bytes:
    body = rng.randbytes(rng.choice([0, 100, 1428, 20_000, 60_000]))
    return hashlib.sha256(body).digest() + body


def is_whole(content: bytes) -> bool:
    return hashlib.sha256(content[32:]).digest() == content[:32]


@dataclass
class Storm:
    """Writers that go on until the server is dead."""

    address: Address
    round: int
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    dead: threading.Event = field(default_factory=threading.Event)

    def write(self, number: int) -> None:
        rng = random.Random(f"{self.round}:{number}")
        count = 0
        while not self.dead.is_set():
            count += 1
            contested = rng.random() < 0.5
            name = f"up/same/{rng.randrange(CONTESTED)}" if contested else f"up/{self.round}-{number}/{count}"
            payload = make_payload(rng)
            with Client(self.address, timeout_s=0.1, give_up_s=0.2) as client:
                try:
                    client.put(name, payload, options={"blksize": 1428, "windowsize": 8})
                except (Silence, Refused):
                    continue
            if not contested:
                self.acknowledged[name] = payload


def run_storm(root: Path, round_: int, rng: random.Random) -> dict[str, bytes]:
    """Returns what was acknowledged, by name."""
    with serve_uploads_command(root, "create_directories = true") as server:
        storm = Storm(server.address, round_)
        threads = [threading.Thread(target=storm.write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        enough = rng.randrange(4, 20)  # a count: a busy machine has nothing to show after a time
        wait_for(lambda: len(storm.acknowledged) >= enough, f"{enough} uploads")
        time.sleep(rng.uniform(0, 0.05))  # no condition to wait for: any moment is what is meant
        server.signal(signal.SIGKILL)
        server.wait()
        storm.dead.set()
        for thread in threads:
            thread.join()
    return storm.acknowledged


def check_after_restart(root: Path, acknowledged: dict[str, bytes]) -> None:
    with serve_uploads_command(root):
        pass
    for path in root.rglob("*"):
        if path.is_file():
            assert not is_staging_name(os.fsencode(path.name)), "a temporary file is left"
            assert is_whole(path.read_bytes()), f"{path} is not whole"
    for name, payload in acknowledged.items():
        assert (root / name).read_bytes() == payload, f"{name} was acknowledged"


def storm_rounds(root: Path, rng: random.Random, rounds: int) -> None:
    acknowledged: dict[str, bytes] = {}
    for round_ in range(rounds):
        acknowledged |= run_storm(root, round_, rng)
        check_after_restart(root, acknowledged)
    assert len(acknowledged) > 3 * rounds, "hardly anything was uploaded, so nothing was shown"


def test_killed_server_keeps_every_acknowledged_upload(tmp_path: Path, rng: random.Random) -> None:
    storm_rounds(make_root(tmp_path), rng, 4)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_server_killed_many_times_keeps_every_acknowledged_upload(tmp_path: Path, rng: random.Random) -> None:
    """Twenty times; with SNOW_OWL_SOAK=full, two hundred."""
    storm_rounds(make_root(tmp_path), rng, many(20, full=200))
