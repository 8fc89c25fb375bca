"""How much each client may have: which number of which rule, and where that is known by the address alone."""

from typing import Any

import pytest

from snow_owl_tftp.config.rules import Rule, RuleLimits
from snow_owl_tftp.config.schema import LimitsSettings, WriteSettings
from snow_owl_tftp.policy.client_limits import ClientLimits, let_through, limits_by_rule
from snow_owl_tftp.policy.decision import BeyondLimitError
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.policy.ruleset import RuleSet
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import Request

FEW, MANY = RuleLimits(requests_per_s=5, transfers=2), RuleLimits(requests_per_s=500, bytes_per_s=9)
NET, INNER, AWAY = "10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16"


class Client:
    endpoint, local_address = 0, None

    def __init__(self, host: str) -> None:
        self.peer = (host, 2000)


def of_class(*rules: Rule, **per_client: int) -> dict[int, ClientLimits]:
    return RuleSet(rules, OptionLimits(), LimitsSettings(**per_client)).limits_by_class()


def test_without_limits_in_rules_nothing_is_counted() -> None:
    limits = LimitsSettings(max_requests_per_s_per_client=20)
    assert limits_by_rule([Rule(clients=(NET,)), Rule()], limits) == [None] * 3
    assert let_through([Rule()], limits) == (20, 1000)


def test_a_number_of_a_rule_is_counted_by_it_alone() -> None:
    found = limits_by_rule([Rule(limits=FEW), Rule(), Rule(limits=RuleLimits(bytes_per_s=7))], LimitsSettings())
    assert found == [None, ClientLimits(1, 5, 0, 2), None, ClientLimits(3, 0, 7, 0)]


@pytest.mark.parametrize("at_door", [0, 100])
def test_where_a_rule_gives_less_the_engine_lets_through_what_it_did(at_door: int) -> None:
    limits = LimitsSettings(max_requests_per_s_per_client=at_door)
    assert let_through([Rule(limits=FEW)], limits) == (at_door, 1000)
    assert limits_by_rule([Rule(limits=FEW)], limits)[0] is None


def test_where_a_rule_gives_more_what_others_have_is_counted_like_a_rule_s() -> None:
    limits = LimitsSettings(max_requests_per_s_per_client=100, max_transfers_per_client=10)
    rules = [Rule(limits=MANY), Rule(limits=FEW), Rule(), Rule(limits=RuleLimits(transfers=50))]
    assert let_through(rules, limits) == (500, 50)
    assert limits_by_rule(rules, limits) == [
        ClientLimits(0, 100, 0, 10),
        ClientLimits(1, 500, 9, 10),
        ClientLimits(2, 5, 0, 2),
        ClientLimits(0, 100, 0, 10),
        ClientLimits(4, 100, 0, 50),
    ]


def test_no_limit_a_client_stays_none_whatever_a_rule_gives() -> None:
    assert let_through([Rule(limits=MANY)], LimitsSettings())[0] == 0


def test_classes_have_the_limits_of_the_rule_that_decides_about_all_they_ask() -> None:
    rules = (Rule(clients=(INNER,), limits=FEW), Rule(clients=(NET,), limits=MANY), Rule(clients=(AWAY,)))
    # 0: of no prefix; 10.0.0.0/8, 10.1.0.0/16, 192.168.0.0/16
    assert of_class(*rules) == {1: ClientLimits(2, 500, 9, 0), 2: ClientLimits(1, 5, 0, 2)}


def test_a_rule_for_everybody_holds_for_class_0_too() -> None:
    assert of_class(Rule(limits=FEW)) == {0: ClientLimits(1, 5, 0, 2)}
    assert of_class(Rule(clients=(NET,)), Rule(limits=FEW)) == {0: ClientLimits(2, 5, 0, 2)}


@pytest.mark.parametrize(
    "condition",
    [{"paths": ("a/**",)}, {"macs": ("52:*",)}, {"groups": ("g",)}, {"listen": (":69",)}, {"trust": "address"}],
    ids=lambda condition: next(iter(condition)),
)
def test_of_a_class_that_a_rule_looks_closer_at_nothing_is_known_beforehand(condition: Any) -> None:
    assert of_class(Rule(limits=FEW, **condition)) == {}
    assert of_class(Rule(**condition), Rule(limits=FEW)) == {}
    # ... but what stands behind the rule that fits everything looks at nobody.
    assert of_class(Rule(limits=FEW), Rule(**condition)) == {0: ClientLimits(1, 5, 0, 2)}


def test_rules_that_look_closer_and_say_the_same_make_no_difference() -> None:
    found = of_class(
        Rule(paths=("a",)), Rule(clients=(NET,)), Rule(clients=(AWAY,), limits=MANY), max_requests_per_s_per_client=9
    )
    usual = ClientLimits(0, 9, 0, 0)
    assert found == {0: usual, 1: usual}, "10/8 and nobody's: 9 whatever they ask; 192.168/16 depends"


def test_decisions_carry_them() -> None:
    policy = Policy(
        WriteSettings(enabled=True, allowed_patterns=("**",)),
        rules=[Rule(paths=("few/**",), limits=FEW), Rule(paths=("many/**",), limits=MANY)],
        per_client=LimitsSettings(max_requests_per_s_per_client=100),
    )
    asker = Client("10.0.0.1")
    of = {b"few/x": ClientLimits(1, 5, 0, 2), b"many/x": ClientLimits(2, 500, 9, 0), b"x": ClientLimits(0, 100, 0, 0)}
    for path, limits in of.items():
        read = policy.decide_read(asker, Request(Opcode.RRQ, "any", "octet"), (path,))
        write = policy.decide_write(asker, Request(Opcode.WRQ, "any", "octet"), path)
        assert read.client_limits == write.client_limits == limits
    without = Policy(WriteSettings())
    assert without.decide_read(asker, Request(Opcode.RRQ, "any", "octet"), (b"x",)).client_limits is None


@pytest.mark.parametrize(
    ("size", "text"), [(39, "Too many requests, try again later"), (38, "Too many requests"), (21, "Busy")]
)
def test_what_refuses_a_request_is_no_longer_than_it(size: int, text: str) -> None:
    error = BeyondLimitError(ClientLimits(3, 1, 0, 0), "rules.limits.requests_per_s", size)
    assert (error.text, error.rule, error.limit) == (text, 3, "rules.limits.requests_per_s")
    assert error.why == "rule 3: rules.limits.requests_per_s"
    by_none = BeyondLimitError(ClientLimits(0, 1, 0, 0), "max_requests_per_s_per_client", size)
    assert (by_none.text, by_none.rule, by_none.why) == (text, 0, "limits.max_requests_per_s_per_client")
