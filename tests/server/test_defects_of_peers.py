"""What other servers get wrong about reads, one test each: a packet or two, and what happened there.

May know: nothing of the server but what its peers see, its log and its counters. Each test names
the defect, and says what must happen instead.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.boot import BOOT, SECRET, make_root
from tests.support.client import Client, Refused, drop_nth
from tests.support.server import ServerProcess, ServerThread, serve_command, serve_in_thread, wait_for

from snow_owl_tftp.protocol.packets import (
    Data,
    Error,
    Oack,
    build_ack,
    build_data,
    build_error,
    build_oack,
)

UDP_SEGMENT = 103  # linux/udp.h: one send becomes datagrams of so many bytes, which arrive together
# Firmware that is patient: whatever is lost, the server has to repair it.
PATIENT_S = 9.0


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The real command: these tests are about what ends, or fattens, a whole process."""
    with serve_command(make_root(tmp_path_factory.mktemp("process")), "--log-level", "warning") as server:
        yield server


def raw_request(filename: str, *fields: str) -> bytes:
    return b"\0\1" + "\0".join((filename, "octet", *fields, "")).encode()


def anonymous_bytes(pid: int) -> int:
    """Memory of its own; mapped files belong to the page cache (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


# ---- whole server exits: `blksize=abc`; RRQ for a directory; 1,020 open sessions


@pytest.mark.parametrize("datagram", [raw_request("small", "blksize", "abc"), raw_request("sub")])
def test_one_bad_request_does_not_end_the_server(process: ServerProcess, datagram: bytes) -> None:
    with Client(process.address) as client:
        _, peer = client.exchange(datagram)
        client.send(build_error(0), peer)
    with Client(process.address) as client:
        assert client.get("small").payload == b"ten bytes."
    assert process.process.poll() is None


def test_1020_open_transfers_do_not_end_the_server(tmp_path: Path) -> None:
    # From one address: hence the limit per client is raised.
    limits = {"limits.max_half_open_per_client": 5000, "limits.max_transfers_per_client": 5000}
    with serve_in_thread(make_root(tmp_path), limits) as server:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(1020)]
        try:
            for sock in sockets:
                sock.sendto(raw_request("boot.img"), server.address)
            wait_for(lambda: server.counters()["live_transfers"] >= 1000, "a thousand open transfers")
            with Client(server.address) as client:
                assert client.get("boot.img").payload == BOOT
        finally:
            for sock in sockets:
                sock.close()


# ---- `sub/../../x` reads outside the root; a symlink out of the root is followed


@pytest.mark.parametrize(
    "name", ["sub/../../secret", "../secret", "/../secret", "..\\secret", "link_out", "link_absolute"]
)
def test_nothing_outside_the_root_is_read(client: Client, name: str) -> None:
    with pytest.raises(Refused) as refused:
        client.get(name)
    assert refused.value.code == 2
    assert SECRET.decode() not in refused.value.text


# ---- 50 silent requests: nobody is served for half a minute


def test_silent_requests_do_not_hold_up_the_others(served: ServerThread) -> None:
    silent = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
    try:
        for sock in silent:
            sock.sendto(raw_request("boot.img"), served.address)
        with Client(served.address, give_up_s=1) as client:
            assert client.get("boot.img").payload == BOOT
    finally:
        for sock in silent:
            sock.close()


# ---- windowsize 65535 on a 40 MB file, three times: 240–324 MB of memory


def test_huge_window_takes_no_memory(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    with (root / "large").open("wb") as file:
        file.truncate(40_000_000)
    with serve_command(root, "--log-level", "warning") as server:
        before = anonymous_bytes(server.process.pid)
        clients = [Client(server.address) for _ in range(3)]
        for client in clients:
            client.request("large", options={"blksize": 1428, "windowsize": 65535})
            packet, peer = client.receive_packet()
            assert isinstance(packet, Oack)
            client.send(build_ack(0), peer)
            client.receive()
        assert anonymous_bytes(server.process.pid) - before < 16 << 20
        for client in clients:
            client.send(build_error(0), client.last_sender)
            client.close()


# ---- first DATA lost, no options: 3-byte runts are resent


def test_lost_first_data_is_repeated_whole(quick: ServerThread) -> None:
    with Client(quick.address, timeout_s=PATIENT_S, hear=drop_nth(1)) as client:
        client.request("boot.img")
        packet, peer = client.receive_packet()
        assert packet == Data(1, BOOT[:512])
        client.send(build_error(0), peer)


# ---- duplicate ACK in a window: the whole window again for each


def test_duplicate_acks_do_not_multiply_the_window(served: ServerThread) -> None:
    """They arrive together: what is answered once is one round trip, and on loopback two sends take as long as that."""
    with Client(served.address) as client:
        client.request("boot.img", options={"windowsize": 16})
        _, peer = client.receive()
        client.send(build_ack(0), peer)
        assert [client.receive()[0][:4] for _ in range(16)] == [build_data(k, b"") for k in range(1, 17)]
        client.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 4)
        client.socket.sendto(build_ack(8) * 50, peer)
        # ACK 8 moves the window on to block 24, and is answered with it once, not fifty times.
        client.send(build_ack(16), peer)
        heard = []
        while not heard or heard[-1] != 32:
            datagram, _ = client.receive()
            heard.append(int.from_bytes(datagram[2:4], "big"))
        assert len(heard) < 3 * 16, heard
        client.send(build_error(0), peer)


# ---- OACK lost: transfer lost


def test_lost_oack_is_repeated(quick: ServerThread) -> None:
    with Client(quick.address, timeout_s=PATIENT_S, hear=drop_nth(1)) as client:
        assert client.get("boot.img", options={"blksize": 1428}).payload == BOOT


# ---- six timeouts over one long transfer: given up although it progressed


def test_timeouts_spread_over_a_transfer_do_not_add_up(quick: ServerThread) -> None:
    with Client(quick.address, timeout_s=PATIENT_S, hear=drop_nth(*range(5, 120, 10))) as client:
        assert client.get("boot.img").payload == BOOT


# ---- a stranger's datagram ends the victim's transfer


@pytest.mark.parametrize(
    ("datagram", "is_answered"),
    [
        (build_ack(7), True),
        (build_data(1, b"x"), True),
        (build_error(0, "die"), False),
        (b"", False),
        (b"\xff\xff\xff\xff", False),
    ],
)
def test_stranger_cannot_disturb_a_transfer(served: ServerThread, datagram: bytes, is_answered: bool) -> None:
    with Client(served.address) as victim, Client(served.address) as stranger:
        victim.request("boot.img")
        first, peer = victim.receive()
        assert first == build_data(1, BOOT[:512])
        stranger.send(datagram, peer)
        for index in range(1, 10):
            victim.send(build_ack(index), peer)
            assert victim.receive() == (build_data(index + 1, BOOT[512 * index : 512 * index + 512]), peer)
        victim.send(build_error(0), peer)
        if is_answered:
            answer, sender = stranger.receive_packet()
            assert isinstance(answer, Error)
            assert (answer.code, sender) == (5, peer)
        else:
            assert not stranger.has_heard()


# ---- 5 GiB file: tsize says 1 GiB


def test_tsize_of_a_file_beyond_4_gib_is_exact(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    with (root / "huge").open("wb") as file:
        file.truncate(5 << 30)
    with serve_in_thread(root) as server, Client(server.address) as client:
        assert client.probe_size("huge") == 5 << 30


# ---- missing file: the text shows the server's absolute path


def test_error_texts_name_no_path(client: Client, root: Path) -> None:
    for name in ("no such file", "sub", "fifo", "link_out", "../secret"):
        with pytest.raises(Refused) as refused:
            client.get(name)
        assert "/" not in refused.value.text
        assert root.name not in refused.value.text


# ---- directory, what is no UTF-8, unknown opcode, unknown mode: silence, or a hang


@pytest.mark.parametrize(
    ("datagram", "code"),
    [
        (raw_request("sub"), 2),
        (b"\0\1\xff\xfe\xfdname\0octet\0", 1),
        (b"\0\x09name\0octet\0", 4),
        (b"\0\1small\0morse\0", 4),
    ],
)
def test_nonsense_is_answered_at_once(client: Client, datagram: bytes, code: int) -> None:
    answer, _ = client.exchange(datagram)
    assert isinstance(answer, Error)
    assert answer.code == code


# ---- FIFO or device as target: blocks a thread for ever


def test_fifo_is_refused_and_holds_nothing_up(client: Client) -> None:
    for _ in range(40):  # more than any pool has threads
        answer, _ = client.exchange(raw_request("fifo"))
        assert isinstance(answer, Error)
        assert answer.code == 2
    assert client.get("small").payload == b"ten bytes."


# ---- option-less RRQ from a forged address: up to 7 × 516 bytes for a 20-byte request


def test_silent_client_is_sent_three_datagrams_at_most(root: Path) -> None:
    timers = {"retransmit.initial_ms": 20, "retransmit.floor_ms": 10, "retransmit.half_open_give_up_s": 1}
    with serve_in_thread(root, timers) as server, Client(server.address) as client:
        client.request("boot.img")
        wait_for(lambda: "outcome=TIMED_OUT" in server.log, "giving up on a silent client")
        assert server.counters()["blocks_sent"] <= 3
        answers = [client.receive()[0] for _ in range(server.counters()["datagrams_sent"])]
        assert sum(map(len, answers)) <= 3 * 516 + 100  # and the ERROR that ends it


# ---- `BLKSIZE` in capitals: ignored


def test_option_names_are_read_in_any_case_and_echoed_as_sent(client: Client) -> None:
    client.request("boot.img", options={"BLKSIZE": 1024, "TSize": 0})
    packet, peer = client.receive_packet()
    assert packet == Oack((("BLKSIZE", "1024"), ("TSize", str(len(BOOT)))))
    client.send(build_error(0), peer)


# ---- only an unknown option: OACK with options never asked for


def test_only_unknown_options_are_answered_with_data_1(client: Client) -> None:
    answer, peer = client.exchange(raw_request("boot.img", "msftwindow", "31416", "colour", "blue"))
    assert answer == Data(1, BOOT[:512])
    client.send(build_error(0), peer)


# ---- ERROR, DATA or ACK sent to the request port: answered with ERROR, so two servers can be set on each other


@pytest.mark.parametrize("datagram", [build_error(0, "x"), build_data(1, b"x"), build_ack(0), build_oack([("a", "b")])])
@pytest.mark.parametrize("single_port", [False, True])
def test_answers_are_never_answered(root: Path, datagram: bytes, single_port: bool) -> None:
    with serve_in_thread(root, {"single_port": single_port}) as server, Client(server.address) as client:
        client.send(datagram)
        # One worker answers in the order of arrival: what comes first shows that nothing came before.
        answer, _ = client.exchange(raw_request("no such file"))
        assert isinstance(answer, Error)
        assert answer.code == 1


# ---- ACK of a block never sent: taken as progress, data skipped


def test_ack_of_a_block_never_sent_is_no_progress(served: ServerThread) -> None:
    with Client(served.address) as client:
        client.request("boot.img")
        _, peer = client.receive()
        for block in (2, 3, 200, 65535):
            client.send(build_ack(block), peer)
        client.send(build_ack(1), peer)
        answer = client.receive()[0]
        while answer == build_data(1, BOOT[:512]):  # a repetition that the odd ACKs asked for
            answer = client.receive()[0]
        assert answer == build_data(2, BOOT[512:1024])
        client.send(build_error(0), peer)


# ---- file truncated or rewritten in place under a transfer: the client is told a short or mixed file is whole


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(60_000)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"n" * 90_000)


@pytest.mark.parametrize("spoil", [truncate, rewrite])
@pytest.mark.parametrize("windowsize", [1, 8])
def test_file_that_changes_is_never_delivered_as_whole(tmp_path: Path, spoil: Any, windowsize: int) -> None:
    root = make_root(tmp_path)
    path = root / "changing"
    path.write_bytes(b"o" * 90_000)
    with serve_in_thread(root) as server, Client(server.address, give_up_s=5) as client:
        with pytest.raises(Refused) as refused:
            client.get(
                "changing",
                options={"windowsize": windowsize},
                on_block=lambda index: spoil(path) if index == 100 else None,
            )
        assert refused.value.code == 0
        wait_for(lambda: "outcome=CHANGED" in server.log, "the failure in the log")


# ---- a line break in a file name: forges a log line


def test_line_break_in_a_name_forges_no_log_line(served: ServerThread, client: Client) -> None:
    with pytest.raises(Refused) as refused:
        client.get("x\n2026-01-01T00:00:00.000Z INFO    transfer completed  file=forged")
    assert refused.value.code == 1
    line = wait_for(lambda: [line for line in served.log.splitlines() if "forged" in line], "the refusal in the log")[0]
    assert "request refused" in line
    assert "\\n2026" in line


# ---- option given twice, `blksize=-1`, `99999999999`, `1.5`: echoed back


@pytest.mark.parametrize("value", ["-1", "1.5", "", " 512", "0x200", "1e3", "五", "+512"])
def test_value_that_is_no_number_is_ignored(client: Client, value: str) -> None:
    answer, peer = client.exchange(raw_request("boot.img", "blksize", value))
    assert answer == Data(1, BOOT[:512])
    client.send(build_error(0), peer)


def test_value_beyond_every_range_is_answered_in_range(client: Client) -> None:
    answer, peer = client.exchange(raw_request("boot.img", "blksize", "99999999999", "tsize", "0"))
    assert answer == Oack((("blksize", "65464"), ("tsize", str(len(BOOT)))))
    client.send(build_error(0), peer)


def test_option_given_twice_counts_once(client: Client) -> None:
    answer, peer = client.exchange(raw_request("boot.img", "blksize", "1000", "blksize", "2000"))
    assert answer == Oack((("blksize", "1000"),))
    client.send(build_error(0), peer)


# ---- netascii with tsize; CR at the end of a block: ERROR 8, tsize 0 or wrong, byte lost


@pytest.mark.parametrize("before", [510, 511, 512])
def test_netascii_is_exact_around_the_end_of_a_block(tmp_path: Path, before: int) -> None:
    root = make_root(tmp_path)
    (root / "text").write_bytes(b"x" * before + b"\r\n" + b"y" * 600 + b"\n")
    expected = b"x" * before + b"\r\0\r\n" + b"y" * 600 + b"\r\n"
    with serve_in_thread(root) as server, Client(server.address) as client:
        got = client.get("text", "netascii", {"tsize": 0})
        assert (got.payload, got.oack) == (expected, {"tsize": str(len(expected))})
        assert client.get("text", "netascii").payload == expected


# ---- not allowed: ERROR 0 or 1 instead of 2


def test_what_is_not_allowed_is_error_2(client: Client) -> None:
    for attempt in (lambda: client.get("sub"), lambda: client.get("link_out"), lambda: client.put("new", b"")):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code == 2


# ---- blksize 0, 7, 70000; timeout 0, 256: echoed, or refused with ERROR 8


@pytest.mark.parametrize("fields", [("blksize", "0"), ("blksize", "7"), ("timeout", "0"), ("timeout", "256")])
def test_option_out_of_range_is_ignored(client: Client, fields: tuple[str, str]) -> None:
    answer, peer = client.exchange(raw_request("boot.img", *fields))
    assert answer == Data(1, BOOT[:512])
    client.send(build_error(0), peer)


def test_blksize_above_the_range_is_lowered_into_it(client: Client) -> None:
    assert client.get("boot.img", options={"blksize": 70000}).oack == {"blksize": "65464"}
