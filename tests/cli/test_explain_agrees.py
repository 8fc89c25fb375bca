"""`snow-owl-tftp explain` says what a server with the same settings does: one that has everything switched on."""

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.client import Client, Silence
from tests.support.server import ServerProcess, serve_command, wait_for

from snow_owl_tftp.cli import main
from snow_owl_tftp.config.load import load
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.operate.explain import Explanation, Question, explain
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Data, Error, Oack, build_error, build_request

LATHE, NOBODY, SHUNNED, READER = "127.0.0.2", "127.0.0.3", "127.0.0.9", "127.0.0.7"
FILES = (
    "plain",
    "Boot/BCD",
    "new/x",
    "first/x",
    "only/y",
    "é",
    "secret/key",
    "boot/x64/shimx64.efi",
    "boot/x64/grubx64.efi",
    "common/c",
    "common/own",
    "groups/shop/g",
    "machines/52:54:00:00:00:07/own",
    "up/old",
    ".hidden",
)
TOML = """
root_dir = "{base}/root"
rewrite_file = "{base}/names.map"

[names]
case = "insensitive"
siblings = ["*.efi"]
optional = ["*.lst"]
encodings = ["latin-1"]

[machines]
inventory = "{base}/machines.json"
sources = ["inventory", "name"]

[write_config]
enabled = true
allowed_patterns = ["up/**", "new/**"]

[[rewrite]]
pattern = '^old/'
replacement = "new/"

[[rules]]
clients = ["127.0.0.9"]
allow = "ignore"

[[rules]]
paths = ["secret/**"]
allow = []

[[rules]]
groups = ["shop"]
trust = "address"
roots = ["machines/{{mac}}", "groups/{{group}}", "common"]
options = {{ max_blksize_bytes = 1024, refuse = ["windowsize"] }}

[[rules]]
paths = ["up/**"]
allow = ["read", "write"]

[[templates]]
match = "pxe/01-{{mac_dashes}}"
template = "pxe.j2"

[[templates]]
match = "fails/{{name_of_it}}"
template = "fails.j2"
"""
MAP = """
rE ^alt/(.*)$ first/\\1
r ^alt/ only/
a ^forbidden/ No\\ such\\ luck
"""
MACHINES = {"machine": [{"mac": "52:54:00:00:00:07", "address": LATHE, "name": "lathe", "group": "shop"}]}


@dataclass
class Both:
    """A server, and the settings that it was started with."""

    server: ServerProcess
    settings: Settings
    config: Path

    def explain(self, client: str, name: str, **more: Any) -> Explanation:
        return explain(self.settings, Question(client, self.server.address, name, **more))

    def ask(self, client: str, name: str, *, is_write: bool = False, options: tuple[tuple[str, str], ...] = ()) -> Any:
        """The first answer of the server: an error code, None for silence, or what was granted and the first bytes."""
        kind = Opcode.WRQ if is_write else Opcode.RRQ
        with Client(self.server.address, source=client, give_up_s=0.5 if client == SHUNNED else 10) as asking:
            try:
                packet, peer = asking.exchange(build_request(kind, name, options=options))
            except Silence:
                return None
            if isinstance(packet, Error):
                return packet.code
            asking.send(build_error(0, "thank you"), peer)
            if isinstance(packet, Oack):
                return dict(packet.options)
            return packet.payload if isinstance(packet, Data) else b""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    base = tmp_path_factory.mktemp("both")
    for name in FILES:
        path = base / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    (base / "names.map").write_text(MAP)
    (base / "machines.json").write_text(json.dumps(MACHINES))
    (base / "pxe.j2").write_text("{{ machine.name or mac_dashes }} for {{ request.client }}\n")
    (base / "fails.j2").write_text("{{ machine.vars.release }}\n")
    config = base / "owl.toml"
    config.write_text(TOML.format(base=base))
    with serve_command(None, "--config", str(config), stderr_path=base / "stderr") as server:
        yield Both(server, load(config), config)


