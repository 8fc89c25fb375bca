"""The engine's accounts do what the model's do; their table is bounded, and forgets by itself."""

import random

import pytest

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from snow_owl_tftp._engine.probe import AccountTableProbe
from tests.conftest import SEED

from snow_owl_tftp.protocol.account import Account, Grant
from snow_owl_tftp.protocol.bucket import NS_PER_S

NOW_NS = 5 * 10**17
CLIENTS = 5


def test_both_twins_say_the_same_at_every_step() -> None:
    """Clients and rules mixed; what is crowded has one give way, as a worker does it."""
    chance = random.Random(SEED)
    table, models, now_ns = AccountTableProbe(1024), dict[tuple[int, int], Account](), NOW_NS
    opened: list[tuple[tuple[int, int], int, bool]] = []  # whose, its number in the table, whether it was proven
    for _ in range(20_000):
        now_ns += chance.choice([0, 1, chance.randrange(NS_PER_S // 4)])
        key = chance.randrange(1, CLIENTS), chance.randrange(3)
        model, transfers = models.setdefault(key, Account()), chance.choice([1, 2, 7])
        deed = chance.random()
        if deed < 0.4:
            rate = chance.choice([0, 1, 3, 10**10])
            at_most = chance.choice([0, transfers])
            assert table.ask(*key, rate, at_most, now_ns) == model.ask(rate, at_most, now_ns)
        elif deed < 0.45:
            has_place, number = table.rejoin(*key, transfers, now_ns)
            assert has_place == model.rejoin(transfers)
            assert (number < 0) == (not has_place)
            if has_place:
                opened.append((key, number, True))
        elif deed < 0.7:
            answer, number = table.open(*key, transfers, now_ns)
            assert answer == model.open(transfers)
            assert (number < 0) == (answer == Grant.TRANSFERS)
            if number >= 0:
                opened.append((key, number, False))
        elif opened:
            at = chance.randrange(len(opened))
            of, number, is_proven = opened.pop(at)
            if not is_proven:
                assert table.prove(number) == models[of].prove()
            if is_proven or deed < 0.85:
                table.close(number)
                models[of].close()
            else:
                opened.append((of, number, True))
        assert table.held == len(opened) == sum(one.live for one in models.values())
        assert all(0 <= one.unproven <= one.live for one in models.values())
    assert (table.replaced, table.missed) == (0, 0)


def test_what_a_client_has_by_one_rule_is_apart_from_what_it_has_by_another() -> None:
    table = AccountTableProbe(1024)
    for rule in range(3):
        assert [table.ask(1, rule, 2, 0, NOW_NS) for _ in range(3)] == [Grant.GRANTS, Grant.GRANTS, Grant.REQUESTS]
    assert table.ask(2, 0, 2, 0, NOW_NS) == Grant.GRANTS


def test_an_account_that_tells_nothing_is_an_unused_one() -> None:
    table = AccountTableProbe(1)
    for turn in range(20):
        for client in range(table.ways):
            assert table.ask(1 + turn * 100 + client, 0, 1, 0, NOW_NS + turn * NS_PER_S) == Grant.GRANTS
    assert table.replaced == 0


def test_in_a_full_set_the_one_without_transfers_that_is_fullest_gives_way() -> None:
    table = AccountTableProbe(1)
    holds = [table.open(1 + client, 0, 1, NOW_NS)[1] for client in range(table.ways - 1)]
    for asked in (1, 2):
        assert table.ask(1000 + asked, 0, 10, 0, NOW_NS) == Grant.GRANTS
    assert table.replaced == 1
    # Those with transfers have stayed.
    for number in holds:
        table.prove(number)
    assert {table.ask(1 + client, 0, 0, 1, NOW_NS) for client in range(table.ways - 1)} == {Grant.TRANSFERS}


def test_where_all_hold_transfers_a_newcomer_is_not_limited_and_counted() -> None:
    table = AccountTableProbe(1)
    for client in range(table.ways):
        table.open(1 + client, 0, 1, NOW_NS)
    assert table.ask(1000, 0, 1, 1, NOW_NS) == Grant.GRANTS
    assert table.open(1000, 0, 1, NOW_NS) == (Grant.GRANTS, -1)
    assert table.missed == 2
    assert table.held == table.ways
