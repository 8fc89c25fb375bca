"""What a destination may do: write little at a time, take nothing, be cancelled half way, have a long name."""

import errno
import hashlib
import io
import os

import pytest
from tests.support.fake_server import Talk, fake_server

from snow_owl_tftp import get
from snow_owl_tftp.cli.digests import Hashing
from snow_owl_tftp.client.targets import FileObjectTarget, PathTarget
from snow_owl_tftp.errors import TransferError

CONTENT = os.urandom(5_000)


class Sparing(io.RawIOBase):
    """Takes 1000 bytes a call, as a raw file may."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.taken += data[:1000]
        return min(len(data), 1000)


class Full(Sparing):
    """Would block after the first call."""

    def write(self, data) -> int | None:
        return None if self.taken else super().write(data)


class Uncounting:
    """Like a file, but its write returns nothing."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data) -> None:
        self.taken += data


def serve(talk: Talk) -> None:
    talk.serve(CONTENT)


@pytest.mark.parametrize("make", [Sparing, Uncounting])
def test_everything_is_written_however_little_a_call_takes(make):
    file = make()
    with fake_server(serve) as server:
        get(server.url("x"), file)
    assert bytes(file.taken) == CONTENT


def test_what_would_block_is_an_error_not_a_short_file():
    def script(talk: Talk) -> None:
        talk.oack(blksize=8192)
        talk.hear_ack(0)
        talk.data(1, CONTENT)
        assert talk.hear_error() == 0

    with fake_server(script) as server, pytest.raises(TransferError, match="temporarily unavailable"):
        get(server.url("x"), Full())


def test_the_hash_is_of_what_was_written():
    file = Sparing()
    hashing = Hashing(file)
    assert hashing.write(CONTENT) == len(CONTENT)
    assert bytes(file.taken) == CONTENT
    assert hashing.hexdigest() == hashlib.sha256(CONTENT).hexdigest()


def test_discarded_while_it_is_copied_writes_no_more():
    target = FileObjectTarget(io.BytesIO(), text=False)
    os.truncate(target.fd, 8 << 20)

    class Discarding(io.BytesIO):
        def write(self, data) -> int:
            target.discard()
            return super().write(data)

    target._file = file = Discarding()
    with pytest.raises(InterruptedError):
        target.complete()
    target.close()
    assert len(file.getvalue()) == 1 << 20


# --- files


@pytest.fixture(params=["unnamed", "named"])
def naming(request, monkeypatch):
    """With O_TMPFILE, and on a file system that has none."""
    if request.param == "named":
        real = os.open

        def refuse(path, flags, *more, **named) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(path, flags, *more, **named)

        monkeypatch.setattr(os, "open", refuse)
    return request.param


def test_path_appears_at_once_and_replaces(tmp_path, naming):
    path = tmp_path / "x"
    for content in (b"first", b"second"):
        target = PathTarget(path, text=False)
        os.write(target.fd, content)
        assert len([p for p in tmp_path.iterdir() if p != path]) == (naming == "named")
        target.complete()
        target.close()
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_discarded_path_never_appears(tmp_path, naming):
    target = PathTarget(tmp_path / "x", text=True)
    target.discard()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the file system
        target.complete()
    target.close()
    assert list(tmp_path.iterdir()) == []


def test_long_names_have_room(tmp_path, naming):
    name = "\u00e9" * 120
    with fake_server(serve) as server:
        get(server.url("x"), tmp_path / name)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, CONTENT)]


def test_path_that_cannot_be_made_is_named_as_the_caller_did(tmp_path, naming):
    with pytest.raises(FileNotFoundError) as error:
        PathTarget(tmp_path / "missing" / "x", text=False)
    assert error.value.filename == str(tmp_path / "missing" / "x")


def test_name_that_is_taken_away_is_an_error_without_hidden_names(tmp_path, naming):
    folder = tmp_path / "out"
    folder.mkdir()

    def script(talk: Talk) -> None:
        talk.oack(blksize=512)
        talk.hear_ack(0)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        talk.data(1, b"")
        talk.hear_error()

    with fake_server(script) as server, pytest.raises(TransferError) as error:
        get(server.url("x"), folder / "x")
    assert str(error.value) == "local I/O error: No such file or directory"
