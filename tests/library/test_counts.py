"""`Server.counts()`: what a program learns of its server's requests and transfers, and when."""

import asyncio
import dataclasses
import os
import threading
from contextlib import nullcontext
from functools import partial

import pytest
from tests.support.client import Client as RawClient
from tests.support.server import wait_for

from snow_owl_tftp import AsyncClient, Counts, Refuse, Response, Server, TransferRefused, get
from snow_owl_tftp.errors import ForkedError, TransferError
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.packets import Data, build_ack, build_error

OUTCOMES = {outcome.name.lower() for outcome in Outcome} | {"size_probe"}


async def eventually(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - any condition, and a deadline
            await asyncio.sleep(0.005)


def answer(request):
    if request.path == "absent":
        return Refuse(1, "File not found")
    if request.path == "broken":
        raise LookupError("a defect of the program")
    return Response(bytes(2000))


async def test_a_server_that_nobody_has_asked_counts_nothing() -> None:
    async with Server(read=answer) as server:
        counts = server.counts()
    assert counts.transfers.keys() == OUTCOMES
    assert not any(counts.transfers.values())
    assert (dict(counts.refusals), dict(counts.limits)) == ({}, {})


async def test_each_ending_and_each_refusal_has_its_name() -> None:
    async with Server(read=answer) as server, AsyncClient() as client:
        for _ in range(3):
            await client.get(server.url("x"))
        for _ in range(2):
            with pytest.raises(TransferRefused):
                await client.get(server.url("absent"))
        with RawClient(server.address) as raw:
            raw.request("broken")
            await asyncio.to_thread(raw.receive)
            raw.send(b"\0\1no mode")
            await asyncio.to_thread(raw.receive)
        await eventually(lambda: server.counts().transfers["ok"] == 3)
        counts = server.counts()
    assert sum(counts.transfers.values()) == 3
    assert counts.refusals == {"file_not_found": 2, "internal": 1, "malformed": 1}


async def test_a_size_probe_is_no_error_of_the_peer() -> None:
    async with Server(read=answer) as server:
        with RawClient(server.address) as raw:
            raw.request("x", options={"tsize": 0})
            _, peer = await asyncio.to_thread(raw.receive_packet)
            raw.send(build_error(8, "only the size"), peer)
            await eventually(lambda: server.counts().transfers["size_probe"] == 1)
        with RawClient(server.address) as raw:
            raw.request("x")
            packet, peer = await asyncio.to_thread(raw.receive_packet)
            assert packet == Data(1, bytes(512))
            raw.send(build_ack(1), peer)
            await asyncio.to_thread(raw.receive_packet)
            raw.send(build_error(0, "enough"), peer)
            await eventually(lambda: server.counts().transfers["peer_error"] == 1)
    assert server.counts().transfers["size_probe"] == 1


async def test_what_a_limit_keeps_from_the_handler_is_counted_by_its_name() -> None:
    asked = []

    def note(request):
        asked.append(request.path)
        return Response(b"x")

    async with Server(read=note, settings={"limits.max_requests_per_s_per_client": 1}) as server:
        with RawClient(server.address) as raw:
            for number in range(50):
                raw.request(f"file {number}")
            await eventually(lambda: sum(server.counts().limits.values()) + len(asked) == 50)
        assert server.counts().limits.keys() == {"max_requests_per_s_per_client"}


async def test_counts_do_not_change_once_they_are_had() -> None:
    async with Server(read=answer) as server, AsyncClient() as client:
        before = server.counts()
        await client.get(server.url("x"))
        await eventually(lambda: server.counts() != before)
        assert before.transfers["ok"] == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.transfers = {}  # type: ignore[misc]
    with pytest.raises(TypeError):
        before.transfers["ok"] = 1  # type: ignore[index]


def has_served(server: Server, times: int) -> bool:
    return server.counts().transfers["ok"] == times


def test_counts_outlive_a_stop_and_go_on_after_another_start() -> None:
    server = Server(read=answer)
    for times in (1, 2):
        with server:
            get(server.url("x"))
            wait_for(partial(has_served, server, times), "the last ACK to be heard")
        assert server.counts().transfers["ok"] == times


def test_another_thread_may_ask_while_requests_are_counted() -> None:
    ended, seen = threading.Event(), []
    with Server(read=answer) as server:

        def look() -> None:
            while not ended.is_set():
                seen.append(server.counts())

        looking = threading.Thread(target=look)
        looking.start()
        for number in range(30):
            with pytest.raises(TransferError) if number % 2 else nullcontext():
                get(server.url("absent" if number % 2 else "x"))
        wait_for(lambda: server.counts().transfers["ok"] == 15, "the last ACK to be heard")
        ended.set()
        looking.join()
    assert all(isinstance(counts, Counts) for counts in seen)
    totals = [sum(counts.transfers.values()) + sum(counts.refusals.values()) for counts in seen]
    assert totals == sorted(totals), "they only grow"
    counts = server.counts()
    assert (counts.transfers["ok"], counts.refusals["file_not_found"]) == (15, 15)


def test_a_child_that_was_forked_cannot_ask() -> None:
    with Server(read=answer) as server:
        pid = os.fork()
        if not pid:
            try:
                server.counts()
            except ForkedError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
