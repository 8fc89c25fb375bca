"""Templates over the wire: who gets which text, how, and what a failure or a flood costs."""

import random
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SEED
from tests.support.client import Client, Refused
from tests.support.descriptors import open_descriptors
from tests.support.server import ServerThread, serve_in_thread, wait_for

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import build_request, parse_request_untrusted
from snow_owl_tftp.server import narrate
from snow_owl_tftp.server import templates as templates_module
from snow_owl_tftp.server.facts import Wanted
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider

NAME = "pxelinux.cfg/01-52-54-00-00-00-07"
RACK = {"127.0.0.1": "node1", "127.0.0.2": "node2"}


class Rack:
    """Machines by address."""

    def find(self, asker: Asker, paths: tuple[bytes, ...] = ()) -> Machine | None:
        name = RACK.get(asker.peer[0])
        return None if name is None else Machine(name=name, address=asker.peer[0], vars={"release": "13"})


@contextmanager
def serve(
    tmp_path: Path, sources: Mapping[str, str], entries: list[dict[str, str]] | None = None, **overrides: object
) -> Iterator[ServerThread]:
    """A root with a file of every name, templates beside it, and machines of a rack."""
    root, folder = tmp_path / "root", tmp_path / "templates"
    (root / "pxelinux.cfg").mkdir(parents=True)
    (root / "pxelinux.cfg/default").write_bytes(b"of the file")
    (root / NAME).write_bytes(b"never sent")
    folder.mkdir()
    for name, source in sources.items():
        (folder / name).write_text(source, encoding="utf-8")
    entries = entries or [{"match": "pxelinux.cfg/01-{mac_dashes}", "template": "pxe.j2"}]
    asked = {"root_dir": str(root), "bind_addr": "127.0.0.1:0", "template_dir": str(folder), "templates": entries}
    settings = override(Settings(), asked | overrides, source="test")
    decider = FileDecider(settings, generation=Generation.of(settings, machines=Rack()))
    try:
        with serve_in_thread(root, asked | overrides, decider=decider) as server:
            yield server
    finally:
        decider.close()


def get(server: ServerThread, name: str = NAME, **more: Any) -> bytes:
    with Client(server.address, source=more.pop("source", "")) as client:
        return client.get(name, **more).payload


# ---- who gets which text


def test_one_template_serves_a_rack(tmp_path: Path) -> None:
    source = "{{ machine.name or 'unknown' }} {{ mac_dashes }} {{ machine.vars.get('release') or '-' }}\n"
    with serve(tmp_path, {"pxe.j2": source}) as server:
        for _ in range(3):  # by a thread at first, by the event loop from then on
            assert get(server) == b"node1 52-54-00-00-00-07 13\n"
            assert get(server, source="127.0.0.2") == b"node2 52-54-00-00-00-07 13\n"
            assert get(server, source="127.0.0.3") == b"unknown 52-54-00-00-00-07 -\n"
        # Whoever asks after somebody else is never sent that one's text by the engine.
        assert server.counters()["flow_hits"] == 0


def test_template_is_told_the_request(tmp_path: Path) -> None:
    source = (
        "{{ request.name }}|{{ request.mode }}|{{ request.options.blksize }}|{{ request.client }}|"
        "{{ request.client_port > 0 }}|{{ request.server }}|{{ machine.address }}|{{ machine.known_by }}"
    )
    with serve(tmp_path, {"pxe.j2": source}) as server, Client(server.address) as client:
        got = client.get("/" + NAME.replace("/", "\\"), options={"BLKSIZE": 512})
        assert got.payload.decode() == f"{NAME}|octet|512|127.0.0.1|True|127.0.0.1|127.0.0.1|address"


def test_name_that_no_pattern_matches_is_a_file(tmp_path: Path) -> None:
    with serve(tmp_path, {"pxe.j2": "made"}) as server:
        assert get(server, "pxelinux.cfg/default") == b"of the file"
        assert get(server) == b"made"
        with pytest.raises(Refused, match="ERROR 1"):
            get(server, "pxelinux.cfg/absent")


