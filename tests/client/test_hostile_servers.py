"""A server may do what it likes: the client has the right content or an error, never a wrong file."""

import os
import socket
import time
from pathlib import Path

import pytest
from tests.support.fake_server import Talk, fake_server, refuse_options

from snow_owl_tftp.client.api import Client, get, put
from snow_owl_tftp.errors import (
    TransferChanged,
    TransferDiskFull,
    TransferError,
    TransferRefused,
    TransferTimedOut,
    TransferUnreachable,
)
from snow_owl_tftp.protocol.packets import build_ack, build_data

QUICK = {"timeout": 0.1, "retries": 3}
CONTENT = bytes(range(256)) * 11 + b"tail"


def granted(talk: Talk, **more: object) -> None:
    """An OACK with small blocks and windows, and the client's ACK of it."""
    talk.oack(**{"blksize": 512, "windowsize": 4, **more})
    talk.hear_ack(0)


# --- falling back


def test_server_that_ignores_options_is_served_by_rfc_1350():
    with fake_server(lambda talk: talk.serve(CONTENT)) as server:
        assert get(server.url("x")) == CONTENT
    assert dict(server.requests[0].options) == {"blksize": "65464", "windowsize": "64", "tsize": "0"}


@pytest.mark.parametrize("code", [8, 0, 4])
def test_server_that_refuses_options_is_asked_again_without(code):
    def script(talk: Talk) -> None:
        if talk.request.options:
            talk.error(code, "what?")
        else:
            talk.serve(CONTENT)

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT
    assert [bool(request.options) for request in server.requests] == [True, False]


def test_refusal_for_another_reason_is_not_asked_again():
    with fake_server(lambda talk: talk.error(1, "File not found")) as server, pytest.raises(TransferRefused) as refused:
        get(server.url("x"))
    assert (refused.value.code, refused.value.server_text) == (1, "File not found")
    assert len(server.requests) == 1


def test_server_that_refuses_twice_is_believed():
    with fake_server(lambda talk: talk.error(0, "busy")) as server, pytest.raises(TransferRefused, match="0: busy"):
        get(server.url("x"))
    assert len(server.requests) == 2


def test_put_falls_back_without_losing_a_byte():
    received = bytearray()

    def script(talk: Talk) -> None:
        talk.ack(0)
        block = 1
        while True:
            datagram = talk.hear()
            if datagram[2:4] == block.to_bytes(2, "big"):
                received.extend(datagram[4:])
                talk.ack(block)
                block += 1
                if len(datagram) < 516:
                    return

    with fake_server(refuse_options(script)) as server:
        put(server.url("x"), CONTENT)
    assert bytes(received) == CONTENT


# --- OACKs that break the rules


@pytest.mark.parametrize(
    "options",
    [
        {"blksize": 70000},
        {"blksize": 65465},
        {"blksize": 7},
        {"windowsize": 65},
        {"windowsize": 0},
        {"timeout": 3},
        {"multicast": "224.0.0.1,1758,1"},
        {"tsize": "-1"},
        {"blksize": "abc"},
    ],
)
def test_bad_oack_is_answered_with_error_8_and_raises(options):
    """Twice: the second time nothing was asked for, so that any OACK does."""

    def script(talk: Talk) -> None:
        talk.oack(**options)
        assert talk.hear_error() == 8

    with fake_server(script) as server, pytest.raises(TransferError, match="OACK breaks the rules"):
        get(server.url("x"))
    assert [bool(request.options) for request in server.requests] == [True, False]


@pytest.mark.parametrize("options", [{"blksize": "512 bytes"}, {"windowsize": 64, "rollover": 0}])
def test_server_with_a_broken_oack_is_asked_again_without(options):
    def script(talk: Talk) -> None:
        if talk.request.options:
            talk.oack(**options)
            assert talk.hear_error() == 8
        else:
            talk.serve(CONTENT)

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT


@pytest.mark.parametrize(
    "strings",
    [
        "blksize|512|||||",
        "blksize|512||",
        f"blksize|512|tsize|{len(CONTENT)}||||",
        f"BlkSize|512|TSIZE|{len(CONTENT)}|",
        "blksize|00512|",
        "blksize|512|windowsize|1|BLKSIZE|512|",
        "windowsize|1|",
        "||",
    ],
)
def test_odd_oack_that_can_mean_one_thing_only_holds(strings):
    """Padding, capitals, an option said twice, nothing granted: as other clients take them."""

    def script(talk: Talk) -> None:
        talk.send(b"\0\6" + strings.encode().replace(b"|", b"\0"))
        talk.hear_ack(0)
        talk.serve(CONTENT)

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "strings", ["blksize|512", "blksize|", "blksize|512||garbage|", "blksize|512|\xff\xfe|", "blksize|512|blksize|8|"]
)
def test_oack_that_may_mean_anything_is_refused_and_the_file_comes_without(strings):
    def script(talk: Talk) -> None:
        if talk.request.options:
            talk.send(b"\0\6" + strings.encode("latin-1").replace(b"|", b"\0"))
            assert talk.hear_error() == 8
        else:
            talk.serve(CONTENT)

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT


