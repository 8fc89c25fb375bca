"""All pairs of a large matrix of parameters by default, and the whole of it with `make soak`.

    @pytest.mark.parametrize(("windowsize", "rollover", "laps"), pairs([1, 16], list(Rollover), [1, 2]))

May know: pytest. Must not: be used where three values together are what a test is about.
Invariants: every value of one axis meets every value of each other axis in a test that is played by default; no case of
the product is lost, since the others have the mark `soak`; which are which is the same in every run and process.
"""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import pytest


def pairs(*axes: Sequence[Any]) -> list[Any]:
    """Every case of the product, those that bring no new pair marked `soak`."""
    chosen = set(covering([len(axis) for axis in axes]))
    return [
        pytest.param(
            *(axis[at] for axis, at in zip(axes, case, strict=True)), marks=[pytest.mark.soak] * (case not in chosen)
        )
        for case in product(*(range(len(axis)) for axis in axes))
    ]


def covering(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Few cases, by index in each axis, in which any two values of different axes meet: the best next, until all do."""
    cases = list(product(*(range(size) for size in sizes)))
    missing = {pair for case in cases for pair in met(case)}
    chosen = []
    while missing:
        best = max(cases, key=lambda case: len(met(case) & missing))
        missing -= met(best)
        chosen.append(best)
    return chosen


def met(case: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    return set(combinations(enumerate(case), 2))
