"""Links and directories change places in roots that variables choose, and where names are found in any case.

    clients of several addresses ─► rules ─► machines/{address}, groups/{group}, common ◄─ exchanged by another process
                                 └► index of names, siblings, rewriting, functions     ◄─ with links that lead out

See tests/server/test_races_served.py for root_dir without rules. Invariant: what lies outside is one content, SECRET,
that nobody may ever be sent, in directories that nobody may change.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.content.test_races import SECRET, is_whole, whole
from tests.support.bare_client import BareClient
from tests.support.server import ServerProcess, serve_command, wait_for
from tests.support.soak import many
from tests.support.swapper import swapping

CLIENTS = ("127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14")
FEW = 400
MANY = many(6_000, full=100_000)  # SNOW_OWL_SOAK=full
ENOUGH_SWAPS = 100_000
"""At least, of a soak test; of the others a hundredth."""
READS = (b"file", b"d/file", b"d/../file", b"only", b"R/file", b"e/one", b"h/d/file")
IN_ANY_CASE = (b"FILE", b"Go/FILE", b"go/file", b"GO/Deep/Stage1.efi", b"stage2.EFI", b"stage2.efi", b"BAIT0/file")
UPLOADS = (b"up/new", b"up/d/new", b"up/one", b"up/d/e/new")
AGAIN = ("File is being changed, try again", "Server busy, try again")
"""What comes of a file that was given another name meanwhile, and of renames without end."""
Act = Callable[[BareClient, random.Random], str]

RULES = """
root_dir = "{base}/root"
link_targets = ["{base}/place"]
[[rewrite]]
pattern = '^R/'
replacement = 'd/../'
[[handlers]]
match = "h/**"
handler = "racing_handler:answer"
[machines]
inventory = "{base}/machines.json"
[[rules]]
allow = ["read", "write", "overwrite"]
roots = ["machines/{{address}}", "groups/{{group}}", "way/{{place}}", "{base}/absolute/{{place}}", "common"]
[write_config]
enabled = true
allowed_patterns = ["up/**"]
create_directories = true
on_existing = "replace"
fsync = false
[logging]
level = "error"
"""
NAMES = """
root_dir = "{base}/root"
link_targets = ["{base}/place"]
[names]
case = "insensitive"
siblings = ["*.efi"]
[logging]
level = "error"
"""
HANDLER = """
from snow_owl_tftp import Response

def answer(request):
    return Response(request.under({common!r}))
