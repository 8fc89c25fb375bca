"""Map files in use, name by name, beside tftpd-hpa itself: what one sends, the other sends.

A root holds a file at each place that our rules lead a name to, with that place as its content; tftpd-hpa is asked for
the names over the loopback. Were its rules to lead elsewhere, it would find nothing, or another content.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.client.conftest import COMMANDS, Peer, program, running
from tests.support.client import Client, Refused
from tests.support.maps import MAPS, NAMES
from tests.support.server import serve_in_thread

from snow_owl_tftp.policy.rewrite.parse import parse_map
from snow_owl_tftp.policy.rewrite.rewrites import Rewrites

MORE_RULES = rb"""
r ^plus(.+)$ \U\1\E-\1\L-\1
ri ^CASE/([a-z]+)[0-9]*\.?(bin|img)?$ case/\1\2\9
rg ([0-9])([0-9]) \2-\1
~e ^/?[^/]+/ never/used
a ^(.*)/forbidden$ \1\ is\ closed
re ^once/(.*) once/more/\1
r (linux|linux64)(.*) \1:\2
r ^[[:upper:]]+_([^_]*)_\<e\>.x <\1>\#\i
"""
MORE_NAMES = (
    b"plusaBc", b"Case/Abc12.bin", b"CASE/abc", b"a/1234", b"alone", b"/alone", b"dir/forbidden", b"once/1",
    b"b/linux64.img", b"b/linux", b"ABC_d-e_e-x", b"AB_c_", b"x/\xc3\xa4",
)  # fmt: skip


@pytest.fixture
def peer_root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    tmp_path.chmod(0o755)
    return root


@contextmanager
def hpa(map_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    def command(peer: Peer) -> list[str]:
        flags = ["--listen", "--foreground", "--secure", "--user", "root", "--map-file", str(map_path)]
        return [program("in.tftpd"), *flags, "--address", f"{peer.host}:{peer.port}", str(peer.root)]

    monkeypatch.setitem(COMMANDS, "tftpd-hpa", command)
    with running("tftpd-hpa", root) as peer:
        yield peer


def lay_out(root: Path, rules: Rewrites, names: tuple[str, ...], host: str) -> dict[str, str | None]:
    """Make the files, and return the content that each name has; None: it is denied."""
    expected: dict[str, str | None] = {}
    for name in names:
        rewritten = rules.apply(name, host, is_write=False)
        if not rewritten.names:
            expected[name] = None
            continue
        parts = [part for part in rewritten.names[0].split("/") if part]
        if rewritten.names[0].endswith("/"):
            continue  # no file has such a name
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("/".join(parts).encode("utf-8", "surrogateescape"))
        path.chmod(0o644)
        expected[name] = "/".join(parts)
    return expected


def answers(address: tuple[str, int], names: Iterable[str]) -> dict[str, str | None]:
    """What is sent for each name, None: it is denied; many at a time, since tftpd-hpa takes its time for each."""

    def ask(name: str) -> str | None:
        try:
            with Client(address, source="127.0.0.1") as client:
                return client.get(name).payload.decode("utf-8", "surrogateescape")
        except Refused as error:
            return None if error.code == 2 else str(error)

    names = list(names)
    with ThreadPoolExecutor(8) as threads:
        return dict(zip(names, threads.map(ask, names), strict=True))


@pytest.mark.parametrize("kind", [*MAPS, "more"])
def test_each_name_leads_to_where_tftpd_hpa_goes(
    kind: str, peer_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, names = (MORE_RULES, MORE_NAMES) if kind == "more" else (MAPS[kind], NAMES)
    map_path = tmp_path / "map"
    map_path.write_bytes(text)
    asked = tuple(name.decode("utf-8", "surrogateescape") for name in names)
    expected = lay_out(peer_root, Rewrites([parse_map(text, "map")], 4096), asked, "127.0.0.1")
    assert len(expected) >= len(names) - 1, "hardly anything is compared"
    with hpa(map_path, peer_root, monkeypatch) as peer:
        assert answers((peer.host, peer.port), expected) == expected
    # A backslash that no rule has taken away is a slash to us; see content.names.
    ours = {name: content for name, content in expected.items() if content is None or "\\" not in content}
    with serve_in_thread(peer_root, {"rewrite_file": str(map_path), "hidden": "serve"}) as server:
        assert answers(server.address, ours) == ours
