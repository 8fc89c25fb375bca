"""Names change places while files are read and stored: no byte escapes, nothing outside is touched, nothing is mixed.

Another process exchanges directories with links out of every place, files with links, and files with files, as fast as
the kernel can. What lies outside is one content that nobody may ever be sent, in directories that nobody may change.
"""

import errno
import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.content.test_files import MakeResolver
from tests.content.test_uploads import Terms
from tests.support.soak import many
from tests.support.swapper import swapping

from snow_owl_tftp.content.confine import KernelResolver
from snow_owl_tftp.content.files import FileTree, OpenFile
from snow_owl_tftp.content.names import spellings_of
from snow_owl_tftp.content.source import LATER, NotHere
from snow_owl_tftp.content.store.staging import StagedFile, is_staging_name
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.content.translate import NetasciiCache
from snow_owl_tftp.content.walk import WalkResolver
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.decision import ReadDecision

SECRET = b"secret\n" * 700
FEW = 600
MANY = many(20_000, full=100_000)  # SNOW_OWL_SOAK=full
READ_NAMES = ("go/file", "go/../go/file", "absolute/file", "beside/file", "there/back/file", "single", "up/one")


def whole(rng: random.Random, size_bytes: int = 3000) -> bytes:
    """Content that tells by itself whether it is whole."""
    body = rng.randbytes(size_bytes // 2).hex().encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def is_whole(content: bytes) -> bool:
    head, _, body = content.partition(b"\n")
    return hashlib.sha256(body).hexdigest().encode() == head


@pytest.fixture
def base(tmp_path: Path, rng: random.Random) -> Path:
    """A root, a place that links may lead to, and a secret beside both."""
    for directory in ("root/go", "root/up/d", "root/up/deep/er", "place/sub", "out/er"):
        (tmp_path / directory).mkdir(parents=True)
    for name in ("root/go/file", "root/single", "root/other", "root/up/one", "place/file", "place/sub/file"):
        (tmp_path / name).write_bytes(whole(rng))
    for name in ("out/file", "out/er/file", "file", "secret"):
        (tmp_path / name).write_bytes(SECRET)
    links = {
        "root/absolute": tmp_path / "root/go",
        "root/beside": tmp_path / "place",
        "root/there": tmp_path / "place/sub",
        "place/sub/back": tmp_path / "root/go",
        "root/bait": "../out",
        "root/bait2": tmp_path / "out",
        "root/lure": "../secret",
        "place/bait": "../../out",
        "place/lure": tmp_path / "secret",
        "root/up/bait": "../../out",
        "root/up/deep/bait": tmp_path / "out/er",
        "root/up/lure": tmp_path / "secret",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.fixture
def outside(base: Path) -> Iterator[None]:
    """Nothing outside may change."""

    def seen() -> dict[str, bytes]:
        places = (base / "secret", base / "file", *(base / "out").rglob("*"))
        return {str(path): path.read_bytes() for path in places if path.is_file()}

    before = seen()
    yield
    assert seen() == before, "something outside has changed"


def read_pairs(base: Path) -> list[tuple[Path, Path]]:
    root, place = base / "root", base / "place"
    return [
        (root / "go", root / "bait"),
        (root / "single", root / "lure"),
        (place / "sub", place / "bait"),
        (place / "file", place / "lure"),
        (root / "go", root / "bait2"),
        (root / "other", root / "up/one"),
    ]


def content_of(file: OpenFile) -> bytes:
    try:
        return os.pread(file.fd, file.size_bytes + 1, 0)
    finally:
        file.close()


def read_once(tree: FileTree, name: str) -> OpenFile:
    file = tree.open_now(ReadDecision(spellings_of(name)))
    if isinstance(file, NotHere):
        raise file.refusal
    return tree.open_for_reading(name) if file is LATER else file


def race_reads(base: Path, make: MakeResolver, rng: random.Random, count: int) -> None:
    tree = FileTree(base / "root", make_resolver=make, link_targets=(str(base / "place"),))
    outcomes = Counter[str]()
    with swapping(*read_pairs(base)) as swaps:
        for _ in range(count):
            name = rng.choice(READ_NAMES)
            try:
                content = content_of(read_once(tree, name))
            except RefusedError as refused:
                outcomes[f"ERROR {refused.code}"] += 1
            else:
                assert is_whole(content), (name, content[:40])
                outcomes["read"] += 1
    tree.close()
    print(f"{count} reads, {swaps[0]} swaps: {dict(outcomes)}")
    assert outcomes["read"] > count // 20
    assert count - outcomes["read"] > count // 20, "links were hardly ever met"


RESOLVERS = pytest.mark.parametrize("make", [KernelResolver, WalkResolver])


@RESOLVERS
@pytest.mark.usefixtures("outside")
def test_no_race_lets_a_byte_out(base: Path, make: MakeResolver, rng: random.Random) -> None:
    race_reads(base, make, rng, FEW)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@RESOLVERS
@pytest.mark.usefixtures("outside")
def test_no_race_of_very_many_lets_a_byte_out(base: Path, make: MakeResolver, rng: random.Random) -> None:
    """20 000; with SNOW_OWL_SOAK=full, 100 000; of uploads a quarter."""
    race_reads(base, make, rng, MANY)


# ---- netascii


def race_copies(base: Path, rng: random.Random, count: int) -> None:
    """Of a copy nobody may be sent one that is another file's, or a mixture."""
    tree, cache = FileTree(base / "root", link_targets=(str(base / "place"),)), NetasciiCache()
    outcomes = Counter[str]()
    with swapping(*read_pairs(base)) as swaps:
        for _ in range(count):
            name = rng.choice(READ_NAMES)
            try:
                file = read_once(tree, name)
                try:
                    content = content_of(cache.translate(file))
                finally:
                    file.close()
            except RefusedError as refused:
                outcomes[f"ERROR {refused.code}"] += 1
            else:
                assert is_whole(content.replace(b"\r\n", b"\n")), (name, content[:40])
                outcomes["read"] += 1
    cache.close()
    tree.close()
    print(f"{count} netascii reads, {swaps[0]} swaps: {dict(outcomes)}")
    assert outcomes["read"] > count // 20


@pytest.mark.usefixtures("outside")
def test_no_race_mixes_a_netascii_copy(base: Path, rng: random.Random) -> None:
    race_copies(base, rng, FEW)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("outside")
def test_no_race_of_very_many_mixes_a_netascii_copy(base: Path, rng: random.Random) -> None:
    race_copies(base, rng, MANY)


# ---- uploads

UPLOAD_PATHS = (b"up/d/new", b"up/d/file", b"up/one", b"up/two", b"up/deep/er/new", b"up/deep/er/made/new", b"up/still")
MODES = ("refuse", "replace", "version", "replace_writable")
AT_ONCE = 2500
"""Uploads of one race; what has names is looked at between two, while nothing moves."""


def upload_pairs(base: Path) -> list[tuple[Path, Path]]:
    up = base / "root/up"
    return [
        (up / "d", up / "bait"),
        (up / "one", up / "lure"),
        (up / "deep/er", up / "deep/bait"),
        (up / "one", up / "two"),
    ]


def tidy(base: Path) -> None:
    """Check what has names, and make room for new ones."""
    for path in (base / "root/up").rglob("*"):
        if path.is_symlink() or path.is_dir():
            continue
        assert not is_staging_name(os.fsencode(path.name)), f"{path} is left over"
        assert is_whole(path.read_bytes()), f"{path} is not whole"
        if path.name not in ("one", "two", "lure", "still"):  # these change places, or are there from the beginning
            path.unlink()


def race_uploads(base: Path, make: MakeResolver, rng: random.Random, count: int, on_existing: str) -> None:
    area = UploadArea(base / "root", make_resolver=make)
    for name in ("two", "still"):
        (base / "root/up" / name).write_bytes(whole(rng))
    for name in ("one", "two", "still"):
        (base / "root/up" / name).chmod(0o666)
    outcomes, swaps_total = Counter[str](), 0
    while (left := count - outcomes.total()) > 0:
        with swapping(*upload_pairs(base)) as swaps:
            for number in range(min(left, AT_ONCE)):
                path = rng.choice(UPLOAD_PATHS)
                path += b"%d" % number if path.endswith(b"new") else b""
                terms = Terms(path, on_existing=on_existing, create_directories=True, fsync=False, file_mode_bits=0o666)
                outcomes[store(area, terms, whole(rng, 300))] += 1
        swaps_total += swaps[0]
        tidy(base)
    area.close()
    print(f"{count} uploads ({on_existing}), {swaps_total} swaps: {dict(outcomes)}")
    assert outcomes["stored"] > 0
    assert count - outcomes["stored"] > count // 20, "links were hardly ever met"


def store(area: UploadArea, terms: Terms, content: bytes) -> str:
    try:
        upload = area.begin(terms)
    except RefusedError as refused:
        return f"ERROR {refused.code} at once"
    try:
        os.pwrite(upload.open(), content, 0)
        upload.commit(len(content))
    except RefusedError as refused:
        return f"ERROR {refused.code}"
    finally:
        upload.close()
    return "stored"


@pytest.mark.parametrize("on_existing", MODES)
@pytest.mark.usefixtures("outside")
def test_no_race_stores_a_byte_outside(base: Path, rng: random.Random, on_existing: str) -> None:
    race_uploads(base, KernelResolver, rng, FEW, on_existing)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@RESOLVERS
@pytest.mark.parametrize("on_existing", MODES)
@pytest.mark.usefixtures("outside")
def test_no_race_of_very_many_stores_a_byte_outside(
    base: Path, make: MakeResolver, rng: random.Random, on_existing: str
) -> None:
    race_uploads(base, make, rng, MANY // 4, on_existing)


def cannot_be_replaced(*_: object) -> None:
    raise OSError(errno.EBUSY, "mounted by itself")


def race_in_place(base: Path, rng: random.Random, count: int) -> None:
    """What is written in place may be read in part, but it is the file below the root."""
    area = UploadArea(base / "root")
    outcomes = Counter[str]()
    with swapping((base / "root/up/one", base / "root/up/lure"), (base / "root/up/d", base / "root/up/bait")) as swaps:
        for _ in range(count):
            path = rng.choice((b"up/one", b"up/d/file"))
            outcomes[store(area, Terms(path, on_existing="replace", fsync=False), whole(rng, 300))] += 1
    area.close()
    print(f"{count} uploads in place, {swaps[0]} swaps: {dict(outcomes)}")
    assert outcomes["stored"] > 0


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(StagedFile, "publish_over", cannot_be_replaced)
    return race_in_place


@pytest.mark.usefixtures("outside")
def test_no_race_writes_in_place_outside(base: Path, in_place: Callable[..., None], rng: random.Random) -> None:
    in_place(base, rng, FEW)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("outside")
def test_no_race_of_very_many_writes_in_place_outside(
    base: Path, in_place: Callable[..., None], rng: random.Random
) -> None:
    in_place(base, rng, MANY)
