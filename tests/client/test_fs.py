"""tftp:// in fsspec, found by its entry point."""

import fsspec
import pytest
from tests.server.upload_support import serve_uploads

from snow_owl_tftp.errors import TransferRefused


def test_file_is_read_and_seekable(tftp_server):
    tftp_server.files["a/b.csv"] = b"x,y\n1,2\n"
    with fsspec.open(tftp_server.url("a/b.csv"), "rb") as file:
        assert file.read() == b"x,y\n1,2\n"
        file.seek(2)
        assert file.read(1) == b"y"
    with fsspec.open(tftp_server.url("a/b.csv"), "rt") as file:
        assert file.readline() == "x,y\n"


def test_missing_file_is_file_not_found(tftp_server):
    fs = fsspec.filesystem("tftp")
    with pytest.raises(FileNotFoundError):
        fs.cat_file(tftp_server.url("missing"))
    assert not fs.exists(tftp_server.url("missing"))


def test_slices_size_and_settings(tftp_server):
    tftp_server.files["x"] = bytes(range(100))
    fs = fsspec.filesystem("tftp", blksize=512, windowsize=1)
    assert fs.cat_file(tftp_server.url("x"), 10, 20) == bytes(range(10, 20))
    assert fs.size(tftp_server.url("x")) == 100
    assert "blksize" not in tftp_server.requests[-1].options


def test_listing_is_not_invented(tftp_server):
    with pytest.raises(NotImplementedError):
        fsspec.filesystem("tftp").ls(tftp_server.url(""))


def test_written_file_is_stored_when_closed_and_not_after_an_error(tmp_path):
    root = tmp_path / "root"
    (root / "up").mkdir(parents=True)
    with serve_uploads(root) as server:
        url = f"tftp://127.0.0.1:{server.address[1]}/up/x"
        with fsspec.open(url, "wb") as file:
            file.write(b"content")
        assert (root / "up/x").read_bytes() == b"content"
        with pytest.raises(RuntimeError):
            write_half(url)
        assert (root / "up/x").read_bytes() == b"content"


def write_half(url):
    with fsspec.filesystem("tftp").open(url, "wb") as file:
        file.write(b"half")
        raise RuntimeError


def test_refused_upload_raises(tftp_server):
    with pytest.raises(TransferRefused):
        fsspec.filesystem("tftp").pipe_file(tftp_server.url("x"), b"content")