def test_oack_is_acknowledged_again_when_the_ack_was_lost():
    def script(talk: Talk) -> None:
        granted(talk)
        talk.oack(blksize=512, windowsize=4)
        talk.hear_ack(0)
        talk.serve(CONTENT, windowsize=4)

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT


# --- tsize


@pytest.mark.parametrize("told", [0, len(CONTENT) - 1, len(CONTENT) + 1, 5 * len(CONTENT)])
def test_tsize_that_lies_fails_and_leaves_nothing(told, tmp_path):
    target = tmp_path / "file"

    def script(talk: Talk) -> None:
        granted(talk, tsize=told)
        for i in range(0, len(CONTENT), 512):
            talk.data(i // 512 + 1, CONTENT[i : i + 512])
        talk.hear_error()

    with fake_server(script) as server, pytest.raises(TransferChanged, match=f"announced {told} bytes"):
        get(server.url("x"), target)
    assert list(tmp_path.iterdir()) == []


def test_short_block_in_the_middle_is_not_a_whole_file():
    def script(talk: Talk) -> None:
        granted(talk, tsize=len(CONTENT))
        talk.data(1, CONTENT[:512])
        talk.data(2, CONTENT[512:700])
        talk.hear_error()

    with fake_server(script) as server, pytest.raises(TransferChanged):
        get(server.url("x"))


def test_size_limit_is_a_full_disk():
    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        talk.data(2, bytes(512))
        assert talk.hear_error() == 3

    with fake_server(refuse_options(script)) as server, pytest.raises(TransferDiskFull):
        get(server.url("x"), max_size_bytes=600)


def test_announced_size_beyond_the_limit_is_refused_at_once(tmp_path):
    def script(talk: Talk) -> None:
        talk.oack(blksize=512, tsize=601)
        assert talk.hear_error() == 3

    with (
        fake_server(script) as server,
        pytest.raises(TransferDiskFull, match="601 bytes is larger than max_size_bytes"),
    ):
        get(server.url("x"), tmp_path / "file", max_size_bytes=600)
    assert list(tmp_path.iterdir()) == []


def test_server_that_sends_beyond_limit_and_announcement_is_told_apart():
    def script(talk: Talk) -> None:
        granted(talk, tsize=500)
        talk.data(1, bytes(512))
        assert talk.hear_error() == 3

    with fake_server(script) as server, pytest.raises(TransferChanged, match="announced 500 bytes and sent more"):
        get(server.url("x"), max_size_bytes=600)


# --- what the network does


def test_duplicates_and_disorder_are_put_right():
    def script(talk: Talk) -> None:
        granted(talk)
        blocks = [CONTENT[i : i + 512] for i in range(0, len(CONTENT), 512)]
        for block in (2, 1, 1, 4, 3, 2):
            talk.data(block, blocks[block - 1])
        at = 1
        while at <= len(blocks):
            at = int.from_bytes(talk.hear()[2:4], "big") + 1
            for block in range(at, min(at + 4, len(blocks) + 1)):
                talk.data(block, blocks[block - 1])
                talk.data(block, blocks[block - 1])

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT


@pytest.mark.parametrize("rollover_to", [0, 1])
def test_block_numbers_wrap_to_0_or_1(rollover_to):
    content = os.urandom(8 * 65540 + 3)

    def script(talk: Talk) -> None:
        talk.oack(blksize=8)
        talk.hear_ack(0)
        blocks = [content[i : i + 8] for i in range(0, len(content), 8)]
        for i, payload in enumerate(blocks, 1):
            wire = i if i < 65536 else (i - 65536 + rollover_to)
            talk.data(wire, payload)
            talk.hear_ack(wire)

    with fake_server(script) as server:
        assert get(server.url("x"), blksize=8, windowsize=1) == content


def test_answer_from_another_address_is_not_believed():
    def script(talk: Talk) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.9", 0))
            other.sendto(build_data(1, b"forged"), talk.peer)
            other.settimeout(5)
            assert other.recv(100)[:4] == b"\0\5\0\5"
        talk.serve(CONTENT)

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT


def test_server_on_another_address_times_out():
    def script(talk: Talk) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.9", 0))
            other.sendto(build_data(1, b"forged"), talk.peer)

    with fake_server(script) as server, pytest.raises(TransferTimedOut, match="no answer"):
        get(server.url("x"), **QUICK)


def test_second_tid_is_told_error_5_and_changes_nothing():
    def script(talk: Talk) -> None:
        talk.data(1, CONTENT[:512])
        talk.hear_ack(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.sendto(build_data(2, b"forged"), talk.peer)
            other.settimeout(5)
            assert other.recv(100)[:4] == b"\0\5\0\5"
        for block in range(2, len(CONTENT) // 512 + 2):
            talk.data(block, CONTENT[(block - 1) * 512 : block * 512])
            talk.hear_ack(block)

    with fake_server(script) as server:
        assert get(server.url("x")) == CONTENT


def test_block_longer_than_agreed_aborts():
    def script(talk: Talk) -> None:
        granted(talk)
        talk.data(1, bytes(513))
        assert talk.hear_error() == 4

    with fake_server(script) as server, pytest.raises(TransferError, match="longer than the block size"):
        get(server.url("x"))


def test_runts_and_unknown_opcodes_are_dropped():
    def script(talk: Talk) -> None:
        for junk in (b"", b"\0", b"\0\3", b"\0\3\0", b"\0\x63\0\0", b"\1\3\0\1forged"):
            talk.send(junk)
        talk.serve(CONTENT)

    with fake_server(refuse_options(script)) as server:
        assert get(server.url("x")) == CONTENT


def test_lost_data_is_asked_for_again():
    def script(talk: Talk) -> None:
        granted(talk)
        assert talk.hear() == build_ack(0)  # the timer's, since nothing came
        talk.serve(CONTENT, windowsize=4)

    with fake_server(script) as server:
        assert get(server.url("x"), timeout=0.1) == CONTENT


# --- ends


def test_error_in_the_middle_is_refused_and_leaves_nothing(tmp_path):
    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        talk.error(0, "file changed\r\nduring the transfer")

    with fake_server(script) as server, pytest.raises(TransferRefused) as refused:
        get(server.url("x"), tmp_path / "file")
    assert str(refused.value) == "refused by the server: ERROR 0: file changed  during the transfer"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"no such file", b"no such file\0", b"no such file\0and more", b"", b"\xff\xe4"])
def test_error_is_heard_however_its_text_ends(text):
    with (
        fake_server(lambda talk: talk.send(b"\0\5\0\1" + text)) as server,
        pytest.raises(TransferRefused) as refused,
    ):
        get(server.url("x"))
    assert refused.value.code == 1
    assert refused.value.server_text == text.split(b"\0")[0].decode("utf-8", "replace")


def test_silence_times_out_after_the_retries():
    with fake_server(lambda talk: None) as server:
        began = time.monotonic()
        with pytest.raises(TransferTimedOut, match=r"no answer from 127\.0\.0\.1"):
            get(server.url("x"), **QUICK)
        assert 0.3 <= time.monotonic() - began < 20


def test_silence_in_the_middle_times_out_and_leaves_nothing(tmp_path):
    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)
        assert talk.hear_error() == 0

    with fake_server(script) as server, pytest.raises(TransferTimedOut, match="fell silent after 512 bytes"):
        get(server.url("x"), tmp_path / "file", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_server_that_vanishes_in_the_middle_is_told_at_once(tmp_path):
    """The script ends and its port with it."""

    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        talk.hear_ack(1)

    with fake_server(script) as server, pytest.raises(TransferUnreachable, match="went away after 512 bytes"):
        get(server.url("x"), tmp_path / "file", timeout=0.1, retries=1000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("transfer", [get, lambda url, **settings: put(url, CONTENT, **settings)])
def test_nobody_at_the_port_is_told_at_once(transfer):
    began = time.monotonic()
    with pytest.raises(TransferUnreachable, match=r"unreachable: nothing listens on 127\.0\.0\.1:9$"):
        transfer("tftp://127.0.0.1:9/x", timeout=60)
    assert time.monotonic() - began < 30


def test_existing_file_survives_a_failure(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with fake_server(lambda talk: talk.error(1)) as server, Client() as client, pytest.raises(TransferRefused):
        client.get(server.url("x"), target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_last_ack_is_repeated_when_it_was_lost():
    with Client() as client:

        def script(talk: Talk) -> None:
            talk.serve(b"short")
            talk.data(1, b"short")
            talk.hear_ack(1)

        with fake_server(script) as server:
            assert client.get(server.url("x")) == b"short"


def test_closing_a_client_after_success_sends_no_error():
    said = []

    def script(talk: Talk) -> None:
        talk.serve(b"short")
        try:
            said.append(talk.hear(0.3))
        except Exception:  # silence is what is wanted
            return

    with fake_server(script) as server:
        assert get(server.url("x")) == b"short"
    assert said == []


def test_many_refusals_leak_no_descriptor():
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with fake_server(lambda talk: talk.error(1)) as server, Client() as client:
        with pytest.raises(TransferRefused):
            client.get(server.url("x"))
        before = count()
        for _ in range(20):
            with pytest.raises(TransferRefused):
                client.get(server.url("x"))
        assert count() <= before + 1
