"""Rules with clients as the engine repeats them: for the class of who asked, and for nobody else, also while a reload
gives the classes other roots.
"""

import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.server import Address, ServerThread, serve_command, serve_in_thread, wait_for

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.operate.exchange import with_its_classes
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.loop import TransferServer
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.sources import Sources

FLOWS = {"performance.platform.batch.enable_flows": True}
Rules = Sequence[Mapping[str, Any]]
ROOTS = ("r0", "r1", "s0", "s1", "all", "m")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """In each directory files of the same names and sizes, with bytes of their own."""
    for name in ROOTS:
        (tmp_path / "root" / name).mkdir(parents=True)
        for file, size in (("boot", 700), ("tiny", 40)):
            (tmp_path / "root" / name / file).write_bytes(of(name, size))
            (tmp_path / "root" / file).write_bytes(b"-" * size)
    return tmp_path / "root"


def of(root: str, size: int) -> bytes:
    """What lies in a directory."""
    return (root.encode() * size)[:size]


def get(address: Address, name: str, source: str) -> bytes:
    with Client(address, source=source) as client:
        return client.get(name).payload


def hosts(network: int, count: int) -> list[str]:
    return [f"127.{network}.{number // 250}.{number % 250 + 1}" for number in range(count)]


class Known:
    """127.1.0.1 has a MAC."""

    def find(self, asker: Asker, paths: tuple[bytes, ...] = ()) -> Machine | None:
        return Machine(mac="52:54:00:00:00:01") if asker.peer[0] == "127.1.0.1" else None


class Served:
    """A server, and what a reload does to it."""

    def __init__(self, root: Path, *rules: Mapping[str, Any]) -> None:
        self._root = root
        self._settings = override(Settings(), {"root_dir": str(root), **FLOWS, "rules": list(rules)})
        self.generation = Generation.of(self._settings, machines=Known(), by_class=True)
        self.decider = FileDecider(self._settings, generation=self.generation)
        self.thread: ServerThread

    @contextmanager
    def run(self) -> Iterator[ServerThread]:
        try:
            with serve_in_thread(self._root, FLOWS, decider=self.decider) as self.thread:
                self.thread.call(self._swap(self.generation))
                yield self.thread
        finally:
            self.decider.close()

    def reload(self, *rules: Mapping[str, Any]) -> None:
        generation = Generation.of(override(self._settings, {"rules": list(rules)}), machines=Known(), by_class=True)
        self.thread.call(self._swap(generation))

    def _swap(self, generation: Generation) -> Callable[[], Any]:
        sources = Sources.open(generation, self.decider.in_force[1])

        async def swap() -> None:
            self.generation = with_its_classes(self.thread.server, generation)
            self.decider.reload(self.generation, sources)
            self.thread.server.forget_decisions()

        return swap

    def hits(self) -> int:
        return int(self.thread.counters()["flow_hits"])


@pytest.fixture
def serve(root: Path) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def begin(*rules: Mapping[str, Any]) -> Served:
            served = Served(root, *rules)
            stack.enter_context(served.run())
            return served

        yield begin


TWO = ({"clients": ["127.1.0.0/16"], "roots": ["r0"]}, {"clients": ["127.2.0.0/16"], "roots": ["r1"]})


def test_storm_of_two_classes_meets_python_once_a_class_and_name(serve: Callable[..., Served]) -> None:
    served = serve(*TWO)
    askers = [(host, root) for network, root in ((1, "r0"), (2, "r1"), (3, "")) for host in hosts(network, 40)]
    random.Random(7).shuffle(askers)
    for host, root in askers:
        for name, size in (("boot", 700), ("tiny", 40)):
            expected = of(root, size) if root else b"-" * size
            assert get(served.thread.address, name, host) == expected, host
    # All but the first of each class and name; those whom no prefix holds are a class too.
    assert served.hits() == 2 * (len(askers) - 3)
    assert served.thread.counters()["client_prefixes"] == 2


