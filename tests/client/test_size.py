"""Client.size: the size without the file (RFC 2349), whatever the server makes of the question."""

import pytest
from tests.support.fake_server import Talk, fake_server, refuse_options
from tests.support.server import wait_for
from tests.support.uploads import serve_uploads

from snow_owl_tftp import AsyncClient, Client
from snow_owl_tftp.errors import TransferError, TransferRefused, TransferTimedOut
from snow_owl_tftp.protocol.packets import build_ack

SIZE_BYTES = 5_000_000


def size_told_by(script) -> int | None:
    with fake_server(script) as server, Client() as client:
        return client.size(server.url("x"))


def test_size_is_told_without_a_single_data(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "x").write_bytes(bytes(SIZE_BYTES))
    (root / "empty").write_bytes(b"")
    with serve_uploads(root) as server, Client(*server.address) as client:
        assert client.size("x") == SIZE_BYTES
        assert client.counters()["blocks_received"] == 0
        # A server leaves it out (curl refuses a tsize of 0): the one empty block tells.
        assert client.size("empty") == 0
        wait_for(lambda: server.log.count("size probe") == 1, "it was taken for a probe")
        assert "warning" not in server.log


def test_probe_asks_for_tsize_alone_and_ends_with_error_0():
    heard = []

    def script(talk: Talk) -> None:
        talk.oack(tsize=7)
        heard.append(talk.hear())

    with fake_server(script) as server, Client(windowsize=8, blksize=1400, timeout=2) as client:
        assert client.size(server.url("x")) == 7
    assert dict(server.requests[0].options) == {"tsize": "0"}
    assert heard[0][:4] == b"\0\5\0\0"


async def test_async_client_tells_it_too():
    with fake_server(lambda talk: talk.oack(tsize=7)) as server:
        async with AsyncClient() as client:
            assert await client.size(server.url("x")) == 7


def test_server_without_tsize_is_stopped_at_its_first_block():
    heard = []

    def script(talk: Talk) -> None:
        talk.data(1, bytes(512))
        heard.append(talk.hear_error())

    assert size_told_by(script) is None
    assert size_told_by(refuse_options(script)) is None
    assert heard == [3, 3]


@pytest.mark.parametrize("size_bytes", [0, 1, 511])
def test_file_of_one_short_block_has_told_its_size(size_bytes):
    def script(talk: Talk) -> None:
        talk.data(1, bytes(size_bytes))
        assert talk.hear() == build_ack(1)

    assert size_told_by(script) == size_bytes


def test_size_in_netascii_is_that_of_the_decoded_text():
    def script(talk: Talk) -> None:
        talk.data(1, b"one\r\ntwo\r\n")

    with fake_server(script) as server, Client() as client:
        assert client.size(server.url("x;mode=netascii")) == len(b"one\ntwo\n")
    assert not server.requests[0].options


def test_limit_of_downloads_is_none_of_sizes():
    with fake_server(lambda talk: talk.oack(tsize=2**40)) as server, Client(max_size_bytes=1) as client:
        assert client.size(server.url("x")) == 2**40


def test_refusal_raises():
    with pytest.raises(TransferRefused, match="ERROR 1"):
        size_told_by(lambda talk: talk.error(1, "File not found"))


def test_bad_oack_raises():
    with pytest.raises(TransferError, match="OACK breaks the rules"):
        size_told_by(lambda talk: talk.oack(tsize=1, blksize=1024))


def test_silence_raises():
    quick = Client(timeout=0.05, retries=1)
    with fake_server(lambda talk: None) as server, quick as client, pytest.raises(TransferTimedOut):
        client.size(server.url("x"))


def test_other_servers_tell_it(peer):
    (peer.root / "x").write_bytes(bytes(70_001))
    (peer.root / "x").chmod(0o644)
    with Client() as client:
        assert client.size(peer.url("x")) == 70_001
        assert client.get(peer.url("x")) == bytes(70_001)
