"""RRQ, from the request to the last ACK, over real sockets: what every client may count on."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.boot import BOOT, SECRET
from tests.support.client import Client, Refused, drop_nth, lose_randomly
from tests.support.server import ServerThread, serve_in_thread, wait_for

from snow_owl_tftp.content.translate import NetasciiCache
from snow_owl_tftp.linux import file_systems
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import (
    Data,
    Error,
    Oack,
    build_ack,
    build_error,
    build_request,
    parse_untrusted,
)
from snow_owl_tftp.server import texts

BLKSIZE = 512


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerThread, Path]]:
    root = tmp_path_factory.mktemp("sized") / "root"
    root.mkdir()
    with serve_in_thread(root) as server:
        yield server, root


@pytest.mark.parametrize("windowsize", [1, 4, 16])
@pytest.mark.parametrize(
    "size",
    [0, 1, BLKSIZE - 1, BLKSIZE, BLKSIZE + 1, 4 * BLKSIZE - 1, 4 * BLKSIZE, 4 * BLKSIZE + 1, 16 * BLKSIZE, 40_000],
)
def test_every_size_arrives_whole(sized: tuple[ServerThread, Path], size: int, windowsize: int) -> None:
    server, root = sized
    payload = random.Random(size).randbytes(size)
    (root / f"{size}").write_bytes(payload)
    options = {} if windowsize == 1 else {"windowsize": windowsize}
    with Client(server.address) as client:
        got = client.get(f"{size}", options=options)
    assert got.payload == payload
    assert got.count_heard(Opcode.DATA) == size // BLKSIZE + 1


def test_block_numbers_roll_over_past_65535(sized: tuple[ServerThread, Path]) -> None:
    server, root = sized
    payload = random.Random(8).randbytes(8 * 65_540 + 3)
    (root / "rollover").write_bytes(payload)
    with Client(server.address) as client:
        assert client.get("rollover", options={"blksize": 8, "windowsize": 64}).payload == payload


def test_request_without_options_is_answered_with_data_1(client: Client) -> None:
    got = client.get("boot.img")
    assert got.payload == BOOT
    assert got.heard[0][:4] == b"\0\3\0\1"
    assert got.oack == {}


def test_all_options_together_are_granted(client: Client) -> None:
    got = client.get("boot.img", options={"tsize": 0, "blksize": 1428, "timeout": 3, "windowsize": 8})
    assert got.payload == BOOT
    assert got.oack == {"tsize": str(len(BOOT)), "blksize": "1428", "timeout": "3", "windowsize": "8"}


def test_oack_repeats_the_options_in_the_order_asked(client: Client) -> None:
    client.request("boot.img", options={"windowsize": 2, "tsize": 0, "blksize": 1024})
    packet, peer = client.receive_packet()
    assert isinstance(packet, Oack)
    assert [name for name, _ in packet.options] == ["windowsize", "tsize", "blksize"]
    client.send(build_error(0), peer)


def test_transfer_leaves_from_another_port_than_the_request_port(served: ServerThread, client: Client) -> None:
    assert client.get("small").peer[1] != served.address[1]


def test_same_source_port_gets_another_tid_for_its_next_file(client: Client) -> None:
    tids = [client.get("small").peer[1] for _ in range(4)]
    assert all(first != second for first, second in itertools.pairwise(tids)), tids


@pytest.mark.parametrize("options", [{}, {"blksize": 1024}])
def test_repeated_rrq_gets_the_same_first_answer_from_the_same_tid(
    quick: ServerThread, options: dict[str, int]
) -> None:
    with Client(quick.address) as client:
        for _ in range(3):
            client.request("boot.img", options=options)
        first, *others = [client.receive() for _ in range(3)]
        assert all(other == first for other in others)
        client.send(build_error(0), first[1])


def test_repeated_rrq_does_not_disturb_the_transfer(client: Client) -> None:
    request = build_request(Opcode.RRQ, "boot.img")
    got = client.get("boot.img", on_block=lambda index: client.send(request) if index == 5 else None)
    assert got.payload == BOOT


def test_loss_in_both_directions_is_repaired(quick: ServerThread, rng: random.Random) -> None:
    with Client(quick.address, timeout_s=0.2, say=lose_randomly(rng, 0.05), hear=lose_randomly(rng, 0.05)) as client:
        for options in ({}, {"blksize": 1428}, {"blksize": 1428, "windowsize": 16}):
            assert client.get("boot.img", options=options).payload == BOOT


def test_last_data_is_repeated_until_acknowledged(quick: ServerThread) -> None:
    # Said: RRQ, ACK 1. The first ACK is lost, and the client is too patient to help.
    with Client(quick.address, timeout_s=9, say=drop_nth(2)) as client:
        client.request("small")
        first, peer = client.receive()
        client.send(build_ack(1), peer)
        assert client.receive() == (first, peer)
        client.send(build_ack(1), peer)


def test_netascii_converts_and_tells_the_exact_size(client: Client) -> None:
    expected = b"one\r\ntwo\r\0three\r\0\r\n"
    got = client.get("unix.txt", "netascii", {"tsize": 0})
    assert got.payload == expected
    assert got.oack == {"tsize": str(len(expected))}


def test_mode_is_read_in_any_case(client: Client) -> None:
    answer, _ = client.exchange(b"\0\1small\0OcTeT\0")
    assert answer == Data(1, b"ten bytes.")


def test_empty_file_is_one_empty_block(client: Client) -> None:
    # Its size is not told: curl refuses a tsize of 0.
    got = client.get("empty", options={"tsize": 0})
    assert (got.payload, got.oack, got.count_heard(Opcode.DATA)) == (b"", {}, 1)


@pytest.mark.parametrize("name", ["sub/nested", "/sub/nested", "\\sub\\nested", "//sub/./nested", "link_in"])
def test_name_is_found_however_the_client_spells_it(client: Client, name: str) -> None:
    assert client.get(name).payload == b"nested"


@pytest.mark.parametrize("name", ["no", "no/such/file", "small/below", "x" * 400])
def test_missing_file_is_error_1(client: Client, name: str) -> None:
    with pytest.raises(Refused) as refused:
        client.get(name)
    assert refused.value.code == 1


@pytest.mark.parametrize(
    "name", ["sub", ".", "/", "fifo", "link_out", "link_absolute", "../secret", "sub/../../secret"]
)
def test_what_may_not_be_read_is_error_2(client: Client, name: str) -> None:
    with pytest.raises(Refused) as refused:
        client.get(name)
    assert refused.value.code == 2
    assert SECRET.decode() not in refused.value.text


def test_file_above_the_size_limit_is_error_2(root: Path) -> None:
    with (
        serve_in_thread(root, {"max_file_size_bytes": len(BOOT) - 1}) as server,
        Client(server.address) as client,
        pytest.raises(Refused, match="too large") as refused,
    ):
        client.get("boot.img")
    assert refused.value.code == 2


def test_upload_is_error_2_while_writing_is_off(client: Client, root: Path) -> None:
    with pytest.raises(Refused) as refused:
        client.put("new", b"payload")
    assert refused.value.code == 2
    assert not (root / "new").exists()


@pytest.mark.parametrize(
    "datagram",
    [
        b"\0\1small\0mail\0",
        b"\0\1small\0binary\0",
        b"\0\1small\0octet",
        b"\0\1small\0",
        b"\0\1small",
        b"\0\1\0octet\0",
        b"\0\7small\0octet\0",
        b"\1\1small\0octet\0",
        b"\0\1" + b"x" * 700 + b"\0octet\0",
    ],
)
def test_malformed_request_is_error_4_and_no_longer_than_the_request(client: Client, datagram: bytes) -> None:
    client.send(datagram)
    answer, _ = client.receive()
    packet = parse_untrusted(answer)
    assert isinstance(packet, Error)
    assert packet.code == 4
    assert len(answer) <= len(datagram)


@pytest.mark.parametrize(
    "datagram", [b"", b"\0", b"\0\3\0\1data", b"\0\4\0\1", b"\0\5\0\0no\0", b"\0\6blksize\x00512\0"]
)
def test_what_is_no_request_is_met_with_silence(client: Client, datagram: bytes) -> None:
    client.send(datagram)
    # One worker answers in the order of arrival: what comes first shows that nothing came before.
    answer, _ = client.exchange(build_request(Opcode.RRQ, "no such file"))
    assert isinstance(answer, Error)
    assert answer.code == 1


def test_size_probe_is_no_failure(served: ServerThread, client: Client) -> None:
    for code in (0, 8):
        assert client.probe_size("boot.img", code) == len(BOOT)
        assert client.get("boot.img", options={"tsize": 0}).payload == BOOT
    mine = f"peer=127.0.0.1:{client.port} "
    lines = wait_for(
        lambda: (
            len(lines := [line for line in served.log.splitlines() if mine in line and "started" not in line]) == 4
            and lines
        ),
        "four ends of transfers in the log",
    )
    assert ["size probe" in line for line in lines] == [True, False, True, False]
    assert not any("failed" in line for line in lines)


def test_error_of_the_client_in_the_middle_is_a_failure(served: ServerThread, client: Client) -> None:
    client.request("boot.img")
    packet, peer = client.receive_packet()
    assert isinstance(packet, Data)
    client.send(build_error(3, "my disk is full"), peer)
    line = wait_for(
        lambda: [line for line in served.log.splitlines() if "my disk is full" in line], "the failure in the log"
    )[0]
    assert "transfer failed" in line
    assert "outcome=PEER_ERROR" in line


def test_replaced_file_is_served_anew_and_the_old_one_to_its_end(
    sized: tuple[ServerThread, Path], tmp_path: Path
) -> None:
    server, root = sized
    old, new = b"o" * 60_000, b"n" * 70_000
    (root / "replaced").write_bytes(old)

    def replace(index: int) -> None:
        if index == 10:
            (tmp_path / "new").write_bytes(new)
            (tmp_path / "new").replace(root / "replaced")

    with Client(server.address) as client:
        assert client.get("replaced").payload == old
        assert client.get("replaced", on_block=replace).payload == old
        assert client.get("replaced").payload == new


def test_client_limits_of_the_server_are_announced(root: Path) -> None:
    limits = {
        "options.max_blksize_bytes": 1200,
        "options.max_windowsize_blocks": 8,
        "options.max_window_bytes": 6000,
    }
    with serve_in_thread(root, limits) as server, Client(server.address) as client:
        got = client.get("boot.img", options={"blksize": 1428, "windowsize": 64})
        assert (got.payload, got.oack) == (BOOT, {"blksize": "1200", "windowsize": "5"})
        got = client.get("boot.img", options={"blksize": 512, "windowsize": 64})
        assert (got.payload, got.oack) == (BOOT, {"blksize": "512", "windowsize": "8"})


def test_flows_answer_what_was_decided_before(root: Path) -> None:
    with serve_in_thread(root) as server:
        for _ in range(5):
            with Client(server.address) as client:
                assert client.get("small", options={"tsize": 0}).payload == b"ten bytes."
        assert server.counters()["flow_hits"] == 4


def test_a_root_on_a_file_server_gets_no_flows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To see that the path leads to the same file could make a worker wait for another machine."""
    monkeypatch.setattr(file_systems, "_file_system_type", lambda _: 0x6969)  # NFS
    with serve_in_thread(root) as server, Client(server.address) as client:
        for _ in range(3):
            assert client.get("small").payload == b"ten bytes."
        assert server.counters()["flow_hits"] == 0


