"""limits of a rule as an operator sets them: who is refused, who waits, who is told, and what a reload changes."""

import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.server.test_rates_served import events_of, outcomes
from tests.support.client import Address, Client, Refused
from tests.support.server import serve_command, wait_for

from snow_owl_tftp.protocol.packets import Data, Error, build_ack

A_NAME = "a-name-that-is-long-enough-for-the-text"
SMALL, LARGE = bytes(400), bytes(300_000)
BUSY, MANY = "Too many requests, try again later", "too many transfers from your address, try again later"
HERE, ALSO, ELSEWHERE = "127.1.0.1", "127.1.0.2", "127.2.0.1"
CLIENTS = 'clients = ["127.1.0.0/16"]'
RULES = {
    "by address": CLIENTS,
    "by name": f'{CLIENTS}\npaths = ["a-*", "large", "backup/**"]',
    "by port": f"{CLIENTS}\nlisten = ['127.0.0.1']",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/backup").mkdir(parents=True)
    (tmp_path / "root" / A_NAME).write_bytes(SMALL)
    (tmp_path / "root/other").write_bytes(SMALL)
    (tmp_path / "root/large").write_bytes(LARGE)
    return tmp_path / "root"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "owl.toml"


def flags(config: Path, *rules: str, before: str = "") -> list[str]:
    config.write_text(before + "".join(f"\n[[rules]]\n{rule}\n" for rule in rules))
    return ["--config", str(config)]


def limited(rule: str, limits: str) -> str:
    return f"{rule}\nlimits = {{ {limits} }}"


def begin(stack: ExitStack, address: Address, source: str, name: str = "large") -> Data | Error:
    """A transfer that has got its first block and acknowledged it; or what refused it."""
    client = stack.enter_context(Client(address, source=source))
    client.request(name)
    packet, tid = client.receive_packet()
    if isinstance(packet, Error):
        return packet
    client.send(build_ack(1), tid)
    packet, _ = client.receive_packet()
    assert isinstance(packet, Data)
    return packet


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_requests_a_second_of_each_client_of_the_rule(root: Path, config: Path, rule: str) -> None:
    with serve_command(root, *flags(config, limited(rule, "requests_per_s = 3"))) as server:
        asked = outcomes(server.address, 12, HERE)
        assert outcomes(server.address, 12, ELSEWHERE) == ["ok"] * 12, "of no rule"
        assert outcomes(server.address, 3, ALSO) == ["ok"] * 3, "another of its clients"
    assert asked[:3] == ["ok"] * 3
    refused = sum(BUSY in outcome for outcome in asked)
    assert refused >= 5
    assert refused + asked.count("ok") == 12
    assert f"limits=rules.limits.requests_per_s:{refused}" in server.log
    assert "rules.limits.requests_per_s" in server.log.partition("server stopped")[0], "a line of its own"


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_requests_for_what_is_not_there_are_counted(root: Path, config: Path, rule: str) -> None:
    with serve_command(root, *flags(config, limited(rule, "requests_per_s = 2"))) as server:
        codes = []
        for _ in range(8):
            with Client(server.address, source=HERE) as client, pytest.raises(Refused) as refused:
                client.get("a-file-with-a-long-name-that-is-nowhere")
            codes.append(refused.value.code)
    assert codes[:2] == [1, 1]
    assert 0 in codes[2:4]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_third_transfer_is_refused_to_a_client_of_the_rule_and_begins_for_another(
    root: Path, config: Path, rule: str
) -> None:
    with serve_command(root, *flags(config, limited(rule, "transfers = 2"))) as server, ExitStack() as stack:
        for source in (HERE, ALSO):
            assert [begin(stack, server.address, source).block for _ in range(2)] == [2, 2]
            third = begin(stack, server.address, source)
            assert (third.code, third.text) == (0, MANY)
        assert [begin(stack, server.address, ELSEWHERE).block for _ in range(3)] == [2] * 3
    assert "limits=rules.limits.transfers:2" in server.log


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_bytes_a_second_of_the_rule_pace(root: Path, config: Path, rule: str) -> None:
    with serve_command(root, *flags(config, limited(rule, "bytes_per_s = 100_000"))) as server:
        took_s = []
        for source in (ELSEWHERE, HERE):
            began_s = time.monotonic()
            with Client(server.address, source=source, timeout_s=5) as client:
                assert client.get("large").payload == LARGE
            took_s.append(time.monotonic() - began_s)
    assert took_s[0] < 1.5 < took_s[1] < 5
    assert "transfers held back by a limit" in server.log
    assert "rules.limits.bytes_per_s" in server.log
    assert "refusals=" not in server.log, "nobody was refused anything"


def test_names_of_other_rules_are_not_counted(root: Path, config: Path) -> None:
    rule = limited('paths = ["large"]', "requests_per_s = 1")
    with serve_command(root, *flags(config, rule)) as server:
        assert outcomes(server.address, 12, HERE) == ["ok"] * 12


def test_the_first_rule_that_fits_is_the_one_whose_limits_hold(root: Path, config: Path) -> None:
    few, many = limited(f'{CLIENTS}\npaths = ["large"]', "transfers = 1"), limited(CLIENTS, "transfers = 3")
    with serve_command(root, *flags(config, few, many)) as server, ExitStack() as stack:
        assert isinstance(begin(stack, server.address, HERE), Data)
        assert isinstance(begin(stack, server.address, HERE), Error)
        assert outcomes(server.address, 5, HERE) == ["ok"] * 5


BEFORE = "[limits]\nmax_requests_per_s_per_client = {of_client}\nmax_requests_per_s_per_network = {of_network}\n"


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("of_client", "of_rule"), [(4, 12), (12, 4)], ids=["more", "less"])
def test_a_rule_s_number_stands_for_that_of_every_client(
    root: Path, config: Path, rule: str, of_client: int, of_rule: int
) -> None:
    before = BEFORE.format(of_client=of_client, of_network=0)
    with serve_command(root, *flags(config, limited(rule, f"requests_per_s = {of_rule}"), before=before)) as server:
        at_once = {source: storm(server.address, source) for source in (HERE, ELSEWHERE)}
    assert of_rule <= at_once[HERE] <= of_rule * 1.8
    assert of_client <= at_once[ELSEWHERE] <= of_client * 1.8, "more for some is no more for others"