def check(both: Both, client: str, name: str, *, is_write: bool = False, **more: Any) -> Explanation:
    """Explain a request, and see that the server does that."""
    options = more.get("options", ())
    told = both.explain(client, name, is_write=is_write, shows=True, **more)
    answer = both.ask(client, name, is_write=is_write, options=options)
    if not told.is_served:
        assert answer == told.error, (name, told)
    elif told.options:
        assert answer == told.options, (name, told)
    elif is_write:
        assert answer == b"", (name, told)
    elif told.template is not None:
        assert told.template.output is not None
        assert answer == told.template.output.encode(), (name, told)
    else:
        assert answer == Path(told.file).read_bytes(), (name, told)
    return told


OPTIONS = (("blksize", "1428"), ("tsize", "0"), ("windowsize", "4"))
TABLE = [
    # name, how the last meaning was come by, outcome
    ("plain", "sent", True),
    ("/plain", "sent", True),
    ("plain\udcff\udcffx", "sent", True),
    ("BOOT\\bcd", "case", True),
    ("old/x", "rewritten", True),
    ("OLD/x", "sent", False),
    ("alt/x", "rewritten", True),
    ("alt/y", "rewritten", True),
    ("alt/z", "rewritten", False),
    ("forbidden/x", None, False),
    ("\udce9", "spelling", True),
    ("secret/key", "sent", False),
    ("SECRET/KEY", "case", False),
    ("common/../secret/key", "sent", False),
    ("../secret", "sent", False),
    (".hidden", "sent", False),
    ("missing.lst", "sent", False),
    ("grubx64.efi", "sent", False),
    ("pxe/01-52-54-00-00-00-09", "sent", True),
    ("pxe/01-52-54-00-00-00-0z", "sent", False),
    ("fails/x", "sent", False),
    ("common", "sent", False),
]


@pytest.mark.parametrize(("name", "way", "is_served"), TABLE)
def test_reads_are_told_as_they_are_answered(both: Both, name: str, way: str | None, is_served: bool) -> None:
    told = check(both, NOBODY, name)
    assert told.is_served == is_served
    assert (told.meanings[-1].way if told.meanings else None) == way, told
    check(both, NOBODY, name, options=OPTIONS)


@pytest.mark.parametrize("name", ["own", "g", "c", "plain", "Own", "old/x", "secret/key", "pxe/01-52-54-00-00-00-09"])
def test_a_machine_of_the_inventory_gets_what_is_told(both: Both, name: str) -> None:
    told = check(both, LATHE, name)
    assert told.machine is not None
    assert (told.machine.name, told.machine.known_by, told.machine.source) == ("lathe", "address", "inventory")
    check(both, LATHE, name, options=OPTIONS)


