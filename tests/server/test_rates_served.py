"""Limits a second as an operator sets them: each key does something, is told, is counted, and changes at SIGHUP."""

import json
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Address, Client, Refused, Silence
from tests.support.namespaces import Host
from tests.support.server import serve_command, serve_in_thread, wait_for

SMALL = bytes(400)
LARGE = bytes(300_000)
A_NAME = "a-name-that-is-long-enough-for-the-text"
BUSY = "Too many requests, try again later"
OTHER = "127.0.3.1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / A_NAME).write_bytes(SMALL)
    (tmp_path / "root/large").write_bytes(LARGE)
    return tmp_path / "root"


def outcomes(address: Address, requests: int, source: str) -> list[str]:
    """What so many requests come to: "ok", the text of an ERROR, or "" for silence."""
    found = []
    for _ in range(requests):
        with Client(address, source=source, give_up_s=0.3) as client:
            try:
                client.get(A_NAME)
                found.append("ok")
            except Refused as error:
                found.append(str(error))
            except Silence:
                found.append("")
    return found


@pytest.mark.parametrize(
    ("key", "reaches_others"),
    [
        ("max_requests_per_s_per_client", False),
        ("max_requests_per_s_per_network", False),
        ("max_requests_per_s", True),
    ],
)
def test_beyond_a_rate_a_client_is_told_to_come_later(root: Path, key: str, reaches_others: bool) -> None:
    with serve_in_thread(root, {f"limits.{key}": 4, "logging.level": "error"}) as served:
        asked = outcomes(served.address, 12, "127.0.2.1")
        others = outcomes(served.address, 12 if reaches_others else 2, OTHER)
    assert asked[0] == "ok"
    assert any(BUSY in outcome for outcome in asked)
    assert any(BUSY in outcome for outcome in others) == reaches_others
    assert served.server.tally.limits[key] == sum(BUSY in outcome for outcome in asked + others)


@pytest.mark.parametrize(
    ("bind", "same", "other"),
    [
        ("127.0.0.1", ["127.5.5.0", "127.5.5.255"], "127.5.4.255"),
        ("::1", ["fd00:0:0:100::1", "fd00:0:0:1ff:ffff::1"], "fd00:0:0:0ff::1"),
        ("::1", ["fd00:0:0:100::2", "fd00:0:0:1ff:ffff::2"], "fd00:0:0:200::1"),
    ],
)
def test_a_network_is_a_24_and_of_ipv6_a_56(root: Path, bind: str, same: list[str], other: str) -> None:
    host = Host()
    host.ip("link", "set", "lo", "up")
    for address in (*same, other) if ":" in other else ():
        host.ip("addr", "add", f"{address}/128", "dev", "lo", "nodad")

    def ask() -> list[list[str]]:
        bound = f"[{bind}]:0" if ":" in bind else f"{bind}:0"
        settings = {"bind_addr": bound, "limits.max_requests_per_s_per_network": 8, "logging.level": "error"}
        with serve_in_thread(root, settings) as served:
            (address,) = served.server.addresses
            return [outcomes(address[:2], 24 if source == same[1] else 4, source) for source in (*same, other)]

    first, second, apart = host.run(ask)
    refused = [any(BUSY in outcome for outcome in asked) for asked in (first, second, apart)]
    assert refused == [False, True, False]
    assert "ok" in apart


@pytest.mark.parametrize("key", ["max_bytes_per_s_per_client", "max_bytes_per_s_per_network", "max_bytes_per_s"])
def test_bytes_a_second_are_a_setting(root: Path, key: str) -> None:
    with serve_in_thread(root, {f"limits.{key}": 100_000, "logging.level": "error"}) as served:
        began_s = time.monotonic()
        with Client(served.address, timeout_s=5) as client:
            assert client.get("large").payload == LARGE
        took_s = time.monotonic() - began_s
    assert 1.7 < took_s < 4
    assert served.server.tally.limits[key] > 100


def test_answers_to_strangers_are_a_setting(root: Path) -> None:
    with serve_in_thread(root, {"limits.max_unproven_bytes_per_s": 600, "logging.level": "error"}) as served:
        assert outcomes(served.address, 1, OTHER) == ["ok"]
        assert outcomes(served.address, 3, OTHER) == ["ok"] * 3, "a network that was served"
        time.sleep(1.1)  # the bucket is full again
        with ExitStack() as stack:
            silent = [stack.enter_context(Client(served.address, source=f"127.9.{net}.1")) for net in range(12)]
            for client in silent:
                client.request(A_NAME)
            heard = 0
            for client in silent:
                with suppress(Silence):
                    client.receive(0.1)
                    heard += 1
        assert 1 <= heard < 6
        assert outcomes(served.address, 3, OTHER) == ["ok"] * 3