def test_first_entry_that_matches_is_meant(tmp_path: Path) -> None:
    entries = [
        {"match": "a/{x}.cfg", "template": "one.j2"},
        {"match": "a/{y}", "template": "two.j2"},
        {"match": "b/{x}", "template": "one.j2"},
    ]
    with serve(tmp_path, {"one.j2": "one {{ x }}", "two.j2": "two {{ y }}"}, entries) as server:
        assert [get(server, name) for name in ("a/1.cfg", "a/1", "b/1")] == [b"one 1", b"two 1", b"one 1"]


def test_name_is_meant_without_what_firmware_hangs_behind_it(tmp_path: Path) -> None:
    with serve(tmp_path, {"pxe.j2": "{{ mac_dashes }} {{ request.name }}"}) as server:
        assert get(server, f"{NAME}\udcffrest") == f"52-54-00-00-00-07 {NAME}".encode()


def test_hidden_name_is_not_made(tmp_path: Path) -> None:
    with serve(tmp_path, {"pxe.j2": "made"}, [{"match": "**", "template": "pxe.j2"}]) as server:
        assert get(server, "x") == b"made"
        with pytest.raises(Refused, match="ERROR 1"):
            get(server, ".x")


# ---- modes and options


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 1024, 70_000])
def test_size_is_exact_and_options_are_kept(tmp_path: Path, length: int) -> None:
    with serve(tmp_path, {"pxe.j2": "x" * length}) as server, Client(server.address) as client:
        for _ in range(2):
            got = client.get(NAME, options={"tsize": 0, "blksize": 600, "windowsize": 4})
            assert got.payload == b"x" * length
            assert got.oack["blksize"] == "600"
            assert got.oack.get("tsize", "0") == str(length)  # left out where it is 0


def test_netascii_is_converted_and_its_size_told(tmp_path: Path) -> None:
    with serve(tmp_path, {"pxe.j2": "one\ntwo\n{{ mac_dashes }}"}) as server, Client(server.address) as client:
        expected = b"one\r\ntwo\r\n52-54-00-00-00-07"
        for _ in range(2):
            got = client.get(NAME, mode="netascii", options={"tsize": 0})
            assert got.payload == expected
            assert got.oack["tsize"] == str(len(expected))


def test_caps_hold_for_made_texts(tmp_path: Path) -> None:
    overrides: dict[str, object] = {"options.max_blksize_bytes": 100}
    with serve(tmp_path, {"pxe.j2": "x" * 150}, **overrides) as server, Client(server.address) as client:
        assert client.get(NAME, options={"blksize": 1428}).oack["blksize"] == "100"


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    with serve(tmp_path, {"pxe.j2": "made"}, **{"performance.platform.file_io.source_linger_s": 0}) as server:
        get(server)
        wait_for(lambda: server.counters()["files_open"] == 0, "the first one closed")
        before = open_descriptors()
        for _ in range(20):
            get(server)
        wait_for(lambda: open_descriptors() <= before, "as many descriptors as before")


# ---- failures


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("\n{{ machine.vars.nope }}", "pxe.j2:2: machine.vars.nope is not known for this client"),
        ("\n\n{{ machine.mac }}", "pxe.j2:3: prints what is none for this client"),
        ("{% for i in range(90000) %}x{% endfor %}", "pxe.j2:1: engine ran out of fuel"),
        ("{% include 'pxe.j2' %}", "pxe.j2:1: "),
        ("x" * ((1 << 20) - 20) + "{{ request.name }}", "pxe.j2: makes more than 1 MiB"),
    ],
)
def test_failure_is_error_0_and_a_line_that_says_where(tmp_path: Path, source: str, where: str) -> None:
    with serve(tmp_path, {"pxe.j2": source}) as server:
        for _ in range(2):
            with pytest.raises(Refused) as caught:
                get(server)
            assert (caught.value.code, caught.value.text) == (0, "The file could not be made")
        assert re.search(f'why="[^"]*/{re.escape(where)}', server.log)
        assert "internal error" not in server.log
        assert get(server, "pxelinux.cfg/default") == b"of the file"


def test_failures_have_a_budget_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrate, "_LINES_PER_S", 2)  # and twenty a minute, however slow this machine is
    with serve(tmp_path, {"pxe.j2": "{{ machine.mac }}"}) as server:
        for _ in range(50):
            with pytest.raises(Refused):
                get(server)
    told = server.log.count("request refused")
    assert 2 <= told <= 20
    left_out = re.findall(r'not logged one by one.*what="refused requests" count=(\d+)', server.log)
    assert told + sum(map(int, left_out)) == 50


