"""The budget of lines: so many a second, and the others by number."""

from snow_owl_tftp.observe.budget import LineBudget


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_so_many_lines_are_granted_in_each_second_and_the_others_counted() -> None:
    clock = Clock()
    budget = LineBudget(3, clock)
    assert [budget.grants() for _ in range(5)] == [True, True, True, False, False]
    clock.now_s += 0.9
    assert not budget.grants()
    assert budget.left_out == 3
    clock.now_s += 0.1
    assert [budget.grants() for _ in range(4)] == [True, True, True, False]
    assert budget.left_out == 4


def test_what_was_left_out_is_told_once_a_second_however_long_the_flood() -> None:
    clock = Clock()
    budget = LineBudget(1, clock)
    asked, told = 0, []
    for _ in range(100):
        asked += 10
        granted = sum(budget.grants() for _ in range(10))
        asked -= granted
        told.append(budget.settle())
        clock.now_s += 0.125  # a fraction that adds up exactly
    assert sum(count > 0 for count in told) == 12
    assert sum(told) + budget.settle(at_once=True) == asked
    assert budget.settle(at_once=True) == 0


def test_flood_that_lasts_has_ten_seconds_worth_in_a_minute() -> None:
    """200 of the longest lines in each second of a day would fill 30 GB."""
    clock = Clock()
    budget = LineBudget(3, clock)
    granted = [0] * 10
    for minute in range(10):
        for _ in range(60 * 8):
            granted[minute] += sum(budget.grants() for _ in range(5))
            clock.now_s += 0.125
    assert granted == [30] * 10
    assert budget.left_out == 10 * (60 * 8 * 5 - 30)


def test_a_budget_of_nothing_grants_nothing() -> None:
    clock = Clock()
    budget = LineBudget(0, clock)
    for _ in range(3):
        assert not budget.grants()
        clock.now_s += 2
    assert budget.settle() == 3
