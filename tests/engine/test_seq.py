"""Block numbers in native code: checked against the plain arithmetic of protocol.seq."""

import pytest

from snow_owl_tftp.protocol import seq

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from snow_owl_tftp._engine import probe

EDGES = [0, 1, 2, 65534, 65535, 65536, 65537, 131069, 131070, 131071, 131072, 196605, 196606, 2**33]


@pytest.mark.parametrize("block_index", EDGES)
@pytest.mark.parametrize("rollover", list(seq.Rollover))
def test_block_of_an_index_is_the_models(block_index, rollover):
    assert probe.block_of(block_index, rollover) == seq.block_of(block_index, rollover)


def test_rollover_to_0_goes_on_with_0_and_rollover_to_1_with_1():
    assert [probe.block_of(i, 0) for i in (65534, 65535, 65536, 65537)] == [65534, 65535, 0, 1]
    assert [probe.block_of(i, 1) for i in (65534, 65535, 65536, 65537)] == [65534, 65535, 1, 2]
    assert [probe.block_of(i, 1) for i in (131070, 131071)] == [65535, 1]


@pytest.mark.parametrize("reference", EDGES)
def test_an_index_is_found_from_every_block_near_a_reference(reference):
    for ahead in (0, 1, 2, 32767, 32768, 65534, 65535):
        assert probe.index_from(reference, (reference + ahead) % 65536) == reference + ahead
        assert seq.index_from(reference, (reference + ahead) % 65536) == reference + ahead


def test_the_reference_before_everything_is_index_minus_1():
    # While the OACK is in flight window_base is 0, so the ACK before it would be -1: nobody can send that one.
    assert probe.index_from(-1, 65535) == -1
    assert probe.index_from(-1, 0) == 0


@pytest.mark.parametrize("rollover", list(seq.Rollover))
@pytest.mark.parametrize("expected", [index for index in EDGES if index])
def test_ahead_counts_from_the_expected_block(expected, rollover):
    for steps in (0, 1, 2, 32767, 65533):
        block = seq.block_of(expected + steps, rollover)
        assert probe.ahead_of(expected, block, rollover) == seq.ahead_of(expected, block, rollover) == steps


@pytest.mark.parametrize("rollover", list(seq.Rollover))
@pytest.mark.parametrize("expected", [index for index in EDGES if index > 1])
def test_the_block_before_is_known_by_65535_whatever_follows_it(expected, rollover):
    block = seq.block_of(expected - 1, rollover)
    assert probe.ahead_of(expected, block, rollover) == seq.ahead_of(expected, block, rollover) == 65535


@pytest.mark.parametrize("reference", [index for index in EDGES if index])
def test_with_rollover_to_1_an_index_is_found_and_0_is_beyond_every_window(reference):
    for ahead in (0, 1, 2, 65533, 65534):
        block = seq.block_of(reference + ahead, seq.Rollover.TO_1)
        assert probe.index_from(reference, block, 1) == reference + ahead
        assert seq.index_from(reference, block, seq.Rollover.TO_1) == reference + ahead
    assert probe.index_from(reference, 0, 1) == seq.index_from(reference, 0, seq.Rollover.TO_1) > reference + 65535