"""


@pytest.fixture
def base(tmp_path: Path, rng: random.Random) -> Path:
    """Roots for each client, a place that links may lead to, and secrets of the same names beside them."""
    rooms = [*(f"root/machines/{client}" for client in CLIENTS), "root/groups/shop", "root/way/p", "root/common"]
    for room in (*rooms, "absolute/p", "place", "root/go/Deep", "root/common/h"):
        for name in ("file", "d/file", "e/one", "up/d/x", "up/one", "h/d/file"):
            (tmp_path / room / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / room / name).write_bytes(whole(rng, 300))
            (tmp_path / room / name).chmod(0o666)
    for name in ("root/common/only", "root/go/Deep/Stage1.efi", "root/go/Deep/Stage2.efi", "root/go/file", "root/file"):
        (tmp_path / name).write_bytes(whole(rng, 300))
    for name in (
        "file",
        "d/file",
        "e/one",
        "only",
        "p/file",
        "p/d/file",
        "Deep/Stage2.efi",
        "Stage2.efi",
        "up/one",
        "up/d/x",
    ):
        for outside in (tmp_path / "out", tmp_path / "out/shop", *(tmp_path / "out" / client for client in CLIENTS)):
            (outside / name).parent.mkdir(parents=True, exist_ok=True)
            (outside / name).write_bytes(SECRET[:700])
    (tmp_path / "secret").write_bytes(SECRET[:700])
    for room in rooms:
        _set_baits(tmp_path / room, tmp_path)
    for room in rooms:
        _set_baits(tmp_path / room / "up", tmp_path)
    for name in ("root", "root/machines", "root/groups", "root/way", "root/go", "absolute", "root/go/Deep"):
        _set_baits(tmp_path / name, tmp_path)
    machine = {"address": CLIENTS[1:], "group": "shop", "vars": {"place": "p"}}
    (tmp_path / "machines.json").write_text(json.dumps([machine]))
    (tmp_path / "racing_handler.py").write_text(HANDLER.format(common=str(tmp_path / "root/common")))
    return tmp_path


def _set_baits(folder: Path, base: Path) -> None:
    for number in range(4):
        target = ("out", "out/shop")[number % 2]
        (folder / f"bait{number}").symlink_to(base / target)
    (folder / "lure").symlink_to(base / "secret")


@pytest.fixture
def outside(base: Path) -> Iterator[None]:
    """Nothing outside may change."""

    def seen() -> dict[str, tuple[int, bytes]]:
        files = [path for path in (base / "secret", *(base / "out").rglob("*")) if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = seen()
    yield
    assert seen() == before


# Both of a pair lie in one directory, and no bait lies outside: so what exchanges them touches nothing there itself.


def pairs_of_roots(base: Path) -> list[tuple[Path, Path]]:
    """Roots themselves, what leads to them, directories and files in them."""
    root = base / "root"
    one, two, three, _ = (root / "machines" / client for client in CLIENTS)
    return [
        (one, root / "machines/bait0"),
        (two / "d", two / "bait0"),
        (two / "file", two / "lure"),
        (three / "e", three / "bait1"),
        (root / "machines", root / "bait0"),
        (root / "groups/shop", root / "groups/bait1"),
        (root / "way", root / "bait1"),
        (root / "common", root / "bait2"),
        (base / "absolute/p", base / "absolute/bait0"),
        (root / "machines", root / "bait0"),
    ]


def pairs_of_uploads(base: Path) -> list[tuple[Path, Path]]:
    one, two, three, _ = (base / "root/machines" / client for client in CLIENTS)
    return [
        (one, base / "root/machines/bait0"),
        (two / "up", two / "bait0"),
        (two / "up/d", two / "up/bait1"),
        (three / "up/one", three / "up/lure"),
        (base / "root/machines", base / "root/bait0"),
    ]


def pairs_of_names(base: Path) -> list[tuple[Path, Path]]:
    root = base / "root"
    return [
        (root / "go", root / "bait0"),
        (root / "go/Deep", root / "go/bait1"),
        (root / "go/Deep/Stage2.efi", root / "go/Deep/lure"),
        (root / "go/file", root / "go/lure"),
    ]


def judged(client: BareClient, name: bytes, mode: bytes) -> str:
    answer = client.read(name, mode)
    assert all(b"secret" not in datagram for datagram in answer.datagrams), f"{name!r} leads out"
    if answer.code is not None:
        assert answer.code in (1, 2) or answer.text in AGAIN, answer.text
        return f"ERROR {answer.code}"
    assert is_whole(answer.payload.replace(b"\r\n", b"\n")), f"{name!r} is mixed"
    return "read"


def read(client: BareClient, rng: random.Random) -> str:
    return judged(client, rng.choice(READS), rng.choice((b"octet", b"octet", b"netascii")))


def read_in_any_case(client: BareClient, rng: random.Random) -> str:
    return judged(client, rng.choice(IN_ANY_CASE), b"octet")


def upload(client: BareClient, rng: random.Random) -> str:
    answer = client.write(rng.choice(UPLOADS), whole(rng, 300))
    return "stored" if answer.code is None else f"ERROR {answer.code}"


def in_threads(server: ServerProcess, rng: random.Random, count: int, act: Act) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    problems: list[BaseException] = []

    def run(source: str, seed: float) -> None:
        own = random.Random(seed)
        try:
            with BareClient(server.address, source) as client:
                for _ in range(count // len(CLIENTS)):
                    outcomes[act(client, own)] += 1
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(source, rng.random())) for source in CLIENTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems
    return outcomes


def race(
    base: Path,
    rng: random.Random,
    count: int,
    toml: str,
    act: Act,
    pairs: list[tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> Counter[str]:
    monkeypatch.setenv("PYTHONPATH", str(base), prepend=":")
    config = base / "owl.toml"
    config.write_text(toml.format(base=base))
    with serve_command(None, "--config", str(config), stderr_path=base / "stderr") as server:
        with swapping(*pairs) as swaps:
            outcomes = in_threads(server, rng, count, act)
        # What was exchanged an odd number of times is put back.
        assert "Traceback" not in server.log
        assert "internal error" not in server.log
        name = b"up/good" if act is upload else b"file"
        wait_for(lambda: is_well(server, name, act), "a good answer behind the race")
        if act is read_in_any_case:
            (base / "root/Fresh").mkdir()
            (base / "root/Fresh/File").write_bytes(b"new")
            wait_for(lambda: is_well(server, b"FRESH/FILE", act), "an index that goes on", deadline_s=60)
    print(f"{count} times {act.__name__}, {swaps[0]} swaps: {dict(outcomes)}")
    assert swaps[0] > ENOUGH_SWAPS // (1 if count >= MANY else 100)
    return outcomes


def is_well(server: ServerProcess, name: bytes, act: Act) -> bool:
    with BareClient(server.address, CLIENTS[3]) as client:
        answer = client.write(name, b"good") if act is upload else client.read(name)
    return answer.code is None


RACES = pytest.mark.parametrize(
    ("toml", "act", "pairs"),
    [
        pytest.param(RULES, read, pairs_of_roots, id="roots"),
        pytest.param(NAMES, read_in_any_case, pairs_of_names, id="names"),
        pytest.param(RULES, upload, pairs_of_uploads, id="uploads"),
    ],
)
Pairs = Callable[[Path], list[tuple[Path, Path]]]


@RACES
@pytest.mark.usefixtures("outside")
def test_no_race_in_roots_lets_a_byte_out(
    base: Path, rng: random.Random, toml: str, act: Act, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = race(base, rng, FEW, toml, act, pairs(base), monkeypatch)
    assert outcomes["stored" if act is upload else "read"] > FEW // 20


@pytest.mark.soak
@pytest.mark.timeout(7200)
@RACES
@pytest.mark.usefixtures("outside")
def test_no_race_of_very_many_in_roots_lets_a_byte_out(
    base: Path, rng: random.Random, toml: str, act: Act, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 000 requests; with SNOW_OWL_SOAK=full, 100 000, as many swaps at least."""
    outcomes = race(base, rng, MANY, toml, act, pairs(base), monkeypatch)
    assert outcomes["stored" if act is upload else "read"] > MANY // 20
