"""tftp:// in fsspec, found by its entry point: reading, asking, what is refused."""

import pickle
import socket

import fsspec
import pytest
from tests.support.fake_server import Talk, fake_server
from tests.support.server import serve_in_thread

from snow_owl_tftp.client.fs.filesystem import TftpFileSystem
from snow_owl_tftp.errors import ConfigError, TransferRefused, TransferTimedOut

CONTENT = bytes(range(256)) * 100


@pytest.fixture
def dead_url():
    """Nobody answers there, and no ICMP tells so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        yield f"tftp://127.0.0.1:{deaf.getsockname()[1]}/x"


def impatient() -> TftpFileSystem:
    return fsspec.filesystem("tftp", timeout=0.05, retries=1)


# --- reading


def test_file_is_read_and_seekable(tftp_server):
    tftp_server.files["a/b.csv"] = b"x,y\n1,2\n"
    with fsspec.open(tftp_server.url("a/b.csv"), "rb") as file:
        assert file.read() == b"x,y\n1,2\n"
        file.seek(2)
        assert file.read(1) == b"y"
    with fsspec.open(tftp_server.url("a/b.csv"), "rt") as file:
        assert file.readline() == "x,y\n"


def test_ipv6_address_without_two_colons_in_a_row(tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    with serve_in_thread(tmp_path, {"bind_addr": "[::1]:0"}, log_path=tmp_path / "log") as server:
        url = f"tftp://[0:0:0:0:0:0:0:1]:{server.address[1]}/x"
        with fsspec.open(url, "rb") as file:
            assert file.read() == CONTENT
        assert fsspec.filesystem("tftp").size(url) == len(CONTENT)


def test_missing_file_is_file_not_found(tftp_server):
    fs = fsspec.filesystem("tftp")
    for read in (fs.cat_file, fs.open, fs.info, fs.size):
        with pytest.raises(FileNotFoundError):
            read(tftp_server.url("missing"))
    assert not fs.exists(tftp_server.url("missing"))


@pytest.mark.parametrize(
    ("start", "end"), [(10, 20), (None, 20), (10, None), (-5, None), (None, -5), (-10, -5), (90, 999)]
)
def test_slices(tftp_server, start, end):
    tftp_server.files["x"] = bytes(range(100))
    assert fsspec.filesystem("tftp").cat_file(tftp_server.url("x"), start, end) == bytes(range(100))[start:end]


def test_slices_size_and_settings(tftp_server):
    tftp_server.files["x"] = bytes(range(100))
    fs = fsspec.filesystem("tftp", blksize=512, windowsize=1)
    assert fs.cat_file(tftp_server.url("x"), 10, 20) == bytes(range(10, 20))
    assert fs.size(tftp_server.url("x")) == 100
    assert "blksize" not in tftp_server.requests[-1].options


def test_blocks_are_read(tftp_server):
    tftp_server.files["x"] = b"one\ntwo\nthree\n"
    fs = fsspec.filesystem("tftp")
    assert fs.read_block(tftp_server.url("x"), 0, 5, delimiter=b"\n") == b"one\ntwo\n"
    assert fs.read_block(tftp_server.url("x"), 4, None) == b"two\nthree\n"
    assert fs.head(tftp_server.url("x"), 3) == b"one"
    assert fs.tail(tftp_server.url("x"), 6) == b"three\n"


@pytest.mark.parametrize("cache", ["simplecache", "filecache"])
def test_whole_file_caches_fetch_once(tftp_server, tmp_path, cache):
    tftp_server.files["x"] = CONTENT
    url = f"{cache}::{tftp_server.url('x')}"
    fetched = []
    for _ in range(2):
        with fsspec.open(url, "rb", **{cache: {"cache_storage": str(tmp_path)}}) as file:
            assert file.read() == CONTENT
        fetched.append(sum("blksize" in request.options for request in tftp_server.requests))
    assert fetched == [1, 1]


def test_cache_of_blocks_is_refused_with_the_reason(tftp_server, tmp_path):
    tftp_server.files["x"] = CONTENT
    opened = fsspec.open(f"blockcache::{tftp_server.url('x')}", "rb", blockcache={"cache_storage": str(tmp_path)})
    with pytest.raises(AttributeError, match="fetches no blocks: use filecache"), opened:
        pass


# --- asking


def test_size_and_existence_cost_no_data():
    def script(talk: Talk) -> None:
        talk.oack(tsize=5_000_000_000)
        assert talk.hear_error() == 0

    with fake_server(script) as server:
        fs = fsspec.filesystem("tftp")
        url = server.url("x")
        assert fs.info(url) == {"name": url, "size": 5_000_000_000, "type": "file"}
        assert fs.size(url) == 5_000_000_000
        assert fs.exists(url)
        assert fs.isfile(url)


def test_size_is_counted_where_the_server_tells_none():
    def script(talk: Talk) -> None:
        if len(talk.request.options) > 1:
            talk.serve(CONTENT)
        else:
            talk.data(1, CONTENT[:512])
            assert talk.hear_error() == 3

    with fake_server(script) as server:
        assert fsspec.filesystem("tftp").size(server.url("x")) == len(CONTENT)
    assert len(server.requests) == 2


def test_server_that_does_not_answer_is_no_missing_file(dead_url):
    for ask in (impatient().exists, impatient().isfile, impatient().lexists):
        with pytest.raises(TransferTimedOut):
            ask(dead_url)


def test_refusal_for_another_reason_is_no_missing_file():
    with fake_server(lambda talk: talk.error(2, "no")) as server, pytest.raises(TransferRefused, match="ERROR 2"):
        fsspec.filesystem("tftp").exists(server.url("x"))


def test_there_are_no_directories_and_nobody_is_asked(dead_url):
    assert not impatient().isdir(dead_url)
    with pytest.raises(ValueError, match="no file name"):
        impatient().info(dead_url[:-1])


def test_listing_is_not_invented(tftp_server):
    with pytest.raises(NotImplementedError):
        fsspec.filesystem("tftp").ls(tftp_server.url(""))


# --- options


@pytest.mark.parametrize("option", ["blksise", "host", "trusted"])
def test_unknown_option_is_refused(tftp_server, option):
    with pytest.raises(TypeError, match=option):
        fsspec.filesystem("tftp", **{option: 512})
    with pytest.raises(TypeError, match=option):
        fsspec.open(tftp_server.url("x"), "rb", **{option: 512})
    with pytest.raises(TypeError, match=option):
        fsspec.filesystem("tftp").open(tftp_server.url("x"), "rb", **{option: 512})


def test_option_out_of_its_range_is_refused_at_once():
    with pytest.raises(ConfigError, match="blksize"):
        fsspec.filesystem("tftp", blksize=7)


def test_options_of_every_file_system_are_taken():
    assert fsspec.filesystem("tftp", skip_instance_cache=True, use_listings_cache=False, windowsize=2)


def test_file_system_is_pickled_with_its_settings(tftp_server):
    tftp_server.files["x"] = CONTENT
    fs = pickle.loads(pickle.dumps(fsspec.filesystem("tftp", blksize=1024)))
    assert fs.cat_file(tftp_server.url("x")) == CONTENT
    assert tftp_server.requests[-1].options["blksize"] == "1024"
    assert fsspec.AbstractFileSystem.from_json(fs.to_json()).storage_options == {"blksize": 1024}


# --- copying


def test_get_file_copies_to_a_path(tftp_server, tmp_path):
    tftp_server.files["x"] = CONTENT
    fs = fsspec.filesystem("tftp")
    fs.get_file(tftp_server.url("x"), str(tmp_path / "one"))
    fs.get(tftp_server.url("x"), str(tmp_path / "two"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == CONTENT


def test_missing_file_is_not_copied_as_an_empty_one(tftp_server, tmp_path):
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("tftp").get_file(tftp_server.url("missing"), str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []
