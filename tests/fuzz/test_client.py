"""Hostile servers: every get and put ends soon, with the right bytes or an error that says what happened."""

import asyncio
import itertools
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.fuzz.hostile_server import HostileServer, payload_of
from tests.support.soak import many

from snow_owl_tftp import AsyncClient
from snow_owl_tftp.errors import TransferError

AT_ONCE = 40
BOUND_S = 40.0
"""Three requests, each given up after 0.4 s of silence; a conversation is of 3,000 datagrams at most. The rest is for a
machine that is busy."""
QUICK = {"timeout": 0.1, "retries": 3, "max_size_bytes": 200_000}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def named(error: TransferError) -> str:
    assert str(error), "it says what happened"
    return type(error).__name__


async def get_one(client: AsyncClient, server: HostileServer, name: str, folder: Path | None) -> str:
    """Returns how it ended, "right" or the name of the error; fails where it ended wrong."""
    path = folder / name if folder else None
    began = time.monotonic()
    try:
        async with asyncio.timeout(BOUND_S):
            got = await client.get(name) if path is None else await client.get(name, path)
    except TransferError as error:
        ended = named(error)
        left = path is not None and path.exists()
        assert not left, "half a file"
    else:
        content = path.read_bytes() if path else got
        assert content in server.right_files(name), (name, len(content), server.talks[name])
        ended = "right"
    assert time.monotonic() - began < BOUND_S
    return ended


async def put_one(client: AsyncClient, server: HostileServer, name: str, content: bytes) -> str:
    try:
        async with asyncio.timeout(BOUND_S):
            await client.put(name, content)
        ended = "right"
    except TransferError as error:
        ended = named(error)
    for talk in server.talks[name]:
        for index, payload in talk.heard.items():
            assert payload == content[(index - 1) * talk.blksize : index * talk.blksize], (name, index)
    return ended


async def play(server: HostileServer, count: int, folder: Path, seed: int) -> Counter[str]:
    gate = asyncio.Semaphore(AT_ONCE)
    rng = random.Random(seed)

    async def one(number: int) -> str:
        name, is_put, windowsize = str(number), number % 4 == 0, rng.choice([1, 4, 64])
        async with gate, AsyncClient("127.0.0.1", server.port, windowsize=windowsize, **QUICK) as client:
            if is_put:
                return await put_one(client, server, name, payload_of(number, rng.choice([0, 511, 512, 20_000])))
            return await get_one(client, server, name, folder if number % 2 else None)

    return Counter(await asyncio.gather(*(one(number) for number in range(count))))


def check(folder: Path, count: int, seed: int) -> int:
    """Returns how many datagrams were sent to clients."""
    folder.mkdir()
    before = descriptors()
    with HostileServer(seed) as server:
        ends = asyncio.run(play(server, count, folder, seed))
    print(ends, flush=True)
    assert ends["right"] >= count / 4, "else only errors were tested"
    assert len(ends) >= 4, f"a variety of errors: {ends}"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "nothing half received is left"
    assert descriptors() <= before + 2
    return sum(talk.sent for talks in server.talks.values() for talk in talks)


@pytest.mark.timeout(300)
def test_hostile_servers_get_no_wrong_file_past_the_client(tmp_path):
    check(tmp_path / "got", 400, SEED)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_soak_hostile_servers_send_very_many_datagrams(tmp_path):
    """Half a million; with SNOW_OWL_SOAK=full, ten million."""
    wanted, sent = many(500_000, full=10**7), 0
    for number in itertools.count():
        sent += check(tmp_path / f"got-{number}", 1000, SEED * 1000 + number)
        print(sent, "datagrams so far", flush=True)
        if sent >= wanted:
            break