def test_a_rule_that_refuses_another_meaning_is_told_and_does_not_decide(
    both: Both, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(both, NOBODY, "SECRET/KEY").rule == 0
    _, told = lines(capsys, both, "--client", NOBODY, "SECRET/KEY")
    assert "but       Reading this name is not allowed: rule 2" in told
    assert told[-1] == "answer    ERROR 1: File not found"


def test_roots_that_are_passed_over_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common/x").write_text("x")
    config = tmp_path / "owl.toml"
    config.write_text(f'root_dir = "{tmp_path}"\n[[rules]]\nroots = ["machines/{{mac}}", "common"]\n')
    assert main(["explain", "--config", str(config), "--client", NOBODY, "x"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "root      machines/{mac}: passed over: a variable in it is not known" in told
    assert f"root      {tmp_path}/common: found" in told


def test_silence_is_told(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    told = check(both, SHUNNED, "plain")
    assert (told.answer, told.rule, told.error) == ("silence", 1, None)
    assert lines(capsys, both, "--client", SHUNNED, "plain") == (
        1,
        [
            "client    127.0.0.9 asks 127.0.0.1, port 69, to read plain",
            "machine   not known",
            "name      plain",
            "rule      1 decides",
            "answer    silence",
            "why       rule 1: ignored",
        ],
    )


def test_rule_of_the_rewritten_name_is_silent_to_uploads_that_nobody_takes(tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    config.write_text(
        f'root_dir = "{tmp_path}"\n[[rewrite]]\npattern = "^old/"\nreplacement = "new/"\n'
        '[[rules]]\npaths = ["new/**"]\nallow = "ignore"\n'
    )
    with serve_command(None, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        asking = Both(server, load(config), config)
        for name, code in (("old/x", None), ("x", 2)):
            assert asking.ask(SHUNNED, name, is_write=True) == code
            assert asking.explain(SHUNNED, name, is_write=True).error == code


def test_second_stage_is_told_beside_the_file_that_is_named(both: Both) -> None:
    assert "--after" in check(both, READER, "grubx64.efi").notes[0]
    with Client(both.server.address, source=READER) as client:
        client.get("boot/x64/shimx64.efi")
    told = check(both, READER, "GRUBX64.EFI", after="boot/x64/shimx64.efi")
    assert told.is_served
    assert [tried.way for tried in told.meanings] == ["sent", "sibling", "sibling"]
    assert told.file.endswith("boot/x64/grubx64.efi")


@pytest.mark.parametrize(
    "name", ["up/new", "up/old", "UP/new", "new/y", "old/y", "elsewhere", "secret/up", "up/no/dir", "up/x\udcff", ".up"]
)
@pytest.mark.parametrize("client", [NOBODY, LATHE])
def test_uploads_are_told_as_they_are_answered(both: Both, client: str, name: str) -> None:
    check(both, client, name, is_write=True)
    check(both, client, name, is_write=True, options=OPTIONS[:1])


_PARTS = st.sampled_from(
    [*FILES, "old", "alt", "forbidden", "secret", "..", ".", "", "x", "X", "é", "\udce9", "\udcff", " ", "\\", "*.lst"]
)
_NAMES = st.one_of(
    st.lists(_PARTS, min_size=1, max_size=4).map("/".join).filter(bool),
    st.sampled_from(FILES).map(str.swapcase),
    st.text(string.printable, min_size=1, max_size=20).filter(lambda text: "\0" not in text),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=_NAMES, client=st.sampled_from([NOBODY, LATHE]), is_write=st.booleans())
def test_whatever_is_asked_is_told_as_it_is_answered(both: Both, name: str, client: str, is_write: bool) -> None:
    check(both, client, name, is_write=is_write)


def lines(capsys: pytest.CaptureFixture[str], both: Both, *arguments: str) -> tuple[int, list[str]]:
    status = main(["explain", "--config", str(both.config), "--listen", "127.0.0.1:69", *arguments])
    return status, [line for line in capsys.readouterr().out.splitlines() if not line.startswith("limits")]


def test_lines_tell_each_step(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    base = both.config.parent
    assert lines(capsys, both, "--client", NOBODY, "alt/y") == (
        0,
        [
            "client    127.0.0.3 asks 127.0.0.1, port 69, to read alt/y",
            "machine   not known",
            'rewrite   line 2: makes "first/y"',
            'rewrite   line 2: ends with "first/y" if that can be opened',
            'rewrite   line 3: makes "only/y"',
            "name      first/y (rewritten)",
            "rule      1 does not fit: clients",
            "rule      2 does not fit: paths",
            "rule      3 does not fit: groups",
            "rule      4 does not fit: paths",
            "rule      none decides",
            "but       File not found",
            "name      only/y (rewritten)",
            "rule      1 does not fit: clients",
            "rule      2 does not fit: paths",
            "rule      3 does not fit: groups",
            "rule      4 does not fit: paths",
            "rule      none decides",
            f"file      {base}/root/only/y (14 bytes)",
            "options   none",
            "answer    served",
        ],
    )


def test_lines_show_what_a_template_makes(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = lines(
        capsys, both, "--client", NOBODY, "--mac", "52:54:00:00:00:07", "--show", "pxe/01-52-54-00-00-00-09"
    )
    assert status == 0
    assert told[1] == "machine   lathe, 52:54:00:00:00:07, shop (known by its address, from --mac)"
    assert f"template  {both.config.parent}/pxe.j2 mac_dashes=52-54-00-00-00-09" in told
    assert told[-3:] == ["options   none", "answer    served", "show      lathe for 127.0.0.3"]
    status, told = lines(capsys, both, "--client", NOBODY, "fails/x")
    assert status == 1
    assert told[-2] == "answer    ERROR 0: The file could not be made"
    assert "fails.j2:1: machine.vars.release is not known" in told[-1]


def test_lines_say_that_nobody_misses_a_file(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = lines(capsys, both, "--client", NOBODY, "x.lst")
    assert status == 1
    assert told[-2:] == [
        "answer    ERROR 1: File not found",
        "          an optional file, which is missing (names.optional)",
    ]


def test_handlers_are_named_and_not_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "owl.toml"
    (tmp_path / "root").mkdir()
    (tmp_path / "root/state").write_text("kept")
    config.write_text(
        f'root_dir = "{tmp_path}/root"\n[[handlers]]\nmatch = "state*"\nhandler = "no_such_module:answer"\n'
    )
    arguments = ["explain", "--config", str(config), "--client", NOBODY]
    assert main([*arguments, "state"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert "handler   no_such_module:answer is asked; below is what happens where it returns None" in told
    assert told[-1] == "answer    the handler's; without one: served"
    assert main([*arguments, "--json", "state7"]) == 3
    tree = json.loads(capsys.readouterr().out)
    assert (tree["is_served"], tree["error"], tree["for_all"]) == (None, 1, False)
    assert main([*arguments, "other"]) == 1


def test_leases_and_what_is_not_known_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "root/m/52:54:00:00:00:08").mkdir(parents=True)
    (tmp_path / "root/m/52:54:00:00:00:08/x").write_text("x")
    leases = tmp_path / "leases"
    leases.write_text("0 52:54:00:00:00:08 192.0.2.8 host *\n")
    config = tmp_path / "owl.toml"
    config.write_text(
        f'root_dir = "{tmp_path}/root"\n[machines]\nsources = ["leases"]\nleases = ["{leases}"]\n'
        '[[rules]]\nroots = ["m/{mac}"]\n'
    )
    arguments = ["explain", "--config", str(config), "--json", "--client"]
    assert main([*arguments, "192.0.2.8", "x"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert (tree["machine"]["mac"], tree["machine"]["source"]) == ("52:54:00:00:00:08", "leases")
    assert main([*arguments, "192.0.2.9", "x"]) == 1
    leases.unlink()
    assert main([*arguments, "192.0.2.8", "x"]) == 1
    (note,) = json.loads(capsys.readouterr().out.splitlines()[-1])["notes"]
    assert str(leases) in note


def test_address_that_was_asked_is_that_of_a_wildcard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "root/127.0.0.5").mkdir(parents=True)
    (tmp_path / "root/127.0.0.5/x").write_text("x")
    config = tmp_path / "owl.toml"
    config.write_text(
        f'root_dir = "{tmp_path}/root"\nbind_addr = "0.0.0.0:69"\n[[rules]]\nroots = ["{{server_address}}"]\n'
    )
    arguments = ["explain", "--config", str(config), "--client", NOBODY]
    assert main([*arguments, "--listen", "127.0.0.5:69", "x"]) == 0
    assert main([*arguments, "--listen", "127.0.0.6:69", "x"]) == 1
    capsys.readouterr()
    assert main([*arguments, "x"]) == 1
    told = capsys.readouterr().out
    assert "asks port 69, to read" in told
    assert "name it with --listen" in told


def test_no_descriptor_is_left(both: Both) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    both.explain(LATHE, "own")
    before = count()
    for name in ("own", "Own", "pxe/01-52-54-00-00-00-09", "secret/key", "missing"):
        both.explain(LATHE, name)
        both.explain(LATHE, "up/x", is_write=True)
    wait_for(lambda: count() <= before, "descriptors of threads that end by themselves")
