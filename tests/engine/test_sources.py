"""Open files: shared while they are used, kept for a while afterwards, and never too many of them."""

import contextlib
from pathlib import Path

from tests.support.client import Client

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
