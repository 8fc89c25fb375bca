"""Many rules: the first that fits is found as if each had been asked, and quickly."""

import ipaddress
import random
import time
from typing import Any

import msgspec
import pytest

from snow_owl_tftp._engine.engine import ClientClasses
from snow_owl_tftp.config.rules import Rule, RuleOptions, parse_network
from snow_owl_tftp.config.schema import WriteSettings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.asker import Asker, Listening
from snow_owl_tftp.policy.decision import DeniedError, ReadDecision, RootPath, WriteDecision
from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.policy.ruleset import RuleSet
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.protocol.seq import Rollover

RRQ, WRQ = (Request(kind, "any", "octet") for kind in (Opcode.RRQ, Opcode.WRQ))
LISTENING = Listening((("10.0.0.1", 69), ("0.0.0.0", 6969)))


class Client:
    def __init__(self, host: str, endpoint: int = 0, local_address: str | None = None) -> None:
        self.peer = (host, 2000)
        self.endpoint = endpoint
        self.local_address = local_address


class Known:
    """Machines by address."""

    def __init__(self, machines: dict[str, Machine]) -> None:
        self.machines = machines
        self.asked = 0

    def find(self, asker: Asker, paths: tuple[bytes, ...] = ()) -> Machine | None:
        self.asked += 1
        return self.machines.get(asker.peer[0])


LATHE = Machine(name="lathe", mac="52:54:00:00:00:01", group="cnc", serial="7")
CLAIMED = Machine(name="mill", mac="52:54:00:00:00:02", group="cnc", known_by="name")
MACHINES = Known({"10.0.0.7": LATHE, "10.0.0.8": CLAIMED})
WRITE = WriteSettings(enabled=True, allowed_patterns=("**",))


def policy(*rules: Rule, write: WriteSettings = WRITE) -> Policy:
    return Policy(write, machines=MACHINES, rules=rules, listening=LISTENING)


def read(policy: Policy, host: str, *paths: bytes, **where: Any) -> ReadDecision:
    return policy.decide_read(Client(host, **where), RRQ, paths)


def rule_of(policy: Policy, host: str, path: bytes = b"x", **where: Any) -> int:
    try:
        return read(policy, host, path, **where).rule
    except DeniedError as error:
        return error.rule


def some_rule(rng: random.Random) -> Rule:
    def sometimes(*values: str) -> tuple[str, ...]:
        return tuple(rng.sample(values, rng.randint(1, 2))) if rng.random() < 0.3 else ()

    return Rule(
        clients=sometimes("10.0.0.0/8", "10.0.0.7", "10.0.0.0/29", "192.0.2.0/24", "fd00::/8", "::/0", "0.0.0.0/0"),
        macs=sometimes("52:54:00:00:00:01", "52-54-00-*", "*:02", "aa:*", "5?:*"),
        groups=sometimes("cnc", "switches"),
        listen=sometimes("10.0.0.1", "10.0.0.1:69", ":69", "10.0.0.2:6969", "6969"),
        paths=sometimes("a/**", "**/x", "*", "b/*/x", "**/*.cfg", "a/x", "[ab]/x"),
        trust=rng.choice(["any", "any", "any", "address"]),
    )


def brute_force(rules: RuleSet, question: Any, host: str, path: bytes) -> int:
    address = ipaddress.ip_address(host)
    for rule in rules.rules:
        networks = [parse_network(text) for text in rule.rule.clients]
        if networks and not any(address.version == one.version and address in one for one in networks):
            continue
        if not rule.unmet(question, path):
            return rule.number
    return 0


@pytest.mark.parametrize("seed", range(40))
def test_rule_is_the_one_that_is_found_by_asking_each_in_turn(seed: int) -> None:
    rng = random.Random(seed)
    one = policy(*(some_rule(rng) for _ in range(rng.choice([1, 5, 40]))))
    assert one.rules is not None
    for host in ("10.0.0.7", "10.0.0.8", "10.0.0.9", "192.0.2.1", "fd00::1", "2001:db8::1"):
        for path in (b"x", b"a/x", b"a/b.cfg", b"b/c/x", b"c/x"):
            for where in ({}, {"endpoint": 1, "local_address": "10.0.0.2"}, {"endpoint": 9}):
                question = one.question(Client(host, **where), (path,))
                found = one.rules.first_that_fits(question, path)
                expected = brute_force(one.rules, question, host, path)
                assert (found.number if found else 0) == expected
                told = list(one.rules.unmet(question, path))
                assert [bool(key) for _, key in told] == [True] * (
                    expected - 1 if expected else len(one.rules.rules)
                ) + ([False] if expected else [])


