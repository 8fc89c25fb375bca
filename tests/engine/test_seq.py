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


def test_distance_goes_round_the_circle():
    for block, reference in [(0, 0), (1, 0), (0, 1), (0, 65535), (65535, 0), (5, 65530), (65530, 5)]:
        assert probe.distance(block, reference) == seq.distance(block, reference) == (block - reference) % 65536
