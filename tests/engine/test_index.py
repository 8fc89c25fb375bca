"""The hash index against a plain dictionary of lists, through growth, collisions and removals."""

import pytest

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from snow_owl_tftp._engine import probe

GREATEST_HASH = 2**32 - 1


def agree(index, model):
    for hash_, values in model.items():
        assert sorted(index.find(hash_)) == sorted(values), hash_
    assert index.used == sum(map(len, model.values()))
    assert index.used * 2 <= index.size


@pytest.mark.parametrize("hashes", [3, 50, 100_000], ids=["all collide", "many collide", "few collide"])
def test_the_index_finds_what_a_dictionary_finds(hashes, rng):
    # Hashes at the end of the table too, so that probing and removal wrap round.
    choices = [rng.choice([rng.randrange(hashes), GREATEST_HASH - rng.randrange(hashes)]) for _ in range(2000)]
    index, model = probe.IndexProbe(2), {}
    for step in range(6000):
        hash_ = rng.choice(choices)
        values = model.setdefault(hash_, [])
        if values and rng.random() < 0.48:
            value = values.pop(rng.randrange(len(values)))
            index.remove(hash_, value)
        else:
            values.append(step)
            index.add(hash_, step)
        if step % 97 == 0:
            agree(index, model)
    agree(index, model)
    for hash_, values in model.items():
        for value in values:
            index.remove(hash_, value)
    assert index.used == 0
    assert not any(map(index.find, model))


def test_what_was_never_added_is_not_found_and_removing_it_changes_nothing():
    index = probe.IndexProbe(4)
    assert index.find(7) == []
    index.add(7, 1)
    index.remove(7, 2)
    index.remove(11, 1)  # the same slot of a table of four
    assert index.find(7) == [1]
    assert index.find(11) == []


def test_it_grows_before_it_is_more_than_half_full_and_loses_nothing():
    index = probe.IndexProbe(2)
    for value in range(5000):
        index.add(value * 2654435761 % 2**32, value)
        assert index.used * 2 <= index.size
    assert all(index.find(value * 2654435761 % 2**32) == [value] for value in range(5000))


def test_value_0_and_the_greatest_slot_number_are_kept():
    index = probe.IndexProbe(2)
    index.add(0, 0)
    index.add(0, 2**31)
    assert sorted(index.find(0)) == [0, 2**31]


def test_the_hash_depends_on_every_byte_on_the_length_and_on_the_secret():
    data = bytes(range(1, 21))
    base = probe.keyed_hash(data, 1)
    assert probe.keyed_hash(data, 1) == base
    assert probe.keyed_hash(data, 2) != base
    for i in range(len(data)):
        assert probe.keyed_hash(data[:i] + b"\0" + data[i + 1 :], 1) != base
    assert len({probe.keyed_hash(bytes(n), 1) for n in range(30)}) == 30


def test_low_bits_of_the_hash_spread_neighbouring_ports():
    # 1024 TIDs of one address in a table of 2048: a hash that kept ports together would fill few slots.
    slots = {probe.keyed_hash(bytes((2, 0, port >> 8, port & 255, 127, 0, 0, 1)), 99) & 2047 for port in range(1024)}
    assert len(slots) > 700  # balls into bins: 2048 * (1 - e^-0.5) = 806 expected
