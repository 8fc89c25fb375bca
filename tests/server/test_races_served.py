"""Names change places while a whole server answers: flows, netascii, uploads. See tests/content/test_races.py.

Half of the requests are asked again and again, so that the engine repeats what was decided; the swaps happen between
its look and its send, too.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.content.test_races import READ_NAMES, SECRET, base, is_whole, outside, read_pairs, upload_pairs, whole
from tests.support.client import Client, Refused, Silence
from tests.support.server import ServerThread
from tests.support.soak import many
from tests.support.swapper import swapping
from tests.support.uploads import serve_uploads

__all__ = ["base", "outside"]

THREADS = 4
FEW = 400
MANY = many(6_000, full=40_000)  # SNOW_OWL_SOAK=full
Act = Callable[[Client, random.Random], str]


def in_threads(server: ServerThread, rng: random.Random, count: int, act: Act) -> Counter[str]:
    """Clients that act until all of them together have done so `count` times."""
    outcomes: Counter[str] = Counter()
    problems: list[BaseException] = []

    def run(seed: float) -> None:
        own = random.Random(seed)
        try:
            with Client(server.address, timeout_s=0.5, give_up_s=60) as client:
                for _ in range(count // THREADS):
                    try:
                        outcomes[act(client, own)] += 1
                    except Refused as refused:
                        outcomes[f"ERROR {refused.code}"] += 1
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(rng.random(),)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems
    return outcomes


def read_octet(client: Client, rng: random.Random) -> str:
    name = rng.choice(READ_NAMES)
    content = client.get(name, options={"blksize": 512, "windowsize": 2}).payload
    assert content != SECRET, f"{name} leads out"
    assert is_whole(content), f"{name} is mixed"
    return "read"


def read_netascii(client: Client, rng: random.Random) -> str:
    name = rng.choice(READ_NAMES)
    content = client.get(name, "netascii", {"blksize": 4096}).payload.replace(b"\r\n", b"\n")
    assert content != SECRET, f"{name} leads out"
    assert is_whole(content), f"{name} is mixed"
    return "read"


def race(base: Path, rng: random.Random, count: int, act: Act, what: str) -> None:
    with serve_uploads(base / "root", **{".link_targets": (str(base / "place"),)}) as server:
        with swapping(*read_pairs(base)) as swaps:
            outcomes = in_threads(server, rng, count, act)
        hits = server.counters()["flow_hits"]
        assert "internal error" not in server.log
    print(f"{count} {what}, {swaps[0]} swaps, {hits} begun by the engine alone: {dict(outcomes)}")
    assert outcomes["read"] > count // 20
    assert what != "reads" or hits > 0, "no flow was raced"


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(("act", "what"), [(read_octet, "reads"), (read_netascii, "netascii reads")])
def test_no_race_lets_a_byte_out_of_the_server(base: Path, rng: random.Random, act: Act, what: str) -> None:
    race(base, rng, FEW, act, what)


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(("act", "what"), [(read_octet, "reads"), (read_netascii, "netascii reads")])
def test_no_race_of_very_many_lets_a_byte_out_of_the_server(
    base: Path, rng: random.Random, act: Act, what: str
) -> None:
    race(base, rng, MANY, act, what)


# ---- uploads


def upload(client: Client, rng: random.Random) -> str:
    name = rng.choice(("up/d/new", "up/d/file", "up/one", "up/two", "up/deep/er/new", "up/deep/er/made/new"))
    try:
        client.put(name, whole(rng), options={"blksize": 1024, "windowsize": 2})
    except Silence:
        return "silence"
    return "stored"


def race_uploads(base: Path, rng: random.Random, count: int, on_existing: str) -> None:
    for name in ("one", "two"):
        (base / "root/up" / name).write_bytes(whole(rng))
        (base / "root/up" / name).chmod(0o666)
    more = {"on_existing": on_existing, "create_directories": True, "fsync": False, "file_mode": 0o666}
    with serve_uploads(base / "root", **more) as server:
        with swapping(*upload_pairs(base)) as swaps:
            outcomes = in_threads(server, rng, count, upload)
        assert "internal error" not in server.log
    files = [path for path in (base / "root/up").rglob("*") if path.is_file() and not path.is_symlink()]
    assert all(is_whole(path.read_bytes()) for path in files)
    print(f"{count} uploads ({on_existing}), {swaps[0]} swaps: {dict(outcomes)}")
    assert outcomes["stored"] > 0
    assert not outcomes["silence"]


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("on_existing", ["replace", "version"])
def test_no_race_stores_a_byte_outside_of_the_server(base: Path, rng: random.Random, on_existing: str) -> None:
    race_uploads(base, rng, FEW, on_existing)


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("on_existing", ["refuse", "replace", "version", "replace_writable"])
def test_no_race_of_very_many_stores_a_byte_outside_of_the_server(
    base: Path, rng: random.Random, on_existing: str
) -> None:
    race_uploads(base, rng, MANY // 4, on_existing)
