"""Client classes: a decision is repeated for the class of who asked, and for nobody else."""

import contextlib
import ipaddress
import random
import threading
import time
from collections import Counter

import pytest
from tests.engine.conftest import Served
from tests.support.client import Client
from tests.support.ipv6 import needs_ipv6

from snow_owl_tftp._engine.engine import ClientClasses

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LAST_OF_ALL = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def prefix(text: str, client_class: int) -> tuple[bytes, int, int]:
    network = ipaddress.ip_network(text)
    return network.network_address.packed, network.prefixlen, client_class


def classes_of(prefixes: dict[str, int]) -> ClientClasses:
    return ClientClasses(prefix(text, number) for text, number in prefixes.items())


def found(made: ClientClasses, *addresses: str) -> list[int]:
    return [made.find(ipaddress.ip_address(address).packed) for address in addresses]


# ---- which class an address is of


def test_without_prefixes_everybody_is_of_class_0():
    assert found(ClientClasses([]), "0.0.0.0", "255.255.255.255", "::", LAST_OF_ALL) == [0] * 4


def test_the_longest_prefix_counts_whatever_the_order():
    prefixes = {"10.0.0.0/8": 1, "10.1.0.0/16": 2, "10.1.2.3/32": 3, "10.1.0.0/24": 0}
    expected = [0, 1, 0, 2, 3, 2, 1, 0]
    for order in (list(prefixes), list(prefixes)[::-1]):
        made = classes_of({text: prefixes[text] for text in order})
        ends = ["9.255.255.255", "10.0.0.0", "10.1.0.255", "10.1.1.0", "10.1.2.3", "10.1.2.4", "10.2.0.0", "11.0.0.0"]
        assert found(made, *ends) == expected
        assert made.prefix_count == 4


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 23, 24, 31, 32])
def test_a_prefix_of_v4_begins_and_ends_where_it_says(length):
    network = ipaddress.ip_network((0xC0A8A5A5 >> (32 - length) << (32 - length), length))
    check_edges(network)


@pytest.mark.parametrize("length", [0, 1, 7, 48, 63, 64, 65, 95, 97, 127, 128])
def test_a_prefix_of_v6_begins_and_ends_where_it_says(length):
    whole = int(ipaddress.ip_address("fd00:a5a5:a5a5:a5a5:a5a5:a5a5:a5a5:a5a5"))
    network = ipaddress.IPv6Network((whole >> (128 - length) << (128 - length), length))
    check_edges(network)