@pytest.mark.parametrize("seed", range(40))
def test_decision_that_holds_for_all_is_the_same_for_all(seed: int) -> None:
    rng = random.Random(1000 + seed)
    rules = [some_rule(rng) for _ in range(6)]
    one = policy(*rules)
    hosts = ("10.0.0.7", "10.0.0.8", "10.0.0.9", "192.0.2.1", "fd00::1", "2001:db8::1")
    held_for_all = 0
    for path in (b"x", b"a/x", b"a/b.cfg", b"b/c/x", b"c/x"):
        for endpoint, locals_ in ((0, [None]), (1, ["10.0.0.1", "10.0.0.2", "10.0.0.3"])):
            decided = [
                read(one, host, path, endpoint=endpoint, local_address=local) for host in hosts for local in locals_
            ]
            if any(not decision.depends_on_asker for decision in decided):
                held_for_all += 1
                assert len({decision.rule for decision in decided}) == 1
    assert held_for_all or any(rule.clients or rule.macs or rule.groups or rule.trust == "address" for rule in rules)


def test_name_with_something_behind_it_holds_for_all_only_if_both_spellings_do() -> None:
    rules = policy(Rule(clients=("10.0.0.9",), paths=("[x] ",), allow=()))
    for host in ("10.0.0.9", "10.0.0.8"):
        decision = read(rules, host, b"x ", b"x")
        assert decision.depends_on_asker
        assert decision.paths == ((b"x",) if host == "10.0.0.9" else (b"x ", b"x"))


def classed(one: Policy) -> ClientClasses:
    """Has the policy decide for classes."""
    assert one.rules is not None
    one.rules.is_classed = True
    return ClientClasses(one.rules.client_classes())


def class_of(classes: ClientClasses, host: str) -> int:
    return classes.find(ipaddress.ip_address(host).packed)


def test_client_classes_tell_apart_whom_prefixes_tell_apart_and_nobody_else() -> None:
    classes = classed(
        policy(
            Rule(clients=("10.0.0.0/8",)),
            Rule(paths=("a/*",)),
            Rule(clients=("10.1.0.0/16", "10.2.0.0/16", "fd00::/8")),
            Rule(clients=("10.1.0.0/16", "::/0")),
        )
    )
    of = {
        host: class_of(classes, host)
        for host in ("192.0.2.1", "10.0.0.1", "10.255.255.255", "10.1.0.1", "10.2.0.1", "fd00::1", "2001:db8::1")
    }
    assert of["192.0.2.1"] == 0
    assert of["10.0.0.1"] == of["10.255.255.255"]
    assert len(set(of.values())) == 6
    same = classed(policy(Rule(clients=("10.1.0.0/16", "10.2.0.0/16", "fd00::/8")), Rule(clients=("10.1.0.0/16",))))
    assert class_of(same, "10.2.0.1") == class_of(same, "fd00::1") != class_of(same, "10.1.0.1")


@pytest.mark.parametrize("seed", range(80))
def test_decision_that_holds_for_a_class_is_the_same_for_all_of_it(seed: int) -> None:
    rng = random.Random(2000 + seed)

    def some() -> Rule:
        roots = rng.choice([(), (), ("r{address}",), ("{mac}", "c"), ("a",), ("b",), ("s/{server_address}",)])
        return msgspec.structs.replace(some_rule(rng), roots=roots)

    one = policy(*(some() for _ in range(rng.choice([2, 6, 20]))))
    classes = classed(one)
    hosts = ("10.0.0.7", "10.0.0.8", "10.0.0.6", "10.0.0.9", "10.1.0.9", "192.0.2.1", "8.8.8.8", "fd00::1", "fe80::1")
    for path in (b"x", b"a/x", b"a/b.cfg", b"b/c/x", b"c/x"):
        for endpoint, locals_ in ((0, [None]), (1, ["10.0.0.1", "10.0.0.2", "10.0.0.3"])):
            told: dict[int, set[object]] = {}
            held: set[int] = set()
            for host in hosts:
                number = class_of(classes, host)
                for local in locals_:
                    try:
                        decision = read(one, host, path, endpoint=endpoint, local_address=local)
                    except DeniedError as error:
                        told.setdefault(number, set()).add((error.rule, str(error)))
                        continue
                    told.setdefault(number, set()).add((decision.rule, decision.roots, decision.paths))
                    if not decision.depends_on_asker:
                        held.add(number)
            assert all(len(told[number]) == 1 for number in held)


