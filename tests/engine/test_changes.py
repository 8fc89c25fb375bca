"""A file that changes under a transfer: a client never holds a complete file that was not one file."""

import os

import pytest
from tests.support.client import Client, Refused

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.packets import Data, Error, Oack, build_ack

OLD = bytes(range(256)) * 8000  # 2 MB: four chunks of the engine's
LONG_AGO = 1_000_000_000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    os.utime(path, (LONG_AGO, LONG_AGO))  # or a rewrite within one tick of the file system's clock keeps the mtime
    return path


def get_with(served, at_block, change, **options):
    """Downloads `file`, and calls `change` before block `at_block` is acknowledged."""

    def on_block(index):
        if index == at_block:
            change()

    with Client(served.address) as client:
        return client.get("file", options={"blksize": 1428, **options}, on_block=on_block)


@pytest.mark.parametrize("windowsize", [1, 4, 64])
@pytest.mark.parametrize("left", [0, 100_000, len(OLD) - 1])
def test_a_truncated_file_ends_the_transfer_with_an_error(serve, file, windowsize, left):
    served = serve()
    with pytest.raises(Refused, match="changed"):
        get_with(served, 200, lambda: os.truncate(file, left), windowsize=windowsize)
    assert served.completion().outcome == Outcome.CHANGED


@pytest.mark.parametrize("options", [{"sendmmsg": False}, {"gso": False}])
def test_truncation_is_noticed_however_the_datagrams_leave(serve, file, options):
    served = serve(**options)
    with pytest.raises(Refused, match="changed"):
        get_with(served, 200, lambda: os.truncate(file, 5), windowsize=16)
    assert served.completion().outcome == Outcome.CHANGED


@pytest.mark.parametrize("windowsize", [1, 16])
def test_a_file_rewritten_in_place_never_counts_as_delivered(serve, file, windowsize):
    served = serve()

    def rewrite():
        with file.open("r+b") as opened:
            opened.write(b"new" * 100)

    with pytest.raises(Refused, match="changed"):
        get_with(served, 100, rewrite, windowsize=windowsize)
    assert served.completion().outcome == Outcome.CHANGED


def test_a_file_that_grows_is_a_changed_file(serve, file):
    served = serve()
    with pytest.raises(Refused, match="changed"):
        get_with(served, 100, lambda: os.truncate(file, len(OLD) + 1), windowsize=16)
    assert served.completion().outcome == Outcome.CHANGED


def test_a_file_of_one_block_is_checked_too(serve, tmp_path):
    served = serve()
    path = tmp_path / "small"
    path.write_bytes(b"small")
    os.utime(path, (LONG_AGO, LONG_AGO))
    with Client(served.address) as client:
        client.request("small", options={"blksize": 100})
        packet, sender = client.receive_packet()
        assert isinstance(packet, Oack)
        path.write_bytes(b"SMALL")
        client.send(build_ack(0), sender)
        packet, _ = client.receive_packet()
        assert isinstance(packet, Error)
    assert served.completion().outcome == Outcome.CHANGED


def test_the_next_request_of_a_changed_file_gets_the_new_content(serve, file):
    served = serve()
    with pytest.raises(Refused):
        get_with(served, 100, lambda: file.write_bytes(b"new"), windowsize=16)
    with Client(served.address) as client:
        assert client.get("file").payload == b"new"
    served.completion(total=2)


@pytest.mark.parametrize("windowsize", [1, 16])
def test_a_file_replaced_by_rename_is_delivered_whole_and_old(serve, file, tmp_path, windowsize):
    served = serve()

    def replace():
        (tmp_path / "next").write_bytes(b"new" * 1000)
        (tmp_path / "next").rename(file)

    assert get_with(served, 100, replace, windowsize=windowsize).payload == OLD
    assert served.completion().outcome == Outcome.OK
    with Client(served.address) as client:
        assert client.get("file").payload == b"new" * 1000
    served.completion(total=2)


def test_an_unlinked_file_is_delivered_whole(serve, file):
    served = serve()
    assert get_with(served, 100, file.unlink, windowsize=16).payload == OLD
    assert served.completion().outcome == Outcome.OK


def test_only_the_transfers_of_the_changed_file_end(serve, file, tmp_path):
    served = serve()
    (tmp_path / "other").write_bytes(OLD)
    with Client(served.address) as other:
        other.request("other")
        packet, sender = other.receive_packet()
        with pytest.raises(Refused, match="changed"):
            get_with(served, 10, lambda: os.truncate(file, 0), windowsize=4)
        other.send(build_ack(1), sender)
        packet, _ = other.receive_packet()
        assert isinstance(packet, Data)
        assert packet.payload == OLD[512:1024]