@pytest.mark.parametrize(
    "single",
    [
        {"macs": ["52:54:00:*"], "roots": ["m"]},
        {"roots": ["{address}", "m"]},
        {"roots": ["{mac}", "m"]},
        {"groups": ["cnc"], "allow": []},
        {"trust": "address", "roots": ["m"]},
    ],
    ids=lambda rule: " ".join(rule),
)
def test_what_looks_at_the_single_machine_stays_with_python(serve: Callable[..., Served], single: Any) -> None:
    served = serve({"clients": ["127.1.0.0/16"], **single}, *TWO)
    for _ in range(3):
        for host in hosts(1, 3):
            get(served.thread.address, "boot", host)
    assert served.hits() == 0
    for host in hosts(2, 3):  # of whom that rule says nothing
        assert get(served.thread.address, "boot", host) == of("r1", 700)
    assert served.hits() == 2


def test_machine_of_a_rule_gets_its_own_file_amid_a_storm_of_its_class(serve: Callable[..., Served]) -> None:
    served = serve({"macs": ["52:54:00:*"], "paths": ["boot"], "roots": ["m"]}, *TWO)
    for host in hosts(1, 20) * 2:
        assert get(served.thread.address, "boot", host) == of("m" if host == "127.1.0.1" else "r0", 700)
        assert get(served.thread.address, "tiny", host) == of("r0", 40)
    assert served.hits() == 39, "tiny, of which no rule asks for the machine"


def test_reload_forgets_what_was_told_to_the_old_classes(serve: Callable[..., Served]) -> None:
    served = serve(*TWO)
    for first, second in (("r1", "r0"), ("r0", "r1"), ("s0", "s0")):
        for host in (*hosts(1, 3), *hosts(2, 3)):
            get(served.thread.address, "boot", host)
        served.reload({"clients": ["127.1.0.0/16"], "roots": [first]}, {"clients": ["127.2.0.0/16"], "roots": [second]})
        for network, root in ((1, first), (2, second)):
            for host in hosts(network, 3):
                assert get(served.thread.address, "boot", host) == of(root, 700)
    served.reload()
    assert get(served.thread.address, "boot", "127.1.0.1") == b"-" * 700
    assert served.thread.counters()["client_prefixes"] == 0


def test_reload_may_move_clients_to_another_class(serve: Callable[..., Served]) -> None:
    served = serve(*TWO)
    for _ in range(2):
        assert get(served.thread.address, "boot", "127.1.0.1") == of("r0", 700)
    served.reload({"clients": ["127.1.0.1"], "allow": []}, *TWO)
    with pytest.raises(Refused):
        get(served.thread.address, "boot", "127.1.0.1")
    assert get(served.thread.address, "boot", "127.1.0.2") == of("r0", 700)


def test_without_memory_for_classes_each_client_is_decided_about(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(*TWO)
    get(served.thread.address, "boot", "127.1.0.1")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TransferServer, "set_classes", fail)
    served.reload(*({**rule, "roots": [root]} for rule, root in zip(TWO, ("s1", "s0"), strict=True)))
    assert served.generation.unclassed_why == "out of memory"
    before = served.hits()
    for host in hosts(1, 3) * 2:
        assert get(served.thread.address, "boot", host) == of("s1", 700)
    assert served.hits() == before


def many_prefixes(count: int) -> list[str]:
    return [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]


