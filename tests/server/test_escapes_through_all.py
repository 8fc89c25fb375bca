"""Every trick of a corpus, through every way to a file at once, by clients of every identity: no byte from outside.

One server has rewriting, overlays with variables, siblings, an index of names in any case, other encodings, the path of
the root in front of names, templates, functions, link targets, an inventory, lease files and uploads. What it is told
about its clients is hostile too. See tests/support/escape_scene.py for the scene, escape_corpus.py for the names.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.support.bare_client import Answer, BareClient
from tests.support.escape_corpus import CORE, CORPUS, FEW, WAYS, filled, ways_of
from tests.support.escape_scene import FORBIDDEN, IDENTITIES, Scene, make_scene, serve_scene
from tests.support.server import ServerProcess
from tests.support.soak import many
from tests.support.witness import untouched

MAX_NAME_BYTES = 480  # of a request of 512 bytes, with mode and options
TSIZE = b"tsize\x000\0"
UPLOADED = b"inside, since somebody has sent it"
FULL_CLIENTS = ("127.0.1.2", "127.0.5.1", "127.0.7.1")
"""Who asks for everything: one whose variables choose a root, one of an overlay that ends with root_dir, one
of no rule."""


class Stage:
    """A server of a scene, and what its answers may be."""

    def __init__(self, scene: Scene, server: ServerProcess) -> None:
        self.scene = scene
        self.server = server
        self.outcomes: Counter[str] = Counter()
        self.problems: list[str] = []

    def client(self, source: str) -> BareClient:
        return BareClient(self.server.address, source)

    def names(self, tricks: Iterable[bytes]) -> Iterator[bytes]:
        for trick in tricks:
            yield filled(trick, self.scene.root, self.scene.base)[:MAX_NAME_BYTES]

    def judge(self, client: BareClient, name: bytes, answer: Answer) -> None:
        """Only what lies inside may come back, or an ERROR that is no accident."""
        who = f"{client.source} ({self.scene.clients[client.source]}) asked for {name[:80]!r}"
        for datagram in answer.datagrams:
            self.problems += [f"{who}: got {mark!r}" for mark in FORBIDDEN if mark in datagram]
        if answer.code is None:
            self.outcomes["served"] += 1
            if not answer.payload.startswith(b"inside"):
                self.problems.append(f"{who}: got {answer.payload[:80]!r}")
        else:
            self.outcomes[f"ERROR {answer.code}"] += 1
            if answer.code not in (1, 2, 4, 6) and answer.text != "The file could not be made":
                self.problems.append(f"{who}: ERROR {answer.code}: {answer.text}")

    def check(self) -> None:
        """At the end: nothing came from outside, nothing went wrong, and what is good is served on."""
        assert self.problems == []
        log = self.server.log
        lines = [json.loads(line) for line in log.splitlines()]
        assert [line for line in lines if line["level"] == "error" or "exception" in line] == []
        assert "Traceback" not in log
        assert self.server.process.poll() is None
        with self.client("127.0.7.1") as client:
            assert client.read(b"Sub/File").payload == b"inside Sub/File"
            assert client.read(b"h/file").payload == b"inside h/file"
            assert client.read(b"made/x").payload.startswith(b"inside x made/x")
        with self.client("127.0.1.2") as client:
            assert client.read(b"file").payload == b"inside by/good/file"
            assert client.read(b"deep/file").payload == b"inside absolute/good/deep/file"
        with self.client("127.0.6.101") as client:
            assert client.read(b"file").payload == b"inside machines/52:54:00:00:00:01/file"


def read_all(stage: Stage, source: str, names: Iterable[bytes]) -> None:
    """In each mode, with the size asked for, and beside a file that was read before."""
    with stage.client(source) as client:
        client.read(b"Sub/Deep/Kernel")  # for siblings: what is bare is looked for beside it
        for name in names:
            stage.judge(client, name, client.read(name, b"octet", TSIZE))
            stage.judge(client, name, client.read(name, b"netascii"))


def write_all(stage: Stage, source: str, names: Iterable[bytes]) -> None:
    with stage.client(source) as client:
        for number, name in enumerate(names):
            answer = client.write(name, UPLOADED, b"netascii" if number % 4 == 3 else b"octet")
            stage.judge(client, name, answer._replace(payload=UPLOADED))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    scene = make_scene(tmp_path_factory.mktemp("read"))
    with serve_scene(scene) as server:
        yield Stage(scene, server)


@pytest.fixture
def writable(tmp_path: Path) -> Iterator[Stage]:
    scene = make_scene(tmp_path, workers=2)
    with serve_scene(scene) as server:
        yield Stage(scene, server)


def through_all_ways(stage: Stage, tricks: Iterable[bytes]) -> list[bytes]:
    return [way[:MAX_NAME_BYTES] for name in stage.names(tricks) for way in ways_of(name)]


def identities(stage: Stage, network: str) -> list[str]:
    return [source for source in stage.scene.clients if source.startswith(f"{network}.")]


def test_scene_serves_what_lies_inside_by_every_way(stage: Stage) -> None:
    """Or the others would prove nothing."""
    with untouched(*stage.scene.outside):
        stage.check()
        with stage.client("127.0.7.1") as client:
            for name, content in (
                (b"SUB/FILE", b"inside Sub/File"),
                (bytes(stage.scene.root) + b"/Sub/File", b"inside Sub/File"),
                (b"\xe9", "inside é".encode()),
                (b"U/k", b"inside K"),
                (b"P/Sub%2FFile", b"inside Sub/File"),
                (b"P/Sub%255cFile", b"inside Sub/File"),
                (b"N/Su../b/File", b"inside Sub/File"),
                (b"T/common/file", b"inside common/file"),
                (b"E/sub/x", b"inside common/sub/x"),
                (b"Loop/In/File", b"inside Sub/File"),
                (b"place/x", b"inside place/x"),
                (b"back/file", b"inside file"),
            ):
                assert client.read(name).payload == content, name


@pytest.mark.parametrize("kind", CORPUS)
def test_no_trick_gets_a_byte_from_outside(stage: Stage, kind: str) -> None:
    names = through_all_ways(stage, CORPUS[kind])
    with untouched(*stage.scene.outside):
        for source in FULL_CLIENTS:
            read_all(stage, source, names)
        stage.check()


@pytest.mark.parametrize("network", IDENTITIES)
def test_no_identity_gets_a_byte_from_outside(stage: Stage, network: str) -> None:
    before = stage.outcomes["served"]
    with untouched(*stage.scene.outside):
        for source in identities(stage, network):
            read_all(stage, source, stage.names(CORE))
        stage.check()
    assert stage.outcomes["served"] > before  # by templates at least


def test_no_upload_leads_out(writable: Stage) -> None:
    tricks = [name for names in CORPUS.values() for name in names]
    with untouched(*writable.scene.outside):
        for network in IDENTITIES:
            for source in identities(writable, network):
                write_all(writable, source, writable.names(FEW))
        write_all(writable, "127.0.7.1", [*writable.names(tricks), *through_all_ways(writable, CORPUS["dot-dot"])])
        writable.problems += [str(path) for path in writable.scene.base.glob("*") if path.name not in SCENE]
    assert writable.problems == []
    assert writable.outcomes["served"] > 50
    log = writable.server.log
    assert "internal error" not in log
    assert "Traceback" not in log
    with writable.client("127.0.7.1") as client:
        assert client.write(b"new/file", UPLOADED).code is None
        assert client.read(b"new/file").payload == UPLOADED


SCENE = {"root", "place", "absolute", "outside", "etc", "rootx", "secret", "own"}


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_no_trick_of_any_identity_gets_a_byte_from_outside(stage: Stage) -> None:
    """Every name through every way for each fourth client; with SNOW_OWL_SOAK=full for each client."""
    names = through_all_ways(stage, [name for names in CORPUS.values() for name in names])
    with untouched(*stage.scene.outside):
        for source in list(stage.scene.clients)[:: many(40, full=1)]:
            read_all(stage, source, names)
        stage.check()
    print(f"{len(names)} names, {len(WAYS)} ways: {dict(stage.outcomes)}")