@pytest.mark.parametrize(
    ("rule", "depends"),
    [
        (Rule(clients=("10.0.0.0/8",), listen=(":69",), paths=("*",), roots=("c",)), False),
        (Rule(clients=("10.0.0.0/8",), options=RuleOptions(patience_ms=20), require="owned"), False),
        (Rule(roots=("s/{server_address}",)), False),
        (Rule(paths=("else/*",), macs=("*",)), False),
        (Rule(clients=("192.0.2.0/24",), groups=("cnc",)), False),
        (Rule(clients=("10.0.0.0/8",), roots=("{address}", "c")), True),
        (Rule(roots=("{address_hex}", "c")), True),
        (Rule(roots=("{mac}", "c")), True),
        (Rule(macs=("aa:*",)), True),
        (Rule(clients=("10.0.0.0/8",), groups=("other",)), True),
        (Rule(paths=("x",), trust="address"), True),
    ],
)
def test_what_looks_at_the_single_client_holds_for_no_class(rule: Rule, depends: bool) -> None:
    one = policy(rule)
    classed(one)
    assert read(one, "10.0.0.7", b"x").depends_on_asker == depends
    if rule.clients == ("10.0.0.0/8",):
        assert not read(one, "192.0.2.1", b"x").depends_on_asker, "no rule of his"
        assert read(one.unclassed(), "192.0.2.1", b"x").depends_on_asker


def test_only_who_goes_by_classes_is_told_what_holds_for_a_class() -> None:
    one = policy(Rule(clients=("10.0.0.0/8",)))
    assert read(one, "10.0.0.7", b"x").depends_on_asker
    classed(one)
    assert not read(one, "10.0.0.7", b"x").depends_on_asker
    assert read(one.unclassed(), "10.0.0.7", b"x").depends_on_asker
    assert not read(one, "10.0.0.7", b"x").depends_on_asker


def test_ten_thousand_rules_of_one_prefix_and_their_own_are_classes_while_somebody_waits() -> None:
    one = policy(*(Rule(clients=("10.0.0.0/8", f"10.{n // 250}.{n % 250}.0/24")) for n in range(10_000)))
    began = time.process_time()
    assert classed(one).prefix_count == 10_001
    assert time.process_time() - began < 2


def test_machine_is_looked_for_only_where_a_rule_asks() -> None:
    MACHINES.asked = 0
    read(policy(Rule(clients=("10.0.0.0/8",), roots=("m/{address}",))), "10.0.0.7", b"x")
    assert MACHINES.asked == 0
    for asks in (Rule(macs=("*",)), Rule(groups=("x",)), Rule(trust="address"), Rule(roots=("{mac}", "c"))):
        MACHINES.asked = 0
        read(policy(asks), "10.0.0.7", b"x")
        assert MACHINES.asked == 1


def test_rule_may_demand_a_machine_that_is_known_by_its_address() -> None:
    rules = policy(Rule(groups=("cnc",), trust="address"), Rule(groups=("cnc",)))
    assert rule_of(rules, "10.0.0.7") == 1
    assert rule_of(rules, "10.0.0.8") == 2
    assert rule_of(rules, "10.0.0.9") == 0


