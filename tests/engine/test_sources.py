"""Open files: shared while they are used, kept for a while afterwards, and never too many of them."""

import contextlib
import errno
import hashlib
import os
import resource
from pathlib import Path

import pytest
from tests.support.attacks import Forger, rrq
from tests.support.client import Client, Refused

from snow_owl_tftp.plan.transfer import Outcome, Role, TransferPlan
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import (
    Data,
    Oack,
    build_ack,
    build_error,
    build_oack,
    build_request,
    parse_untrusted,
)

FILES = 300
LONG_NS = 10**12
CONTENT = bytes(i * 7 + (i >> 8) & 0xFF for i in range(100_000))


def descriptors_below(folder):
    """How many descriptors of this process lead to files in `folder`."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += folder in link.readlink().parents
    return found


@pytest.fixture
def few_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(descriptors):
        assert len(list(Path("/proc/self/fd").iterdir())) < 100, "the test's own leave room"
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("flows", [True, False])
@pytest.mark.parametrize(("descriptors", "most"), [(280, 140), (200, 72)])
def test_a_file_for_every_machine_does_not_use_up_the_descriptors(
    few_descriptors, serve, tmp_path, flows, descriptors, most
):
    few_descriptors(descriptors)
    served = serve(source_linger_ns=LONG_NS, flows=flows)
    for i in range(FILES):
        (tmp_path / f"{i:05}").write_bytes(b"%d" % i)
    with Client(served.address) as client:
        for i in range(FILES):
            assert client.get(f"{i:05}").payload == b"%d" % i
        served.completion(total=FILES)
        served.wait(lambda: descriptors_below(tmp_path) == most, "the least recently used to be closed")
        assert served.counter("files_open") == most
        assert served.counter("files_evicted") == FILES - most
        assert client.get("00000").payload == b"0", "an evicted one is opened anew"
        assert client.get("00299").payload == b"299"
    served.completion(total=FILES + 2)
    assert served.requests == (FILES + 1 if flows else FILES + 2)


def test_silent_requests_for_a_file_each_give_way_before_the_descriptors_are_used_up(few_descriptors, serve, tmp_path):
    few_descriptors(280)
    served = serve(half_open_give_up_ns=LONG_NS)
    for i in range(FILES):
        (tmp_path / f"{i:05}").write_bytes(b"%d" % i)
    with contextlib.closing(Forger(served.address[1])) as silent:
        for i in range(FILES):
            silent.send(rrq(f"{i:05}"), number=i)
            assert parse_untrusted(silent.receive()) == Data(1, b"%d" % i), "a newcomer is not locked out"
    assert FILES - 160 < served.counter("transfers_gave_way") < FILES - 120, "the oldest, one for each beyond the bound"
    with Client(served.address) as client:
        assert client.get("00007").payload == b"7"


def test_a_flow_keeps_no_file_open_longer_than_it_lingers(serve, tmp_path):
    served = serve(source_linger_ns=0, flows=True)
    (tmp_path / "file").write_bytes(CONTENT)
    with Client(served.address) as client:
        for asked in range(1, 4):
            assert client.get("file").payload == CONTENT
            served.completion(total=asked)
            served.wait(lambda: descriptors_below(tmp_path) == 0, "the file to be closed")
            assert served.requests == asked, "what is closed has to be opened by Python"


def test_a_flow_uses_a_file_that_lingers(serve, tmp_path):
    served = serve(source_linger_ns=LONG_NS, flows=True)
    (tmp_path / "file").write_bytes(CONTENT)
    with Client(served.address) as client:
        for asked in range(1, 4):
            assert client.get("file").payload == CONTENT
            served.completion(total=asked)
            served.wait(lambda: served.engine.live_objects()["sources"] == 0, "the file to be unused")
    assert served.requests == 1
    assert descriptors_below(tmp_path) == 1


def test_a_deleted_file_is_closed_when_it_is_asked_for_again(serve, tmp_path):
    served = serve(source_linger_ns=LONG_NS, flows=True)
    (tmp_path / "file").write_bytes(CONTENT)
    with Client(served.address) as client:
        client.get("file")
        served.completion()
        (tmp_path / "file").unlink()
        with pytest.raises(Refused):
            client.get("file")
    served.wait(lambda: descriptors_below(tmp_path) == 0, "the deleted file to be closed")


def test_a_file_that_is_deleted_while_it_is_sent_does_not_linger(serve, tmp_path):
    served = serve(source_linger_ns=LONG_NS)
    (tmp_path / "file").write_bytes(CONTENT)
    with Client(served.address) as client:
        got = client.get("file", on_block=lambda index: (tmp_path / "file").unlink(missing_ok=True))
    assert got.payload == CONTENT
    served.wait(lambda: descriptors_below(tmp_path) == 0, "the deleted file to be closed")


def test_a_file_in_memory_is_shared_and_does_not_linger(serve):
    """Its maker counts its memory until the last user has gone; who gave up early never looked at its links."""
    fd = os.memfd_create("copy")
    os.write(fd, bytes(1000))
    served = serve(source_linger_ns=LONG_NS)
    served.on_request = lambda event, request: TransferPlan(
        event.transfer_id, Role.SENDER, os.dup(fd), 1000, context="copy"
    )
    with Client(served.address) as early, Client(served.address) as whole, Client(served.address) as late:
        early.request("copy")
        early.receive()
        assert whole.get("copy").payload == bytes(1000)  # and its links were looked at
        late.request("copy")
        late.receive()
        assert served.counter("files_open") == 1
        for client in (early, late):
            client.send(build_error(0, "enough"), client.last_sender)
        served.completion(total=3)
        served.wait(lambda: served.counter("files_open") == 0, "the file to be closed")
    os.close(fd)


def test_a_lingering_file_is_used_again_and_a_replaced_one_is_not(serve, tmp_path):
    served = serve(source_linger_ns=LONG_NS)
    (tmp_path / "file").write_bytes(b"old")
    with Client(served.address) as client:
        assert client.get("file").payload == b"old"
        assert client.get("file").payload == b"old"
        served.wait(lambda: descriptors_below(tmp_path) == 1, "the second descriptor to be closed")
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(tmp_path / "file")
        assert client.get("file").payload == b"new"
    served.completion(total=3)


def test_a_file_with_another_ctime_is_opened_anew(serve, tmp_path):
    """Size and mtime can be put back, and then only ctime tells."""
    served = serve(source_linger_ns=LONG_NS)
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


# --- files that cannot be mapped -----------------------------------------------------------------------

CHUNK = 512 << 10
CHUNKS = 300  # more than the engine keeps copies of: 256
SPARSE_BYTES = CHUNKS * CHUNK + 100
BLKSIZE = 65464


@pytest.fixture
def sparse():
    """A file on tmpfs: a few bytes at the start of each chunk, and holes. Yields its descriptor and its hash."""
    fd = os.memfd_create("sparse")
    os.ftruncate(fd, SPARSE_BYTES)
    for i in range(0, CHUNKS, 3):
        os.pwrite(fd, b"chunk %d" % i, i * CHUNK)
    told = hashlib.sha256()
    for offset in range(0, SPARSE_BYTES, 1 << 24):
        told.update(os.pread(fd, 1 << 24, offset))
    yield fd, told.hexdigest()
    os.close(fd)


def serve_descriptor(serve, fd, take=lambda served, plan: plan):
    def plan(event, request):
        made = TransferPlan(
            transfer_id=event.transfer_id,
            role=Role.SENDER,
            fd=os.dup(fd),
            size_bytes=os.fstat(fd).st_size,
            blksize_bytes=BLKSIZE,
            windowsize_blocks=8,
            first_packet=build_oack([("blksize", str(BLKSIZE)), ("windowsize", "8")]),
            context="sparse",
        )
        return take(served, made)

    served = serve(source_linger_ns=LONG_NS)
    served.on_request = plan
    return served


def test_a_sparse_file_is_sent_without_filling_its_holes(serve, sparse):
    fd, told = sparse
    served = serve_descriptor(serve, fd)
    blocks = os.fstat(fd).st_blocks
    with Client(served.address) as client:
        got = client.get("sparse", options={"blksize": BLKSIZE})
    assert hashlib.sha256(got.payload).hexdigest() == told
    assert os.fstat(fd).st_blocks == blocks


def test_a_chunk_whose_copy_had_to_go_is_read_again(serve, sparse):
    fd, told = sparse
    served = serve_descriptor(serve, fd)
    with Client(served.address) as slow, Client(served.address) as client:
        passed = []

        def overtake(index):
            if index == 10:
                passed.append(client.get("sparse", options={"blksize": BLKSIZE}).payload)

        got = slow.get("sparse", options={"blksize": BLKSIZE}, on_block=overtake)
    assert hashlib.sha256(got.payload).hexdigest() == hashlib.sha256(passed[0]).hexdigest() == told
    served.completion(total=2)
    assert served.counter("file_copies") > CHUNKS + 1, "256 of them were kept"
    served.wait(lambda: served.counter("files_open") == 0, "the copies to go with their last user")


@pytest.mark.parametrize("size", [(64 << 40) + 1, 1 << 51, (1 << 51) + 600_000, (1 << 63) - 4096])
def test_a_file_of_holes_that_is_larger_than_can_be_mapped_is_refused(serve, size):
    """Its chunks have numbers that no table holds."""

    def refuse(served, plan):
        with pytest.raises(OSError, match="cannot be sent") as caught:
            served.engine.start(plan)
        served.engine.refuse(plan.transfer_id, build_error(2, errno.errorcode[caught.value.errno]))

    with os.fdopen(os.memfd_create("huge"), "r+b") as huge:
        os.ftruncate(huge.fileno(), size)
        served = serve_descriptor(serve, huge.fileno(), refuse)
        with Client(served.address) as client, pytest.raises(Refused, match="EFBIG"):
            client.get("huge")
    assert served.counter("transfers_started") == 0


def test_the_largest_file_of_holes_is_begun(serve):
    with os.fdopen(os.memfd_create("large"), "r+b") as large:
        os.ftruncate(large.fileno(), 64 << 40)
        served = serve_descriptor(serve, large.fileno())
        with Client(served.address) as client:
            packet, peer = client.exchange(build_request(Opcode.RRQ, "large", options=[("blksize", str(BLKSIZE))]))
            assert isinstance(packet, Oack)
            client.send(build_ack(0), peer)
            assert client.receive_packet()[0] == Data(1, bytes(BLKSIZE))
            client.send(build_error(0, "enough"), peer)
        served.completion()