def test_more_prefixes_than_the_engine_takes_are_told_and_served_one_by_one(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    listed = ", ".join(f'"{one}"' for one in ["127.1.0.0/16", *many_prefixes(65_536)])
    config.write_text(f'[[rules]]\nclients = [{listed}]\nroots = ["r0"]\n')
    with serve_command(root, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        for host in hosts(1, 3):
            assert get(server.address, "boot", host) == of("r0", 700)
        assert get(server.address, "boot", "127.2.0.1") == b"-" * 700
        assert server.log.count("requests are decided one by one where rules have clients") == 1
        assert "more than 65,536 prefixes" in server.log


def test_generation_is_of_classes_only_where_somebody_promised_to_hand_them_on() -> None:
    settings = override(Settings(), {"rules": list(TWO)})
    for generation, is_classed in (
        (Generation.of(settings), False),
        (Generation.of(settings, by_class=True), True),
        (Generation.of(settings, by_class=True).unclassed("why"), False),
        (Generation.of(override(settings, {"performance.platform.batch.enable_flows": False}), by_class=True), False),
    ):
        assert (generation.classes is not None) == is_classed
        assert generation.policy.rules is not None
        assert generation.policy.rules.is_classed == is_classed
    many = override(Settings(), {"rules": [{"clients": many_prefixes(65_537)}]})
    refused = Generation.of(many, by_class=True)
    assert refused.classes is None
    assert refused.unclassed_why == "more than 65,536 prefixes"


# ---- reloads while clients load, with the real command


SWAPPING = """
[[rules]]
clients = ["127.{first}.0.0/16"]
roots = ["r{number}"]

[[rules]]
clients = ["127.{second}.0.0/16"]
roots = ["s{number}"]

[[rules]]
clients = ["127.3.0.0/16"]
roots = ["all"]
"""
ONE_MORE = """
[[rules]]
clients = ["127.1.0.3"]
roots = ["m"]
"""
ALLOWED = {1: {"r0", "r1"}, 2: {"s0", "s1"}, 3: {"all"}}
"""Whoever asks from 127.1/16 is never to see a file of 127.2/16, whatever is reloaded."""


class Load:
    """Clients of one network, each request from another address; what they got is compared byte by byte."""

    def __init__(self, address: Address, network: int) -> None:
        self.network = network
        self.got = 0
        self.errors: list[BaseException] = []
        self.allowed = ALLOWED[network]
        self._address = address
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        rng = random.Random(self.network)
        try:
            while not self.is_over.is_set():
                size, name = rng.choice([(700, "boot"), (40, "tiny")])
                allowed = self.allowed
                payload = get(self._address, name, f"127.{self.network}.{rng.randrange(250)}.{rng.randrange(1, 250)}")
                found = {root for root in ROOTS if payload == of(root, size)}
                # `allowed` narrows when a reload is over; what was asked while it was not may be of before, or of then.
                assert found <= allowed | self.allowed, (self.network, found, allowed)
                assert found
                self.got += 1
        except BaseException as error:
            self.errors.append(error)


def test_reloads_that_swap_roots_while_clients_load_give_nobody_the_file_of_another_class(
    root: Path, tmp_path: Path
) -> None:
    config = tmp_path / "owl.toml"
    config.write_text(SWAPPING.format(first=1, second=2, number=0))
    with serve_command(root, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        loads = [Load(server.address, network) for network in (1, 2, 3) for _ in range(2)]
        for load in loads:
            load.thread.start()
        try:
            for turn in range(1, 9):
                number = turn % 2
                for load in loads:
                    load.allowed = ALLOWED[load.network]
                config.write_text(SWAPPING.format(first=1, second=2, number=number))
                server.signal(signal.SIGHUP)
                wait_for(lambda turn=turn: server.log.count("settings reloaded") == turn, "the reload")  # type: ignore[misc]
                for load in loads:
                    load.allowed = {one for one in ALLOWED[load.network] if one in (f"r{number}", f"s{number}", "all")}
                before = [load.got for load in loads]
                wait_for(
                    lambda before=before: (  # type: ignore[misc]
                        any(load.errors for load in loads)
                        or all(load.got > got + 5 for load, got in zip(loads, before, strict=True))
                    ),
                    "answers after the reload",
                )
                assert not any(load.errors for load in loads), [load.errors for load in loads]
        finally:
            for load in loads:
                load.is_over.set()
            for load in loads:
                load.thread.join(20)
        assert not any(load.errors for load in loads)


def test_reload_may_give_each_class_what_the_other_had_and_make_one_more(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    config.write_text(SWAPPING.format(first=1, second=2, number=0))
    with serve_command(root, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        for turn in range(6):
            first, second = ((1, 2), (2, 1))[turn % 2]
            config.write_text(ONE_MORE * (turn % 3) + SWAPPING.format(first=first, second=second, number=0))
            server.signal(signal.SIGHUP)
            wait_for(lambda turn=turn: server.log.count("settings reloaded") > turn, "the reload")  # type: ignore[misc]
            for host in range(1, 6):
                of_1, of_2 = ("r0", "s0") if first == 1 else ("s0", "r0")
                is_more = host == 3 and turn % 3
                assert get(server.address, "boot", f"127.1.0.{host}") == of("m" if is_more else of_1, 700)
                assert get(server.address, "boot", f"127.2.0.{host}") == of(of_2, 700)
                assert get(server.address, "boot", f"127.3.0.{host}") == of("all", 700)