# ---- names that attack


TRICKS = (
    "../pxe/x",
    "pxe/../../secret",
    "pxe/..",
    "pxe/../x",
    "//pxe//..//x",
    "pxe/%2e%2e",
    "pxe/\uff0e\uff0e",
    "pxe/..\\..\\secret",
    "pxe//etc/passwd",
    "pxe/{{ request }}",
    "pxe/{% include '/etc/passwd' %}",
    "pxe/" + "a" * 480,
    "pxe/\udcff\udcfe",
    "pxe/x\x01\x7f",
    "pxe/proc/self/environ",
)


@pytest.mark.parametrize("name", TRICKS)
def test_no_name_leads_out_by_a_template(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"root: secret")
    (tmp_path / "secret.j2").write_bytes(b"root: secret")
    source = "made {{ request.name }}{% include [name, name ~ '.j2', '../' ~ name, '/' ~ name] ignore missing %}"
    with serve(tmp_path, {"pxe.j2": source}, [{"match": "pxe/{name}", "template": "pxe.j2"}]) as server:
        with Client(server.address) as client:
            client.request(name)
            datagram, _ = client.receive()
        assert b"root:" not in datagram
        assert datagram.startswith((b"\0\3\0\1made pxe/", b"\0\5"))


def test_made_names_bring_nothing_from_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"root: secret")
    rng = random.Random(SEED)
    pieces = ["..", "/", "\\", "pxe/", "a", ".", "secret", "\udcff", "%2f", "etc/passwd", " ", "{", "}}"]
    source = "made{% include name ignore missing %}"
    with serve(tmp_path, {"pxe.j2": source}, [{"match": "pxe/{name}", "template": "pxe.j2"}]) as server:
        made = 0
        for _ in range(200):
            name = "pxe/" + "".join(rng.choices(pieces, k=rng.randint(1, 6)))
            try:
                assert get(server, name) == b"made"
                made += 1
            except Refused:
                pass
        assert made > 10


# ---- slow ones, and many


SLOW = "{% for i in range(16000) %}{{ i }} {% endfor %}"


def test_slow_template_is_left_to_a_thread_and_a_quick_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by: dict[str, list[str]] = {"slow.j2": [], "quick.j2": []}
    original = templates_module.Templates.make

    def make(self: Any, entry: Any, *arguments: Any) -> bytes:
        by[entry.template.name].append(threading.current_thread().name)
        return original(self, entry, *arguments)

    monkeypatch.setattr(templates_module.Templates, "make", make)
    entries = [{"match": "slow", "template": "slow.j2"}, {"match": "quick", "template": "quick.j2"}]
    with serve(tmp_path, {"slow.j2": SLOW, "quick.j2": "quick"}, entries) as server:
        for name in ("slow", "quick") * 3:
            assert len(get(server, name)) > 4
    assert all(name.startswith("tftp-template") for name in by["slow.j2"])
    assert by["quick.j2"][0].startswith("tftp-template")  # nobody knew
    assert "server-loop" in by["quick.j2"]


def test_flood_for_a_slow_template_is_bounded_and_leaves_others_their_turn(tmp_path: Path) -> None:
    entries = [{"match": "slow", "template": "slow.j2"}, {"match": "quick", "template": "quick.j2"}]
    with serve(tmp_path, {"slow.j2": SLOW, "quick.j2": "quick"}, entries) as server:
        assert [get(server, "quick") for _ in range(2)] == [b"quick"] * 2
        with Client(server.address) as flood:
            for number in range(600):
                flood.request("slow", options={"timeout": number % 250 + 1})
            for _ in range(20):
                assert get(server, "quick", source="127.0.0.2") == b"quick"
                assert get(server, "pxelinux.cfg/default", source="127.0.0.3") == b"of the file"


def test_hung_rendering_is_given_up_and_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snow_owl_tftp.server.slow_opens.OPEN_PATIENCE_S", 0.3)
    goes_on = threading.Event()
    original = templates_module.Templates.make

    def make(self: Any, entry: Any, *arguments: Any) -> bytes:
        if entry.template.name == "slow.j2":
            goes_on.wait(20)
        return original(self, entry, *arguments)

    monkeypatch.setattr(templates_module.Templates, "make", make)
    entries = [{"match": "slow", "template": "slow.j2"}, {"match": "quick", "template": "quick.j2"}]
    with serve(tmp_path, {"slow.j2": "slow", "quick.j2": "quick"}, entries) as server:
        try:
            with pytest.raises(Refused, match="ERROR 0: Server busy, try again"):
                get(server, "slow")
            assert [get(server, "quick") for _ in range(3)] == [b"quick"] * 3
        finally:
            goes_on.set()
        wait_for(lambda: get(server, "slow") == b"slow", "it again")


