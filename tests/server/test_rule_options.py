"""`options` of a rule: each key changes what goes over the wire, for reads and for uploads, and for nobody else."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.client import Client, Silence
from tests.support.server import ServerThread, wait_for
from tests.support.uploads import serve_uploads

from snow_owl_tftp.config.rules import RuleOptions
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Data, Oack, build_ack, build_data
from snow_owl_tftp.protocol.seq import Rollover, block_of

CONTENT = random.Random(1).randbytes(5_000)
LONG_BLOCKS = 65_540
SICK, SOUND = "127.0.0.2", "127.0.0.3"
ASKED = {
    "blksize": "1428",
    "windowsize": "8",
    "timeout": "3",
    "utimeout": "3000000",
    "rollover": "0",
    "cookie": "as sent",
}
Asked = dict[str, Any]


def uploading(root: Path, options: dict[str, Any]) -> Any:
    return serve_uploads(
        root, allowed_patterns=["**"], on_existing="replace", **{".rules": [{"clients": [SICK], "options": options}]}
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(CONTENT)
    return tmp_path / "root"


def granted(server: ServerThread, kind: Opcode, source: str, asked: Asked) -> dict[str, str]:
    """What the OACK grants, once the transfer has gone through by it."""
    with Client(server.address, source=source) as client:
        if kind == Opcode.RRQ:
            got = client.get("file", options={**asked, "tsize": "0"})
            assert got.payload == CONTENT
        else:
            got = client.put("up", CONTENT, options={**asked, "tsize": str(len(CONTENT))})
        return got.oack


KINDS = pytest.mark.parametrize("kind", [Opcode.RRQ, Opcode.WRQ])


@KINDS
@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"max_blksize_bytes": 600}, {"blksize": "600"}),
        ({"max_windowsize_blocks": 2}, {"windowsize": "2"}),
        ({"refuse": ["blksize"]}, {"blksize": None}),
        ({"refuse": ["tsize"]}, {"tsize": None}),
        ({"refuse": ["timeout"]}, {"timeout": None}),
        ({"refuse": ["utimeout"]}, {"utimeout": None}),
        ({"refuse": ["windowsize"]}, {"windowsize": None}),
        ({"refuse": ["rollover"]}, {"rollover": None}),
        ({"refuse": ["cookie"]}, {"cookie": None}),
        ({"refuse": list(ASKED)}, dict.fromkeys(ASKED)),
        ({"rollover": 1}, {}),  # who asks for one has it
    ],
)
def test_options_of_a_rule_are_negotiated(
    root: Path, kind: Opcode, options: dict[str, Any], changed: dict[str, str | None]
) -> None:
    usual = {**ASKED, "tsize": str(len(CONTENT))}
    with uploading(root, options) as server:
        assert granted(server, kind, SOUND, ASKED) == usual
        expected = {name: value for name, value in {**usual, **changed}.items() if value is not None}
        assert granted(server, kind, SICK, ASKED) == expected
    if kind == Opcode.WRQ:
        assert (root / "up").read_bytes() == CONTENT


@KINDS
@pytest.mark.parametrize(
    ("options", "expected"), [({"max_blksize_bytes": 600}, {"blksize2": "512"}), ({"refuse": ["blksize2"]}, {})]
)
def test_blksize2_is_held_to_the_rule(
    root: Path, kind: Opcode, options: dict[str, Any], expected: dict[str, str]
) -> None:
    asked = {"blksize2": "4096", "timeout": "3"}
    with uploading(root, options) as server:
        for source, of_blksize2 in ((SOUND, {"blksize2": "4096"}), (SICK, expected)):
            with Client(server.address, source=source) as client:
                client.request("file" if kind == Opcode.RRQ else "up", kind=kind, options=asked)
                packet, _ = client.receive_packet()
                assert isinstance(packet, Oack)
                assert dict(packet.options) == {**of_blksize2, "timeout": "3"}


def test_caps_of_a_rule_may_be_larger_than_those_of_all(root: Path) -> None:
    rules = [{"clients": [SICK], "options": {"max_blksize_bytes": 1400, "max_windowsize_blocks": 4}}]
    caps = {".rules": rules, "options.max_blksize_bytes": 600, "options.max_windowsize_blocks": 2}
    with serve_uploads(root, allowed_patterns=["**"], on_existing="replace", **caps) as server:
        for kind in (Opcode.RRQ, Opcode.WRQ):
            sound, sick = (granted(server, kind, source, ASKED) for source in (SOUND, SICK))
            assert (sound["blksize"], sound["windowsize"]) == ("600", "2")
            assert (sick["blksize"], sick["windowsize"]) == ("1400", "4")


def blocks_sent(client: Client) -> list[int]:
    """Numbers around the wrap of a read of many blocks, for which nobody asked to roll over."""
    client.request("long", options={"blksize": 8, "windowsize": 32})
    packet, tid = client.receive_packet()
    assert isinstance(packet, Oack)
    client.send(build_ack(0), tid)
    seen, last = [0], 0
    while True:
        packet, _ = client.receive_packet()
        if not isinstance(packet, Data) or packet.block == seen[-1]:
            continue
        seen.append(packet.block)
        last += 1
        if last % 32 == 0 or len(packet.payload) < 8:
            client.send(build_ack(packet.block), tid)
        if len(packet.payload) < 8:
            return seen[65_534:65_538]


@pytest.mark.parametrize(("rollover", "expected"), [(0, [65_534, 65_535, 0, 1]), (1, [65_534, 65_535, 1, 2])])
def test_rollover_of_a_rule_holds_for_reads(root: Path, rollover: int, expected: list[int]) -> None:
    (root / "long").write_bytes(bytes(8 * LONG_BLOCKS))
    with uploading(root, {"rollover": rollover}) as server, Client(server.address, source=SICK) as client:
        assert blocks_sent(client) == expected


@pytest.mark.parametrize("rollover", list(Rollover))
def test_rollover_of_a_rule_holds_for_uploads(root: Path, rollover: Rollover) -> None:
    with uploading(root, {"rollover": int(rollover)}) as server, Client(server.address, source=SICK) as client:
        client.request("up", kind=Opcode.WRQ, options={"blksize": 8, "windowsize": 32})
        packet, tid = client.receive_packet()
        assert isinstance(packet, Oack)
        done = 0
        while done < LONG_BLOCKS:
            end = min(done + 32, LONG_BLOCKS)
            for index in range(done + 1, end + 1):
                payload = b"" if index == LONG_BLOCKS else b"%07d\n" % index
                client.send(build_data(block_of(index, rollover), payload), tid)
            packet, _ = client.receive_packet()
            while packet != Ack(block_of(end, rollover)):
                packet, _ = client.receive_packet()
            done = end
        wait_for(lambda: (root / "up").exists(), "the upload")
    assert (root / "up").read_bytes() == b"".join(b"%07d\n" % index for index in range(1, LONG_BLOCKS))


@KINDS
def test_patience_of_a_rule_is_the_timer_of_who_asks_for_none(root: Path, kind: Opcode) -> None:
    with uploading(root, {"patience_ms": 100}) as server:

        def repetitions(source: str, **options: Any) -> int:
            """Of the first answer, before 0.6 s of silence."""
            with Client(server.address, source=source) as client:
                client.request("file" if kind == Opcode.RRQ else "up", kind=kind, options=options)
                client.receive(2)
                count = 0
                try:
                    while True:
                        client.receive(0.6)
                        count += 1
                except Silence:
                    return count

        assert repetitions(SICK) >= 1
        assert repetitions(SICK, timeout=5) == 0
        assert repetitions(SOUND) == 0


def test_no_key_of_options_is_without_a_test() -> None:
    keys = {"max_blksize_bytes", "max_windowsize_blocks", "refuse", "rollover", "patience_ms"}
    assert {field.name for field in msgspec.structs.fields(RuleOptions)} == keys