def test_flows_can_be_switched_off(root: Path) -> None:
    with serve_in_thread(root, {"performance.platform.batch.enable_flows": False}) as server:
        for _ in range(3):
            with Client(server.address) as client:
                assert client.get("small").payload == b"ten bytes."
        assert server.counters()["flow_hits"] == 0


def test_batching_can_be_switched_off(root: Path) -> None:
    off = {f"performance.platform.batch.{key}": False for key in ("enable_recvmmsg", "enable_sendmmsg", "enable_gso")}
    with serve_in_thread(root, off) as server, Client(server.address) as client:
        assert client.get("boot.img", options={"windowsize": 16}).payload == BOOT
        counters = server.counters()
    assert counters["recvmmsg_calls"] == counters["sendmmsg_calls"] == counters["gso_trains"] == 0
    assert counters["recvfrom_calls"] > 0
    assert counters["sendto_calls"] > 0


@pytest.mark.parametrize("level", ["debug", "error"])
def test_memory_of_netascii_copies_is_given_back_by_transfers_that_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Also where nobody hears of successes."""
    monkeypatch.setattr(texts, "NetasciiCache", lambda **_: NetasciiCache(max_kept_bytes=0, max_total_bytes=2500))
    for name in "abcdef":
        (tmp_path / name).write_bytes(name.encode() * 1000)
    with serve_in_thread(tmp_path, {"logging.level": level}) as server:
        with Client(server.address) as first, Client(server.address) as second, Client(server.address) as third:
            for client, name in ((first, "a"), (second, "b")):
                client.request(name, "netascii", {"blksize": 1400})
                client.receive()
            with pytest.raises(Refused, match="busy"):
                third.get("c", "netascii")
            for client in (first, second):
                client.send(build_error(0, "enough"), client.last_sender)

        def is_served(name: str) -> bool:
            with Client(server.address) as client:
                try:
                    return client.get(name, "netascii").payload == name.encode() * 1000
                except Refused:
                    return False

        for name in "cdef":
            wait_for(lambda name=name: is_served(name), "room for one more")  # type: ignore[misc]