@pytest.mark.parametrize("mac", ["52:54:00:00:00:01", "52-54-00-00-00-01", "52:54:00:*", "52:54:*", "*1", "52:54:0?:*"])
def test_mac_is_a_glob_in_either_spelling(mac: str) -> None:
    assert rule_of(policy(Rule(macs=(mac,))), "10.0.0.7") == 1
    assert rule_of(policy(Rule(macs=(mac.upper(),))), "10.0.0.7") == 1
    assert rule_of(policy(Rule(macs=("aa:*", mac))), "10.0.0.9") == 0


@pytest.mark.parametrize(
    ("listen", "where", "fits"),
    [
        ("10.0.0.1:69", {"endpoint": 0}, True),
        ("10.0.0.1", {"endpoint": 0}, True),
        (":69", {"endpoint": 0}, True),
        ("[::]:69", {"endpoint": 0}, True),
        ("10.0.0.1:6969", {"endpoint": 0}, False),
        ("10.0.0.2", {"endpoint": 0}, False),
        ("10.0.0.2:6969", {"endpoint": 1, "local_address": "10.0.0.2"}, True),
        ("10.0.0.2:6969", {"endpoint": 1, "local_address": "::ffff:10.0.0.2"}, True),
        ("10.0.0.2:6969", {"endpoint": 1, "local_address": "10.0.0.3"}, False),
        ("10.0.0.1:69", {"endpoint": 7}, False),
    ],
)
def test_listen_is_where_the_client_asked(listen: str, where: dict[str, Any], fits: bool) -> None:
    assert rule_of(policy(Rule(listen=(listen,))), "192.0.2.1", **where) == int(fits)


def test_name_falls_under_the_rule_of_what_is_meant_by_it() -> None:
    rules = policy(Rule(paths=("*.key",), allow=()))
    for sent in (b"a.key ", b"a.key\xff"):
        with pytest.raises(DeniedError):
            read(rules, "10.0.0.9", sent, b"a.key")
    assert read(rules, "10.0.0.9", b"b ", b"b").paths == (b"b ", b"b")
    only = policy(Rule(paths=("*.cfg",)), Rule(allow=()))
    assert read(only, "10.0.0.9", b"a.cfg ", b"a.cfg").paths == (b"a.cfg",)


def test_denied_and_ignored_say_which_rule_did_it_to_the_operator_alone() -> None:
    rules = policy(
        Rule(paths=("a",), allow=()), Rule(paths=("b",), allow="ignore"), Rule(paths=("c",), allow=("write",))
    )
    for path, number in ((b"a", 1), (b"b", 2), (b"c", 3)):
        with pytest.raises(DeniedError) as caught:
            read(rules, "10.0.0.9", path)
        assert (caught.value.code, caught.value.rule) == (ErrorCode.ACCESS_VIOLATION, number)
        assert f"rule {number}" in caught.value.why
        assert "rule" not in caught.value.text
        assert caught.value.is_silent == (number == 2)


def write(policy: Policy, path: bytes, host: str = "10.0.0.9") -> WriteDecision:
    return policy.decide_write(Client(host), WRQ, path)


def test_writing_takes_the_word_of_a_rule_and_of_write_config() -> None:
    only_up = WriteSettings(enabled=True, allowed_patterns=("up/**",), on_existing="version")
    rules = policy(
        Rule(paths=("up/r/*",), allow=("read",)),
        Rule(paths=("up/w/*",), allow=("write",)),
        Rule(paths=("up/o/*",), allow=("write", "overwrite")),
        Rule(paths=("else/*",), allow=("write", "overwrite")),
        Rule(paths=("up/i/*",), allow="ignore"),
        write=only_up,
    )
    assert write(rules, b"up/w/x").on_existing == "refuse"
    assert write(rules, b"up/o/x").on_existing == "version"
    assert write(rules, b"up/x").on_existing == "version"  # no rule fits
    for path in (b"up/r/x", b"else/x", b"up/i/x", b"up/w/../i/x"):
        with pytest.raises(Exception, match="Writing this name is not allowed"):
            write(rules, path)
    assert write(policy(Rule(allow=("write", "overwrite"))), b"x").on_existing == "replace"
    assert write(policy(Rule()), b"x").on_existing == "refuse"


def test_silence_comes_before_what_write_config_says() -> None:
    with pytest.raises(DeniedError) as caught:
        write(policy(Rule(allow="ignore"), write=WriteSettings()), b"x")
    assert caught.value.is_silent


