"""What fsspec writes to tftp:// is stored whole, at the right moment, or not at all."""

import contextlib
import gzip
import io
import logging

import fsspec
import pytest
from tests.support.uploads import files_below, make_root, serve_uploads

from snow_owl_tftp import Response, Server
from snow_owl_tftp.client.fs import files as fs_files
from snow_owl_tftp.errors import TransferRefused

CONTENT = bytes(range(256)) * 100


class Unlucky(Exception):  # noqa: N818
    """Raised in the middle of a file."""


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


@pytest.fixture
def url(root):
    with serve_uploads(root) as server:
        yield f"tftp://127.0.0.1:{server.address[1]}/up/x"


@pytest.fixture
def fs():
    return fsspec.filesystem("tftp")


# --- whole


def test_file_is_stored_when_it_is_closed(url, root, fs):
    with fsspec.open(url, "wb") as file:
        file.write(b"con")
        file.write(b"tent")
        assert file.tell() == 7
        assert files_below(root) == {}
    assert files_below(root) == {"up/x": b"content"}
    fs.pipe_file(url, b"piped")
    assert files_below(root) == {"up/x": b"piped"}


def test_text_is_stored_and_read_back(url, root, fs):
    with fsspec.open(url, "wt", encoding="utf-8", newline="\n") as file:
        file.write("Eule\nSchnee\n")
    assert files_below(root) == {"up/x": b"Eule\nSchnee\n"}
    with fsspec.open(url, "rt", encoding="utf-8") as file:
        assert file.read() == "Eule\nSchnee\n"
    fs.write_text(url, "again")
    assert fs.read_text(url) == "again"


def test_file_may_be_written_out_of_order(url, root, fs):
    with fs.open(url, "wb") as file:
        file.write(b"....tail")
        file.seek(0)
        file.write(b"head")
        file.truncate(6)
    assert files_below(root) == {"up/x": b"headta"}


@pytest.mark.parametrize("size_bytes", [0, 1, 99, 100, 101, 5000])
def test_large_file_gathers_on_disk(url, root, fs, monkeypatch, size_bytes):
    monkeypatch.setattr(fs_files, "_MEMORY_BYTES", 100)
    with fs.open(url, "wb") as file:
        for byte in CONTENT[:size_bytes]:
            file.write(bytes([byte]))
        assert file._spool._rolled == (size_bytes > 100)
    assert files_below(root) == {"up/x": CONTENT[:size_bytes]}


def test_put_copies_files(url, root, fs, tmp_path):
    (tmp_path / "source").write_bytes(CONTENT)
    fs.put_file(str(tmp_path / "source"), url)
    fs.put(str(tmp_path / "source"), url + "2")
    assert files_below(root) == {"up/x": CONTENT, "up/x2": CONTENT}
    with pytest.raises(FileExistsError):
        fs.put_file(str(tmp_path / "source"), url, mode="create")
    with pytest.raises(FileExistsError):
        fs.pipe_file(url, b"new", mode="create")
    assert files_below(root)["up/x"] == CONTENT


def test_simplecache_stores_what_is_written_through_it(url, root, tmp_path):
    with fsspec.open(f"simplecache::{url}", "wb", simplecache={"cache_storage": str(tmp_path / "cache")}) as file:
        file.write(CONTENT)
    assert files_below(root) == {"up/x": CONTENT}


def test_compressed_file_is_stored_by_fsspec_open_and_refused_where_it_would_be_lost(url, root, fs):
    with fsspec.open(url, "wb", compression="gzip") as file:
        file.write(CONTENT)
    assert gzip.decompress(files_below(root)["up/x"]) == CONTENT
    with fs.open(url, "rb", compression="gzip") as file:
        assert file.read() == CONTENT
    with pytest.raises(ValueError, match="to write compressed"):
        fs.open(url, "wb", compression="gzip")
    with fs.open(url, "wb", compression="infer") as file:
        file.write(b"not by its name")
    assert files_below(root) == {"up/x": b"not by its name"}


def test_refused_upload_raises(fs):
    with Server(read=lambda request: Response(b"read only")) as server:
        with pytest.raises(TransferRefused):
            fs.pipe_file(server.url("x"), b"content")
        file = fs.open(server.url("x"), "wb")
        with pytest.raises(TransferRefused):
            file.close()
        assert file.closed
        file.close()


def test_closed_file_takes_no_more(url, fs):
    file = fs.open(url, "wb")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"x")


