"""Open files: shared while they are used, kept for a while afterwards, and never too many of them."""

import contextlib
import os
from pathlib import Path

from tests.support.client import Client

from snow_owl_tftp.plan import Outcome

FILES = 600
MAX_IDLE = 512  # store.pyx


def descriptors_below(folder):
    """How many descriptors of this process lead to files in `folder`."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += folder in link.readlink().parents
    return found


def test_a_file_for_every_machine_does_not_use_up_the_descriptors(serve, tmp_path):
    served = serve(source_linger_ns=10**12)
    for i in range(FILES):
        (tmp_path / f"{i:05}").write_bytes(b"%d" % i)
    with Client(served.address) as client:
        for i in range(FILES):
            assert client.get(f"{i:05}").payload == b"%d" % i
    served.completion(total=FILES)
    served.wait(lambda: descriptors_below(tmp_path) == MAX_IDLE, "the oldest to be closed")


def test_a_lingering_file_is_used_again_and_a_replaced_one_is_not(serve, tmp_path):
    served = serve(source_linger_ns=10**12)
    (tmp_path / "file").write_bytes(b"old")
    with Client(served.address) as client:
        assert client.get("file").payload == b"old"
        assert client.get("file").payload == b"old"
        assert descriptors_below(tmp_path) == 1
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(tmp_path / "file")
        assert client.get("file").payload == b"new"
    served.completion(total=3)


def test_a_file_with_another_ctime_is_opened_anew(serve, tmp_path):
    """Size and mtime can be put back, and then only ctime tells."""
    served = serve(source_linger_ns=10**12)
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        path.write_bytes(content)
        os.utime(path, (1, 1))
        with Client(served.address) as client:
            assert client.get("file").payload == content
    assert descriptors_below(tmp_path) == 2
    served.completion(total=2)


def test_a_transfer_goes_on_when_its_file_gets_a_link_and_other_permissions(serve, tmp_path):
    served = serve()
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))

    def touch(index):
        if index == 50:
            path.chmod(0o444)
            (tmp_path / "link").hardlink_to(path)

    with Client(served.address) as client:
        assert client.get("file", on_block=touch).payload == bytes(100_000)
    assert served.completion().outcome == Outcome.OK