def test_roots_whose_variables_are_missing_are_skipped() -> None:
    rules = policy(Rule(roots=("m/{mac}/x", "{serial}", "/srv/g/{group}", "common", "/abs")))
    assert read(rules, "10.0.0.7", b"f").roots == (
        RootPath("", b"m/52:54:00:00:00:01/x"),
        RootPath("", b"7"),
        RootPath("/srv/g", b"cnc"),
        RootPath("common"),
        RootPath("/abs"),
    )
    assert read(rules, "10.0.0.9", b"f").roots == (RootPath("common"), RootPath("/abs"))
    assert write(rules, b"f", "10.0.0.7").root == RootPath("", b"m/52:54:00:00:00:01/x")
    assert write(rules, b"f").root == RootPath("common")


def test_rule_without_any_root_left_finds_nothing_and_takes_nothing() -> None:
    rules = policy(Rule(roots=("{mac}",)))
    for act, code in (
        (lambda: read(rules, "10.0.0.9", b"f"), ErrorCode.FILE_NOT_FOUND),
        (lambda: write(rules, b"f"), ErrorCode.ACCESS_VIOLATION),
    ):
        with pytest.raises(DeniedError) as caught:
            act()
        assert (caught.value.code, caught.value.rule) == (code, 1)


@pytest.mark.parametrize(
    ("root", "problem"), [("../x", '".."'), ("a/../b", '".."'), ("{mac", "brace"), ("a\0b", "NUL")]
)
def test_bad_root_names_its_rule_and_key(root: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"^rules\[2\]\.roots: .*" + problem):
        policy(Rule(), Rule(roots=(root,)))


def test_bad_pattern_of_paths_names_its_rule_and_key() -> None:
    with pytest.raises(ConfigError, match=r'^rules\[2\]\.paths: "a//b"'):
        policy(Rule(), Rule(paths=("a//b",)))


def test_options_of_a_rule_replace_those_of_all() -> None:
    usual = OptionLimits(max_blksize_bytes=1000, max_window_bytes=99)
    options = RuleOptions(max_blksize_bytes=1428, refuse=("tsize",), rollover=1, patience_ms=20)
    rules = Policy(WRITE, rules=[Rule(options=options), Rule()], limits=usual).rules
    assert rules is not None
    assert rules.rules[1].limits is None
    assert rules.rules[0].limits == OptionLimits(
        max_blksize_bytes=1428,
        max_window_bytes=99,
        refused=frozenset({"tsize"}),
        usual_rollover=Rollover.TO_1,
        patience_ns=20_000_000,
    )


KINDS = {
    "prefixes": lambda n: Rule(clients=(f"10.{n // 250}.{n % 250}.0/24",), allow=()),
    "one prefix": lambda n: Rule(clients=("10.0.0.0/8",), paths=(f"d{n}/**",), allow=()),
    "macs": lambda n: Rule(macs=(f"aa:bb:cc:dd:{n // 256:02x}:{n % 256:02x}",), allow=()),
    "makers": lambda n: Rule(macs=(f"aa:{n // 256:02x}:{n % 256:02x}:*",), allow=()),
    "groups": lambda n: Rule(groups=(f"g{n}",), allow=()),
    "paths": lambda n: Rule(paths=(f"d{n}/**",), allow=()),
    "names": lambda n: Rule(paths=(f"**/n{n}.cfg",), allow=()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_thousand_rules_are_not_a_thousand_questions(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = policy(*map(KINDS[kind], range(1000)))
    assert one.rules is not None
    asked = []
    for rule in one.rules.rules:
        unmet = rule.unmet
        monkeypatch.setattr(rule, "unmet", lambda *args, unmet=unmet: asked.append(1) or unmet(*args))
    for host in ("10.0.0.7", "10.3.249.1", "192.0.2.1"):
        rule_of(one, host, b"x/y")
    assert len(asked) <= 3


def test_ten_thousand_rules_compile_while_somebody_waits() -> None:
    began = time.process_time()
    policy(*(KINDS["prefixes"](n) for n in range(10_000)))
    assert time.process_time() - began < 5