@pytest.mark.parametrize("key", ["max_transfers_per_network", "max_half_open_per_network"])
def test_what_a_network_holds_is_a_setting(root: Path, key: str) -> None:
    with serve_in_thread(root, {f"limits.{key}": 2, "logging.level": "error"}) as served, ExitStack() as stack:
        for host in range(1, 6):
            client = stack.enter_context(Client(served.address, source=f"127.9.9.{host}"))
            client.request("large")
            client.receive_packet()
        wait_for(lambda: served.server.counters()["transfers_gave_way"] == 3, "three give way")
        assert outcomes(served.address, 1, OTHER) == ["ok"]


def events_of(audit: Path, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    return [event for event in events if event["event_type"] == kind]


def test_refusals_and_pacing_are_logged_audited_and_counted_once_each(root: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    settings = {
        "limits.max_requests_per_s_per_client": 5,
        "limits.max_bytes_per_s": 150_000,
        "logging.audit_enabled": True,
        "logging.audit_file": str(audit),
        "logging.level": "info",
    }
    with serve_in_thread(root, settings) as served:
        with Client(served.address, source=OTHER, timeout_s=5) as client:
            client.get("large")
        asked = outcomes(served.address, 30, "127.0.2.1")
    refused = sum(BUSY in outcome for outcome in asked)
    assert refused > 5
    told = events_of(audit, "requests_refused")
    assert {event["limit"] for event in told} == {"max_requests_per_s_per_client"}
    assert sum(event["count"] for event in told) == refused
    paced = events_of(audit, "transfers_paced")
    assert {event["limit"] for event in paced} == {"max_bytes_per_s"}
    assert len(paced) == 2, "at once, and at the end: once a minute"
    lines = served.log.splitlines()
    assert sum("transfers held back by a limit" in line for line in lines) == 2
    assert all("INFO" in line for line in lines if "transfers held back" in line)
    figures = served.server.tally.figures()["limits"]
    assert f"max_requests_per_s_per_client:{refused}" in figures
    assert f"max_bytes_per_s:{sum(event['count'] for event in paced)}" in figures


HELD = ["max_transfers", "max_half_open"]
HELD_BY = [f"{limit}{holder}" for limit in HELD for holder in ("", "_per_client", "_per_network")]


@pytest.mark.parametrize("limit", HELD_BY)
def test_who_gives_way_is_told_by_the_limit(root: Path, tmp_path: Path, limit: str) -> None:
    """No request is refused, so nothing else says that the limit was reached."""
    audit = tmp_path / "audit"
    told = {"logging.audit_enabled": True, "logging.audit_file": str(audit), "logging.level": "warning"}
    with serve_in_thread(root, {f"limits.{limit}": 2, **told}) as served, ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(Client(served.address))
            client.request("large")
            client.receive_packet()
        wait_for(lambda: served.server.counters()["transfers_gave_way"] == 2, "two give way")
        wait_for(lambda: len(events_of(audit, "transfer_failed")) == 2, "the events")
    reason = f"gave way to another ({limit}): its client had answered nothing"
    assert [event["reason"] for event in events_of(audit, "transfer_failed")[:2]] == [reason] * 2
    assert served.log.count(f'reason="{reason}"') == 2


def test_the_last_line_names_the_limits_that_were_reached(root: Path, tmp_path: Path) -> None:
    (tmp_path / "owl.toml").write_text("limits.max_requests_per_s_per_client = 2\n")
    with serve_command(root, "--config", str(tmp_path / "owl.toml")) as server:
        asked = outcomes(server.address, 6, "127.0.0.1")
    refused = sum(BUSY in outcome for outcome in asked)
    assert f"limits=max_requests_per_s_per_client:{refused}" in server.log.splitlines()[-1]


def test_rates_change_at_sighup_and_running_transfers_go_on(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    config.write_text("limits.max_bytes_per_s = 50_000\n")
    with serve_command(root, "--config", str(config)) as server, Client(server.address, timeout_s=5) as client:
        client.request("large", options={"blksize": 1428})
        _, tid = client.receive_packet()
        from snow_owl_tftp.protocol.packets import build_ack

        client.send(build_ack(0), tid)
        began_s = time.monotonic()
        for block in range(1, 212):
            packet, _ = client.receive_packet(10)
            assert packet.block == block
            client.send(build_ack(block), tid)
            if block == 60:
                config.write_text("limits.max_requests_per_s = 1\n")
                os.kill(server.process.pid, signal.SIGHUP)
        assert time.monotonic() - began_s < 4, "at the old rate it would be five seconds"
        wait_for(lambda: "settings reloaded" in server.log, "the reload")
        assert "changed=limits.max_bytes_per_s,limits.max_requests_per_s" in server.log
        assert "restart needed" not in server.log
        assert any(BUSY in outcome for outcome in outcomes(server.address, 5, "127.0.4.1"))
