"""Other people's servers, with their known defects: the right content, or a clear error."""

import os
from pathlib import Path

import pytest
from tests.client.conftest import Peer
from tests.support.server import wait_for

from snow_owl_tftp.client.api import Client, get, put
from snow_owl_tftp.errors import TransferChanged, TransferError, TransferRefused

SIZES = [0, 1, 511, 512, 513, 1427, 1428, 1429, 64 * 1428, 64 * 1428 + 1, 300_000]


@pytest.fixture
def content(rng) -> bytes:
    return rng.randbytes(max(SIZES))


@pytest.mark.parametrize(("blksize", "windowsize"), [(512, 1), (1428, 64), (None, 64)])
def test_every_size_arrives(peer: Peer, content, blksize, windowsize):
    with Client(blksize=blksize, windowsize=windowsize) as client:
        for size in SIZES:
            # A name for each: dnsmasq sends what it has open, which on a busy machine is still the one before.
            (peer.root / f"file-{size}").write_bytes(content[:size])
            assert client.get(peer.url(f"file-{size}")) == content[:size], size


def test_missing_file_is_refused_with_code_1(peer: Peer):
    with pytest.raises(TransferRefused) as refused:
        get(peer.url("missing"))
    assert refused.value.code == 1


def test_blocks_past_65535_wrap(peer: Peer, rng):
    content = rng.randbytes(65540 * 512 // 64) * 64
    (peer.root / "large").write_bytes(content)
    assert get(peer.url("large"), blksize=512) == content


def test_netascii_arrives_decoded(peer: Peer):
    # dnsmasq converts LF alone, so that a CR of the file arrives as it stands: the same text again.
    text = b"one\ntwo\rthree\r\n" * 700
    (peer.root / "text").write_bytes(text)
    assert get(peer.url("text"), mode="netascii") == text


def test_file_past_4_gib_is_an_error_where_tsize_is_wrong(peer: Peer):
    """dnsmasq and atftpd tell its size modulo 2^32: then there must be no file."""
    if peer.kind == "tftpd-hpa":
        pytest.skip("tells the right tsize; 4 GiB take too long to prove it")
    with (peer.root / "huge").open("wb") as file:
        os.truncate(file.fileno(), (4 << 30) + (1 << 20))
    with pytest.raises(TransferChanged, match="announced 1048576 bytes"):
        get(peer.url("huge"), "/dev/null")


def test_file_truncated_under_the_transfer_is_no_success(peer: Peer, tmp_path):
    """They tell the client that a short file is whole; the tsize gives it away."""
    path = peer.root / "file"
    path.write_bytes(bytes(64 << 20))
    target = tmp_path / "target"

    def cut(done_bytes: int, size_bytes: int | None) -> None:
        if done_bytes:
            os.truncate(path, 1 << 20)

    with pytest.raises(TransferError):
        get(peer.url("file"), target, progress=cut, blksize=512, windowsize=1)
    assert not target.exists()


@pytest.mark.parametrize(("blksize", "windowsize"), [(512, 1), (1428, 16)])
def test_every_size_is_sent(writable_peer: Peer, content, blksize, windowsize):
    with Client(blksize=blksize, windowsize=windowsize) as client:
        for size in SIZES:
            client.put(writable_peer.url(f"up{size}"), content[:size])
            # atftpd acknowledges what still lies in its buffer.
            path = writable_peer.root / f"up{size}"
            wait_for(lambda path=path, size=size: path.read_bytes() == content[:size], f"{size} bytes")


def test_path_is_sent_and_comes_back(writable_peer: Peer, content, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(content)
    put(writable_peer.url("file"), source)
    wait_for(lambda: (writable_peer.root / "file").stat().st_size == len(content), "the upload")
    result = get(writable_peer.url("file"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert result.payload_bytes == len(content)


def test_upload_to_a_read_only_server_is_refused(peer: Peer):
    if peer.kind != "dnsmasq":
        pytest.skip(f"{peer.kind} takes uploads")
    with pytest.raises(TransferRefused):
        put(peer.url("file"), Path(__file__), timeout=0.2, retries=1)
