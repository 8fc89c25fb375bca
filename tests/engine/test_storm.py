"""Many clients at once: one copy of a file, trains on every kind of socket, workers that share the load, limits."""

import contextlib
import threading
import time
from collections import Counter

import pytest
from tests.support.client import Client

from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Data, Error, build_ack, build_error, build_request

# Byte i is i * 7 + (i >> 9), made by pieces of 512: every process of a run reads this file.
PIECES = [bytes(i * 7 + shift & 0xFF for i in range(512)) for shift in range(256)]
CONTENT = b"".join(PIECES[i & 0xFF] for i in range(-(-2_000_000 // 512)))[:2_000_000]


def test_fifty_clients_of_a_file_share_one_copy(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve()
    open_sources = []
    everybody = threading.Barrier(50, action=lambda: open_sources.append(served.engine.live_objects()["sources"]))
    wrong = []

    def fetch():
        with Client(served.address) as client:
            got = client.get(
                "file",
                options={"blksize": 8192, "windowsize": 8},
                on_block=lambda index: everybody.wait(20) if index == 1 else None,
            )
        if got.payload != CONTENT:
            wrong.append(len(got.payload))

    threads = [threading.Thread(target=fetch) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served.completion(total=50)
    assert (wrong, served.outcomes()) == ([], {"OK": 50})
    assert open_sources == [1]
    assert served.counter("file_loads") == 4, "each 512 KiB once, whoever asks"


@pytest.mark.parametrize(("host", "tids"), [("127.0.0.1", 0), ("::1", 4), ("::1", 0)])
def test_trains_leave_on_every_kind_of_socket(serve, tmp_path, host, tids):
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(host=host, tids=tids)
    with Client(served.address) as client:
        assert client.get("file", options={"blksize": 1200, "windowsize": 16}).payload == CONTENT
    assert served.counter("gso_trains") >= 100
    assert served.counter("gso_refused") == 0


# --- workers ---------------------------------------------------------------------------------------------


def test_ports_are_spread_evenly_over_the_workers(serve):
    served = serve(workers=2)
    with contextlib.ExitStack() as opened:
        for _ in range(400):
            opened.enter_context(Client(served.address)).request("missing")
        served.wait(lambda: served.requests == 400)
        shares = [served.engine.counters(worker)["requests"] for worker in range(2)]
    assert all(140 <= share <= 260 for share in shares), shares  # 30 %; the deviation of a fair coin is 10


def test_a_peer_stays_on_its_worker(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:5000])
    served = serve(workers=2)
    with contextlib.ExitStack() as opened:
        for client in [opened.enter_context(Client(served.address)) for _ in range(40)]:
            for windowsize in (1, 4, 1):
                got = client.get("file", options={"blksize": 500, "windowsize": windowsize})
                assert got.payload == CONTENT[:5000]
    served.completion(total=120)
    assert served.counter("strays") == 0
    homes = {(completion.peer[1], completion.worker) for completion in served.completions}
    assert len(homes) == 40, "each TID was served by one worker"
    assert set(Counter(worker for _, worker in homes)) == {0, 1}


# --- limits and clocks -----------------------------------------------------------------------------------


def test_more_requests_than_python_may_owe_are_refused_with_the_reason(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:100])
    served = serve(max_pending_requests=3)
    pending = []
    served.on_request = lambda event, request: pending.append(event.transfer_id)
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(Client(served.address)) for _ in range(4)]
        for client in clients[:3]:
            client.request("file")
        served.wait(lambda: len(pending) == 3)
        packet, _ = clients[3].exchange(build_request(Opcode.RRQ, "file"))
        assert isinstance(packet, Error)
        assert (packet.code, packet.text) == (0, "server busy: requests are queueing, try again later")
        served.engine.refuse(pending[0], build_error(1, "no"))
        assert clients[0].receive_packet()[0].code == 1
        served.on_request = None
        assert clients[3].get("file").payload == CONTENT[:100], "one is answered: there is room for one"
    assert served.counter("requests_refused_busy") == 1
    served.completion()


def test_a_negotiated_timeout_repeats_each_second_and_never_doubles(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:100])
    served = serve()
    with Client(served.address) as client:
        client.request("file", options={"timeout": 1})
        _, peer = client.receive_packet()
        client.send(build_ack(0), peer)
        heard_at = []
        for _ in range(4):
            packet, _ = client.receive_packet(3)
            assert isinstance(packet, Data)
            heard_at.append(time.monotonic())
        client.send(build_ack(1), peer)
    after_s = [at - heard_at[0] for at in heard_at[1:]]
    assert after_s == pytest.approx([1, 2, 3], abs=0.4)
    assert served.completion().retransmits == 3