@pytest.mark.parametrize("mode", ["xb", "x", "ab", "r+b", "w+b"])
def test_mode_that_tftp_has_not_is_refused(url, root, fs, mode):
    fs.pipe_file(url, b"precious")
    with pytest.raises(ValueError, match="TFTP cannot"):
        fs.open(url, mode)
    with pytest.raises(ValueError, match="TFTP cannot"), fsspec.open(url, mode):
        pass
    assert files_below(root) == {"up/x": b"precious"}


# --- half


def by_fsspec_open(url):
    with fsspec.open(url, "wb") as file:
        file.write(b"half")
        raise Unlucky


def by_fsspec_open_of_text(url):
    with fsspec.open(url, "wt") as file:
        file.write("half")
        raise Unlucky


def by_fsspec_open_compressed(url):
    with fsspec.open(url, "wb", compression="gzip") as file:
        file.write(b"half")
        raise Unlucky


def by_with(url):
    with fsspec.filesystem("tftp").open(url, "wb") as file:
        file.write(b"half")
        raise Unlucky


def by_with_of_text(url):
    with fsspec.filesystem("tftp").open(url, "wt") as file:
        file.write("half")
        raise Unlucky


def by_exit_stack(url):
    with contextlib.ExitStack() as stack:
        stack.enter_context(fsspec.open(url, "wb")).write(b"half")
        raise Unlucky


def by_finally(url):
    file = fsspec.filesystem("tftp").open(url, "wb")
    try:
        file.write(b"half")
        raise Unlucky
    finally:
        file.close()


def by_raising_again_what_was_handled(url):
    try:
        raise Unlucky
    except Unlucky:
        with fsspec.filesystem("tftp").open(url, "wb") as file:
            file.write(b"half")
            raise


def by_another_error_in_a_handler(url):
    try:
        raise KeyError
    except KeyError:
        with fsspec.open(url, "wb") as file:
            file.write(b"half")
            raise Unlucky from None


@pytest.mark.parametrize("write_half", [f for name, f in sorted(globals().items()) if name.startswith("by_")])
def test_half_a_file_is_not_stored(url, root, write_half):
    with pytest.raises(Unlucky):
        write_half(url)
    assert files_below(root) == {}


@pytest.mark.parametrize("mode", ["wb", "wt"])
@pytest.mark.parametrize("opener", ["fsspec", "filesystem"])
def test_file_that_nobody_closes_is_not_stored_and_warned_of(url, root, fs, mode, opener):
    def abandon() -> None:
        file = fs.open(url, mode) if opener == "filesystem" else fsspec.open(url, mode).open()
        file.write(b"half" if mode == "wb" else "half")

    with pytest.warns(ResourceWarning, match="was not closed, and is not stored"):
        abandon()
    assert files_below(root) == {}


def test_file_opened_and_closed_while_an_error_is_handled_is_stored(url, root):
    try:
        raise KeyError
    except KeyError:
        with fsspec.open(url, "wb") as file:
            file.write(b"what went wrong")
    assert files_below(root) == {"up/x": b"what went wrong"}


def test_file_dropped_for_an_error_is_told_of(url, fs, caplog):
    file = fs.open(url, "wb")
    with caplog.at_level(logging.WARNING):
        try:
            raise KeyError("end")
        except KeyError:
            file.close()
    assert "/up/x is not stored: it was closed while this was raised: KeyError('end')" in caplog.text


# --- transactions


def test_transaction_stores_everything_at_its_end(url, root, fs):
    with fs.transaction:
        fs.pipe_file(url, b"one")
        with fs.open(url + "2", "wt") as file:
            file.write("two")
        assert file.closed
        assert files_below(root) == {}
    assert files_below(root) == {"up/x": b"one", "up/x2": b"two"}
    fs.pipe_file(url, b"three")
    assert files_below(root)["up/x"] == b"three"


def test_failed_transaction_stores_nothing(url, root, fs):
    def run() -> None:
        with fs.transaction:
            fs.pipe_file(url, b"one")
            fs.open(url + "2", "wb").write(b"half")
            raise Unlucky

    with pytest.raises(Unlucky):
        run()
    assert files_below(root) == {}


def test_file_that_failed_is_left_out_of_its_transaction(url, root, fs):
    with fs.transaction:
        with contextlib.suppress(Unlucky), fs.open(url, "wb") as file:
            file.write(b"half")
            raise Unlucky
        fs.pipe_file(url + "2", b"whole")
    assert files_below(root) == {"up/x2": b"whole"}


def test_upload_is_a_file_object_of_python(url, fs):
    with fs.open(url, "wb") as file:
        assert isinstance(file, io.BufferedIOBase)
        assert file.writable()
        assert file.seekable()
        assert not file.readable()
