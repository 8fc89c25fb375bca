"""No name leads out of the root, whatever it is taken to mean: a corpus of tricks, and more of them at random.

May know: FileDecider, which is asked without a socket. Invariant of the scene: every file inside holds b"inside", every
one outside b"OUTSIDE", and what is hidden b"HIDDEN".
"""

import asyncio
import os
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.server import wait_for

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Accepted

CLIENT = "192.0.2.1"
SETTINGS: dict[str, object] = {
    "names.encodings": ["latin-1", "cp437", "koi8-r"],
    "names.siblings": ["*"],
    "names.optional": ["*.lst"],
}
OF_CASE = ("exact", "lower", "insensitive")


@dataclass
class Asked:
    datagram: bytes
    transfer_id: int = 1
    peer: tuple[str, int] = (CLIENT, 2000)
    local_address: str | None = None


@dataclass
class Scene:
    root: Path
    deciders: list[FileDecider]
    loop: asyncio.AbstractEventLoop

    def contents(self, name: bytes) -> list[bytes]:
        """What is served of a name, by each of the configurations, beside each of the last files."""
        return self.loop.run_until_complete(self._contents(name.replace(b"\0", b"")))

    async def _contents(self, name: bytes) -> list[bytes]:
        found = []
        for decider in self.deciders:
            for folder in (b"Sub/x", b"Sub/Deep/x", b"../x", b"Sub/../../x"):  # the last ones are never noted
                decider.other_names.folders.note(CLIENT, folder)
                verdict = decider.decide(Asked(b"\0\1" + name + b"\0octet\0"))
                if isinstance(verdict, Awaitable):
                    verdict = await verdict
                if isinstance(verdict, Accepted):
                    found.append(os.pread(verdict.plan.fd, 100, 0))
                    verdict.discard()
        return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    base = tmp_path_factory.mktemp("base")
    root = base / "root"
    inside = ["file", "Sub/File", "Sub/Deep/Kernel", "é", "srv/x", "...", "Sub/..x", "K"]
    hidden = [".git/config", "Sub/.hidden", ".x"]
    outside = ["secret", "rootx/secret", "Secret", "etc/passwd", "é"]
    for names, content, top in ((inside, b"inside", root), (hidden, b"HIDDEN", root), (outside, b"OUTSIDE", base)):
        for name in names:
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_bytes(content)
    for name, target in {"Out": base, "up": "..", "passwd": base / "secret", "Loop": ".", "In": root / "Sub"}.items():
        (root / name).symlink_to(target)
    deciders = []
    for case in OF_CASE:
        chosen = override(Settings(), {"root_dir": str(root), "names.case": case, **SETTINGS})
        deciders.append(FileDecider(chosen))
    loop = asyncio.new_event_loop()
    wait_for(lambda: deciders[-1].other_names.index.find(b"SUB/file"), "the index")
    yield Scene(root, deciders, loop)
    for decider in deciders:
        decider.close()
    loop.close()


CORPUS = [
    b"../secret",
    b"..\\secret",
    b"/../secret",
    b"//../secret",
    b"Sub/../../secret",
    b"SUB/../../SECRET",
    b"sub/..\\..\\Secret",
    b"{root}/../secret",
    b"{root}/..\\secret",
    b"{root}x/secret",
    b"{root}/{root}/../secret",
    b"{root}/Sub/../../secret",
    b"/etc/passwd",
    b"{base}/secret",
    b"%2e%2e/secret",
    b"..%2fsecret",
    b"\xc0\xae\xc0\xae/secret",  # overlong dots
    b"\xc0\xae\xc0\xae\xc0\xafsecret",
    b"\xe0\x80\xae\xe0\x80\xae/secret",
    b"\xef\xbc\x8e\xef\xbc\x8e/secret",  # fullwidth dots
    b"\xe2\x80\xa5/secret",  # a two-dot leader
    b"..\xff/secret",
    b"..\r/secret",
    b".. /secret",
    b".\xff./secret",
    b"..\xff",
    b"Out/secret",
    b"OUT/secret",
    b"out/SECRET",
    b"up/secret",
    b"UP/secret",
    b"Loop/Loop/up/secret",
    b"In/../../secret",
    b"IN/../secret",
    b"passwd",
    b"PASSWD",
    b"secret",
    b"SECRET",
    b"rootx/secret",
    b".git/config",
    b".GIT/CONFIG",
    b"Sub/.hidden",
    b"SUB/.HIDDEN",
    b"{root}/.git/config",
    b".hidden",  # beside the last file
    b".x",
    b"..",
    b".",
    b"",
    b"/",
    b"\xe2\x84\xaa",  # the Kelvin sign is no K
    b"\xc4\xb0",
    b"proc/self/root/etc/hostname",
    b"/proc/self/cwd",
    b"A" * 480,
    b"../" * 150 + b"etc/passwd",
    b"Sub/" * 110 + b"File",
    b"\x82" * 400,
    b"C:\\secret",
    b"\\\\host\\share\\secret",
    b"file\0../secret",
]


@pytest.mark.parametrize("trick", CORPUS)
def test_trick_serves_nothing_from_outside(scene: Scene, trick: bytes) -> None:
    name = trick.replace(b"{root}", os.fsencode(scene.root)).replace(b"{base}", os.fsencode(scene.root.parent))
    assert set(scene.contents(name)) <= {b"inside"}


def test_scene_serves_what_is_inside(scene: Scene) -> None:
    """Or the others would prove nothing."""
    root = os.fsencode(scene.root)
    assert len(scene.contents(b"file")) == len(OF_CASE) * 4
    assert len(scene.contents(root + b"/file")) == len(OF_CASE) * 4
    assert len(scene.contents(b"Loop/Sub/File")) == len(OF_CASE) * 4
    assert len(scene.contents(b"Kernel")) == len(OF_CASE), "beside the last file"
    assert len(scene.contents(b"sub/DEEP/kernel")) == 4
    assert len(scene.contents(b"\x82")) == len(OF_CASE) * 4


ATOMS = st.sampled_from(
    [
        *(
            b"..",
            b".",
            b"",
            b"/",
            b"\\",
            b"Sub",
            b"SUB",
            b"Deep",
            b"Out",
            b"up",
            b"UP",
            b"Loop",
            b"In",
            b"in",
            b"secret",
        ),
        *(b"Secret", b"{root}", b"{base}", b".git", b"config", b"passwd", b"\xff", b"\r\n", b" ", b"\xe9", b"\xc3\xa9"),
        *(b"\x82", b"\xc0\xae", b"\xc0\xaf", b"file", b"x", b"Kernel", b".hidden", b"\xe2\x84\xaa"),
    ]
)
NAMES = st.one_of(
    st.lists(ATOMS, max_size=8).map(b"/".join),
    st.lists(ATOMS, max_size=8).map(b"".join),
    st.binary(max_size=60),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
@example(b"{root}/../secret")
def test_no_name_serves_anything_from_outside(scene: Scene, name: bytes) -> None:
    name = name.replace(b"{root}", os.fsencode(scene.root)).replace(b"{base}", os.fsencode(scene.root.parent))
    assert set(scene.contents(name[:480])) <= {b"inside"}, name