class Blocking(dict[str, str]):
    """Inventory variables that a rendering waits for, within minijinja and under its lock."""

    def __init__(self) -> None:
        super().__init__(release="slow")
        self.goes_on = threading.Event()
        self.is_asked = threading.Event()

    def __getitem__(self, key: str) -> str:
        self.is_asked.set()
        self.goes_on.wait(20)
        return super().__getitem__(key)


def test_loop_waits_for_no_rendering_of_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocking, original = Blocking(), Rack.find

    def find(self: Rack, asker: Asker, paths: tuple[bytes, ...] = ()) -> Machine | None:
        if asker.peer[0] == "127.0.0.9":
            return Machine(name="slow", vars=blocking)
        return original(self, asker, paths)

    monkeypatch.setattr(Rack, "find", find)
    with serve(tmp_path, {"pxe.j2": "{{ machine.vars.release }}"}) as server:
        decider: Any = server.server._decider
        with Client(server.address, source="127.0.0.9") as client:
            try:
                client.request(NAME)
                assert blocking.is_asked.wait(20)
                # As if one that began before it had ended, and had been quick.
                decider._generation.templates._entries[0].took_ns = 0
                assert get(server) == b"13"
                assert not blocking.goes_on.is_set()
            finally:
                blocking.goes_on.set()
            assert client.receive()[0] == b"\0\3\0\1slow"


# ---- settings


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"match": "{x}{x}", "template": "pxe.j2"}, r"templates\[1\]\.match: .*stands there twice"),
        ({"match": "x", "template": "absent.j2"}, r"templates: .*/absent\.j2: no such file"),
        ({"match": "x", "template": "../pxe.j2"}, r"templates\[1\]\.template: .*leads out of template_dir"),
        ({"match": "x", "template": "/etc/passwd"}, r"templates\[1\]\.template: .*leads out of template_dir"),
        ({"match": "x", "template": ""}, r"templates\[1\]\.template: expected the name of a file"),
        ({"match": "x", "template": "bad.j2"}, r"templates: .*/bad\.j2:2: "),
        ({"match": "x"}, r"templates\[1\]\.template: missing"),
        ({"match": "x", "template": "pxe.j2", "fuel": "1"}, r"templates\[1\]\.fuel: unknown key"),
    ],
)
def test_bad_entry_is_refused_by_number_and_key(tmp_path: Path, entry: dict[str, str], problem: str) -> None:
    sources = {"pxe.j2": "", "bad.j2": "\n{% if %}"}
    with pytest.raises(ConfigError, match=problem), serve(tmp_path, sources, [entry]):
        pass


def test_made_text_can_be_shown_without_a_transfer(tmp_path: Path) -> None:
    (tmp_path / "pxe.j2").write_text("{{ machine.name }} {{ mac_dashes }}")
    entries = [{"match": "pxelinux.cfg/01-{mac_dashes}", "template": "pxe.j2"}]
    settings = override(Settings(), {"template_dir": str(tmp_path), "templates": entries}, source="test")
    templates = templates_module.Templates.of(settings)
    assert templates is not None
    wanted = wanted_by("127.0.0.1", NAME, Machine(name="node1"))
    made = templates.render(wanted)
    assert made is not None
    assert (made.template, dict(made.variables), made.data) == (
        "pxe.j2",
        {"mac_dashes": NAME[16:]},
        b"node1 52-54-00-00-00-07",
    )
    assert templates.render(wanted._replace(path=b"other")) is None


def wanted_by(client: str, name: str, machine: Machine | None) -> Wanted:
    datagram = build_request(Opcode.RRQ, name, "octet", [])
    return Wanted(
        Asked(datagram, (client, 2000)), parse_request_untrusted(datagram), name.encode(), machine, OptionLimits()
    )


@dataclass
class Asked:
    datagram: bytes
    peer: tuple[str, int]
    transfer_id: int = 1
    local_address: str | None = None
