"""Hostile servers: every get and put ends soon, with the right bytes or an error that says what happened."""

import asyncio
import contextlib
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

AT_ONCE = 150
SHARED = 4
"""Clients that last: an engine for each transfer would cost more than the transfer."""
OWN = 50
"""One transfer in so many has a client of its own, which is closed behind it while the server still speaks."""
BOUND_S = 120.0
"""Three requests, each given up after 0.8 s of silence; a conversation is of 3,000 datagrams at most. The rest is for a
machine that is busy."""
QUICK = {"timeout": 0.2, "retries": 3, "max_size_bytes": 200_000}


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
        ended = "right" if server.is_right(name, content) else "another's"
        assert ended == "right" or server.is_anothers(content), (name, len(content), server.talks.get(name))
    assert time.monotonic() - began < BOUND_S
    return ended


async def put_one(client: AsyncClient, server: HostileServer, name: str, content: bytes) -> str:
    try:
        async with asyncio.timeout(BOUND_S):
            await client.put(name, content)
        ended = "right"
    except TransferError as error:
        ended = named(error)
    for talk in server.talks.get(name, []):
        for index, payload in talk.heard.items():
            assert payload == content[(index - 1) * talk.blksize : index * talk.blksize], (name, index)
    return ended


async def play(server: HostileServer, count: int, folder: Path, seed: int) -> Counter[str]:
    gate = asyncio.Semaphore(AT_ONCE)
    rng = random.Random(seed)

    def make() -> AsyncClient:
        return AsyncClient("127.0.0.1", server.port, windowsize=rng.choice([1, 4, 64]), **QUICK)

    async def one(number: int) -> str:
        name, is_put = str(number), number % 4 == 0
        async with gate, contextlib.AsyncExitStack() as own:
            client = await own.enter_async_context(make()) if number % OWN == 0 else rng.choice(shared)
            if is_put:
                return await put_one(client, server, name, payload_of(number, rng.choice([0, 511, 512, 20_000])))
            return await get_one(client, server, name, folder if number % 2 else None)

    async with contextlib.AsyncExitStack() as running:
        shared = [await running.enter_async_context(make()) for _ in range(SHARED)]
        ends = Counter(await asyncio.gather(*(one(number) for number in range(count))))
        for client in shared:
            await check_counters(client)
        return ends


async def check_counters(client: AsyncClient) -> None:
    """Of a client whose transfers have all been told."""
    async with asyncio.timeout(BOUND_S):
        # The last is told a moment before it is forgotten.
        while (counts := client.counters())["live_transfers"]:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
    assert counts["transfers_started"] == counts["transfers_ended"], counts
    assert counts["send_errors"] == 0, f"every socket was open, and everybody there: {counts}"
    unknown = counts["strays"] + counts["malformed"] + counts["blocks_received"] + counts["duplicate_acks"]
    assert unknown <= counts["datagrams_received"], counts


def check(folder: Path, count: int, seed: int) -> int:
    """Returns how many datagrams were sent to clients."""
    folder.mkdir()
    before = descriptors()
    with HostileServer(seed) as server:
        ends = asyncio.run(play(server, count, folder, seed))
    print(ends, flush=True)
    assert ends["right"] >= count / 4, "else only errors were tested"
    assert ends["another's"] <= count / 100, "a port has a new owner within moments, seldom"
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