def check_edges(network: Network) -> None:
    made = ClientClasses([(network.network_address.packed, network.prefixlen, 7)])
    first, last = int(network.network_address), int(network.broadcast_address)
    kind = type(network.network_address)
    inside = [made.find(kind(number).packed) for number in {first, (first + last) // 2, last}]
    assert set(inside) == {7}
    most = 2 ** (8 * len(network.network_address.packed)) - 1
    outside = [made.find(kind(number).packed) for number in (first - 1, last + 1) if 0 <= number <= most]
    assert set(outside) <= {0}


def test_v4_on_a_dual_stack_socket_is_v4():
    made = classes_of({"192.0.2.0/24": 4, "::/0": 6})
    assert found(made, "192.0.2.9", "::ffff:192.0.2.9", "192.0.3.9", "::ffff:192.0.3.9", "::1") == [4, 4, 0, 0, 6]
    as_v6 = classes_of({"::ffff:192.0.2.0/120": 4})
    assert found(as_v6, "192.0.2.9", "::ffff:192.0.2.9", "192.0.3.9") == [4, 4, 0]


def test_the_two_families_are_apart():
    made = classes_of({"0.0.0.0/0": 4, "::/0": 6})
    assert found(made, "0.0.0.0", "255.255.255.255") == [4, 4]
    assert found(made, "::", "::fffe:ffff:ffff", "::1:0:0:0", LAST_OF_ALL) == [6] * 4


@pytest.mark.parametrize(
    "prefixes",
    [
        [(b"\n\0\0", 8, 1)],
        [(b"\n\0\0\0", 33, 1)],
        [(bytes(16), 129, 1)],
        [(b"\n\0\0\0", -1, 1)],
        [(b"\n\0\0\1", 8, 1)],
        [(b"\n\0\0\0", 8, -1)],
        [(b"\n\0\0\0", 8, 1 << 32)],
        [(b"\n\0\0\0", 8, 1), (b"\n\0\0\0", 8, 2)],
        [(b"\n\0\0\0", 8, 1), (bytes(10) + b"\xff\xff\n\0\0\0", 104, 2)],
        [(number.to_bytes(4, "big"), 32, 1) for number in range(65537)],
    ],
    ids=["3 bytes", "/33", "/129", "/-1", "host bits", "below 0", "33 bits", "twice", "twice, mapped", "65537"],
)
def test_what_is_no_prefix_is_refused(prefixes):
    with pytest.raises(ValueError, match=r"network|prefix"):
        ClientClasses(prefixes)


def test_an_address_has_4_or_16_bytes():
    with pytest.raises(ValueError, match="4 or 16"):
        ClientClasses([]).find(b"12345")


def some_prefixes(rng: random.Random, total: int) -> dict[tuple[bytes, int], int]:
    """Nested and side by side, in both families, where they are dense enough to meet."""
    made: dict[tuple[bytes, int], int] = {}
    while len(made) < total:
        if rng.random() < 0.6:
            bits, whole = 32, 10 << 24 | rng.getrandbits(18) << 6
        else:
            bits, whole = 128, 0xFD << 120 | rng.getrandbits(12) << 64 | rng.getrandbits(4)
        length = rng.randint(8, bits)
        network = (whole >> (bits - length) << (bits - length)).to_bytes(bits // 8, "big")
        made[network, length] = rng.randint(0, 50)
    return made


def longest(prefixes: dict[tuple[bytes, int], int], address: bytes) -> int:
    """The oracle: every length is tried."""
    bits = 8 * len(address)
    number = int.from_bytes(address, "big")
    for length in range(bits, -1, -1):
        network = (number >> (bits - length) << (bits - length)).to_bytes(len(address), "big")
        if (network, length) in prefixes:
            return prefixes[network, length]
    return 0


def test_10000_prefixes_are_found_as_by_trying_every_length(rng):
    prefixes = some_prefixes(rng, 10_000)
    made = ClientClasses([(network, length, number) for (network, length), number in prefixes.items()])
    asked = 0
    for network, length in rng.sample(sorted(prefixes), 1500):
        bits = 8 * len(network)
        first = int.from_bytes(network, "big")
        last = first | ((1 << (bits - length)) - 1)
        for number in {first, last, max(first - 1, 0), min(last + 1, (1 << bits) - 1), rng.randint(first, last)}:
            address = number.to_bytes(len(network), "big")
            assert made.find(address) == longest(prefixes, address), ipaddress.ip_address(address)
            asked += 1
    assert asked > 3000


# ---- flows


class ByClass(Served):
    """Serves `NAME` as the file `CLASS-NAME` of the configuration in force, and lets the engine repeat it."""

    def __init__(self, root, prefixes=None, **options):
        self.letter = ""
        self.mine = ClientClasses([])
        super().__init__(root, flows=True, **options)
        if prefixes is not None:
            self.use(prefixes)

    def use(self, prefixes, letter=""):
        """Another configuration: what decides and what the engine goes by change together."""
        made = classes_of(prefixes)
        with self._changed:  # no request is being decided
            self.mine, self.letter = made, letter
            self.engine.set_classes(made)

    def _decide(self, event):
        name = event.datagram[2:].split(b"\0")[0].decode()
        path = f"{self.letter}{self.mine.find(event.host[:16])}-{name}"

        class Asked:
            filename, options, kind = path, (), 1

        plan = self.send_plan(event, Asked())
        self.engine.start(plan, (self._root_fd, path.encode(), event.datagram))
        self.started[plan.transfer_id] += 1


@pytest.fixture
def by_class(tmp_path):
    with contextlib.ExitStack() as running:

        def make(prefixes=None, **options):
            served = ByClass(tmp_path, prefixes, **options)
            running.callback(served.check_accounts)
            running.callback(served.stop)
            return served

        yield make


def write(root, *names):
    for name in names:
        (root / name).write_bytes(name.encode() * 30)


def get(served, source):
    with Client(served.address, source=source) as client:
        content = client.get("f").payload.decode()
    name = content[: len(content) // 30]
    assert content == name * 30
    return name


def test_a_flow_is_repeated_for_its_class_only(by_class, tmp_path):
    write(tmp_path, "0-f", "1-f", "2-f")
    served = by_class({"127.1.0.0/16": 1, "127.1.2.0/24": 2, "127.3.0.0/16": 1})
    of = {"127.1.0.1": "1-f", "127.1.2.1": "2-f", "127.2.0.1": "0-f", "127.3.9.9": "1-f", "127.1.2.255": "2-f"}
    for _ in range(3):
        for source, expected in of.items():
            assert get(served, source) == expected
    served.completion(total=15)
    assert served.requests == 3, "once a class"
    assert served.counter("flow_hits") == 12
    assert served.counter("client_prefixes") == 3


def test_without_classes_all_are_of_one(by_class, tmp_path):
    write(tmp_path, "0-f")
    served = by_class()
    assert {get(served, f"127.{number}.0.1") for number in range(1, 6)} == {"0-f"}
    served.completion(total=5)
    assert served.requests == 1
    assert served.counter("client_prefixes") == 0


@pytest.mark.parametrize("after", [{"127.0.0.0/8": 1}, {}, None])
def test_other_classes_forget_every_flow(by_class, tmp_path, after):
    write(tmp_path, "0-f", "1-f")
    served = by_class({"127.1.0.0/16": 1})
    assert get(served, "127.1.0.1") == "1-f"
    if after is None:
        served.mine = ClientClasses([])
        served.engine.set_classes(None)
    else:
        served.use(after)
    expected = "1-f" if after else "0-f"
    assert [get(served, source) for source in ("127.1.0.1", "127.2.0.1")] == [expected] * 2
    served.completion(total=3)
    assert served.requests == 2
    assert served.counter("client_prefixes") == len(after or {})


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "sources"),
    [("::", {"::ffff:127.1.0.1": 1, "::ffff:127.2.0.1": 2, "::ffff:127.3.0.1": 0, "::1": 6}), ("::1", {"::1": 6})],
)
def test_classes_of_a_dual_stack_socket(by_class, tmp_path, host, sources):
    write(tmp_path, *(f"{number}-f" for number in (0, 1, 2, 6)))
    served = by_class({"127.1.0.0/16": 1, "127.2.0.1/32": 2, "::/0": 5, "::1/128": 6}, host=host)
    for _ in range(2):
        for source, number in sources.items():
            assert ask(served, source) == f"{number}-f"
    served.completion(total=2 * len(sources))
    assert served.requests == len(sources)


def ask(served, source):
    """From ::1, or by IPv4 from another address of the loopback."""
    is_mapped = source.startswith("::ffff:")
    to = ("127.0.0.1" if is_mapped else "::1", served.address[1])
    # The socket is bound to a wildcard without control messages: the answer leaves from where the kernel likes.
    with Client(to, source=source.removeprefix("::ffff:"), strict_address=False) as client:
        return client.get("f").payload[:3].decode()


def test_classes_may_be_set_before_the_engine_runs_and_after_it_stopped(by_class, tmp_path):
    write(tmp_path, "1-f")
    served = by_class()
    served.engine.stop()
    served.engine.set_classes(classes_of({"127.0.0.0/8": 1}))
    assert served.counter("client_prefixes") == 0


# ---- while it changes

HALVES = ({"127.9.0.0/17": 1, "127.9.128.0/17": 2}, {"127.9.0.0/17": 2, "127.9.128.0/17": 1})
ALLOWED = {"low": {"a1-f", "b2-f"}, "high": {"a2-f", "b1-f"}}


@pytest.mark.parametrize("workers", [1, 3])
def test_nobody_gets_the_file_of_another_class_while_classes_change_in_a_storm(by_class, tmp_path, rng, workers):
    """Of two configurations that swap their classes a client may meet either, and never one's class with the other's
    file: the numbers are the same, so a flow that outlived its classes would show.
    """
    write(tmp_path, "a1-f", "a2-f", "b1-f", "b2-f")
    served = by_class(workers=workers)
    served.use(HALVES[0], "a")
    ends_at = time.monotonic() + 3
    wrong, got = [], Counter()

    def storm(seed):
        mine = random.Random(seed)
        while time.monotonic() < ends_at and not wrong:
            low = mine.random() < 0.5
            source = f"127.9.{mine.randrange(128) + 128 * (not low)}.{mine.randrange(1, 255)}"
            with Client(served.address, source=source) as client:
                content = client.get("f").payload.decode()
            name = content[:4]
            got[name] += 1
            if name not in ALLOWED["low" if low else "high"] or content != name * 30:
                wrong.append((source, content))

    threads = [threading.Thread(target=storm, args=(rng.random(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    swaps = 0
    while time.monotonic() < ends_at:
        swaps += 1
        served.use(HALVES[swaps % 2], "ab"[swaps % 2])
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(got) == {"a1-f", "a2-f", "b1-f", "b2-f"}, got
    assert served.counter("flow_hits") > 0
    settled = "ab"[swaps % 2]
    for half, sources in {"low": ["127.9.0.1", "127.9.127.255"], "high": ["127.9.128.0", "127.9.200.1"]}.items():
        (expected,) = (name for name in ALLOWED[half] if name[0] == settled)
        assert [get(served, source) for source in sources] == [expected] * 2