def storm(address: Address, source: str) -> int:
    """How many of 30 requests at once are served."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address, source=source)) for _ in range(30)]
        for client in clients:
            client.request(A_NAME)
        packets = [client.receive_packet()[0] for client in clients]
    return sum(isinstance(packet, Data) for packet in packets)


def test_the_network_s_number_holds_on(root: Path, config: Path) -> None:
    before = BEFORE.format(of_client=2, of_network=4)
    with serve_command(root, *flags(config, limited(CLIENTS, "requests_per_s = 1000"), before=before)) as server:
        assert 4 <= storm(server.address, HERE) <= 8
        assert "max_requests_per_s_per_network" in wait_log(server, "requests refused by a limit")


def wait_log(server: Any, text: str) -> str:
    wait_for(lambda: text in server.log, text)
    return str(server.log)


def test_more_transfers_than_every_client_has(root: Path, config: Path) -> None:
    before = "[limits]\nmax_transfers_per_client = 2\n"
    with (
        serve_command(root, *flags(config, limited(CLIENTS, "transfers = 4"), before=before)) as server,
        ExitStack() as stack,
    ):
        for source, most in ((HERE, 4), (ELSEWHERE, 2)):
            began = [isinstance(begin(stack, server.address, source), Data) for _ in range(6)]
            assert began == [True] * most + [False] * (6 - most)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_uploads_are_under_the_same_limits(root: Path, config: Path, rule: str) -> None:
    before = '[write_config]\nenabled = true\nallowed_patterns = ["**"]\non_existing = "replace"\n'
    limits = "requests_per_s = 1, bytes_per_s = 100_000"
    with serve_command(root, *flags(config, limited(rule, limits), before=before)) as server:
        began_s = time.monotonic()
        with Client(server.address, source=HERE, timeout_s=5) as client:
            client.put("backup/one", bytes(300_000))
        assert 1.7 < time.monotonic() - began_s < 5
        texts = puts(server.address, 8)
        assert set(texts) == {"", "Too many requests"}
        wait_for(lambda: "rules.limits.requests_per_s" in server.log, "it is told")


def puts(address: Address, total: int) -> list[str]:
    """What so many uploads in a row are refused with; empty: they are not."""
    texts = []
    for _ in range(total):
        with Client(address, source=HERE, timeout_s=5) as client:
            try:
                client.put("backup/two-longer", b"")
                texts.append("")
            except Refused as error:
                texts.append(error.text)
    return texts


def test_what_a_name_may_mean_besides_is_charged_once(root: Path, config: Path) -> None:
    """First as it was sent, then in lower case: two decisions by one rule."""
    before = '[names]\ncase = "lower"\n'
    rule = limited(RULES["by port"], "requests_per_s = 4")
    with serve_command(root, *flags(config, rule, before=before)) as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server.address, source=HERE)) for _ in range(6)]
        for client in clients:
            client.request(A_NAME.upper())
        packets = [client.receive_packet()[0] for client in clients]
    assert [type(packet) for packet in packets[:4]] == [Data] * 4
    assert Error in map(type, packets[4:])


def test_what_a_template_makes_is_under_the_same_limits(root: Path, config: Path, tmp_path: Path) -> None:
    pytest.importorskip("minijinja", reason="the extra `templates` is not installed")
    (tmp_path / "made.j2").write_text("x" * 2000)
    before = '[[templates]]\nmatch = "made"\ntemplate = "made.j2"\n'
    with (
        serve_command(root, *flags(config, limited(RULES["by port"], "transfers = 1"), before=before)) as server,
        ExitStack() as stack,
    ):
        assert isinstance(begin(stack, server.address, HERE, "made"), Data)
        assert isinstance(begin(stack, server.address, HERE, "made"), Error)
        assert isinstance(begin(stack, server.address, ALSO, "made"), Data)


def test_without_flows_too(root: Path, config: Path) -> None:
    """There are no classes then: each request is decided, and counted, by itself."""
    before = "[performance.platform.batch]\nenable_flows = false\n"
    rule = limited(CLIENTS, "requests_per_s = 3, transfers = 1")
    with serve_command(root, *flags(config, rule, before=before)) as server, ExitStack() as stack:
        assert isinstance(begin(stack, server.address, HERE), Data)
        assert begin(stack, server.address, HERE).text == MANY
        assert sum(BUSY in outcome for outcome in outcomes(server.address, 8, HERE)) >= 1


def test_two_workers_count_together(root: Path, config: Path) -> None:
    with (
        serve_command(root, *flags(config, limited(CLIENTS, "transfers = 3"), before="workers = 2\n")) as server,
        ExitStack() as stack,
    ):
        began = [isinstance(begin(stack, server.address, HERE), Data) for _ in range(10)]
    assert began == [True] * 3 + [False] * 7


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_refusals_are_audited_no_more_often_than_others(root: Path, config: Path, tmp_path: Path, rule: str) -> None:
    audit = tmp_path / "audit"
    before = f'[logging]\naudit_enabled = true\naudit_file = "{audit}"\n'
    with serve_command(root, *flags(config, limited(rule, "requests_per_s = 2"), before=before)) as server:
        refused = 30 - storm(server.address, HERE)
    told = events_of(audit, "requests_refused") + events_of(audit, "read_denied")
    assert sum(event.get("count", 1) for event in told) == refused
    names = [json.dumps(event) for event in told]
    assert all("rules.limits.requests_per_s" in text or '"rule": 1' in text for text in names)
    assert f"limits=rules.limits.requests_per_s:{refused}" in server.log


def test_sighup_swaps_limits_and_a_wrong_file_changes_nothing(root: Path, config: Path) -> None:
    def reload(text: str, says: str) -> None:
        config.write_text(text)
        seen = server.log.count(says)
        os.kill(server.process.pid, signal.SIGHUP)
        wait_for(lambda: server.log.count(says) > seen, says)

    def rule(limits: str) -> str:
        return f"[[rules]]\n{limited(CLIENTS, limits)}\n"

    def has(most: int) -> None:
        with ExitStack() as stack:
            began = [isinstance(begin(stack, server.address, HERE), Data) for _ in range(4)]
            assert began == [number < most for number in range(4)]
            for client in clients:  # an ERROR ends what runs
                client.close()

    clients: list[Client] = []
    with serve_command(root, *flags(config, limited(CLIENTS, "requests_per_s = 2"))) as server:
        assert storm(server.address, HERE) <= 4
        reload(rule("requests_per_s = 1_000_000"), "settings reloaded")  # the empty bucket fills in no time
        assert storm(server.address, HERE) == 30
        reload(rule("requests_per_s = 0"), "rules[1].limits.requests_per_s: expected 1..10000000000, got 0")
        assert storm(server.address, HERE) == 30
        reload("", "settings reloaded")
        assert storm(server.address, HERE) == 30
        reload(rule("transfers = 1"), "settings reloaded")
        has(1)


def test_a_transfer_that_runs_keeps_the_rate_it_began_with(root: Path, config: Path) -> None:
    with serve_command(root, *flags(config, limited(CLIENTS, "bytes_per_s = 100_000"))) as server:
        with Client(server.address, source=HERE, timeout_s=5) as client:
            began_s = time.monotonic()
            assert client.get("large").payload == LARGE
            assert time.monotonic() - began_s > 1.5
        config.write_text(f"[[rules]]\n{limited(CLIENTS, 'bytes_per_s = 100_000_000')}\n")
        os.kill(server.process.pid, signal.SIGHUP)
        wait_for(lambda: "settings reloaded" in server.log, "the reload")
        with Client(server.address, source=HERE, timeout_s=5) as client:
            began_s = time.monotonic()
            assert client.get("large").payload == LARGE
            assert time.monotonic() - began_s < 1.5
