"""Tables of row keys: as many bytes strings as there are rows, in two arrays."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nudge_vdb.keys import KeyTable

keys_lists = st.lists(st.binary(max_size=12), unique=True, max_size=30)


@given(keys_lists)
def test_a_table_holds_the_keys_it_was_made_of_in_their_order(keys):
    table = KeyTable.of(iter(keys))
    assert list(table) == keys
    assert len(table) == len(keys)
    assert table.offsets.tolist() == [sum(map(len, keys[:place])) for place in range(len(keys) + 1)]


@given(keys_lists, keys_lists)
def test_every_key_is_found_at_its_place_and_no_other_is(keys, others):
    table = KeyTable.of(keys)
    asked = [*reversed(keys), *others]
    assert table.find(asked).tolist() == [keys.index(key) if key in keys else -1 for key in asked]


@given(keys_lists.filter(bool), st.data())
def test_keys_are_returned_in_the_order_of_the_places_asked(keys, data):
    places = data.draw(st.lists(st.integers(0, len(keys) - 1)))
    assert KeyTable.of(keys).at(np.array(places, np.int64)) == [keys[place] for place in places]


@given(keys_lists)
def test_a_table_survives_being_kept_as_its_two_arrays(keys):
    table = KeyTable.of(keys)
    offsets = np.frombuffer(table.offsets.tobytes(), np.int64)
    assert list(KeyTable(offsets, np.frombuffer(table.content.tobytes(), np.uint8))) == keys


def test_an_empty_table_has_no_keys_and_finds_none():
    table = KeyTable.of([])
    assert list(table) == []
    assert table.find([b"a"]).tolist() == [-1]
    assert table.find([]).dtype == np.int64
    assert table.at([]) == []


@pytest.mark.parametrize("place", [2, 100, -1, -3])
def test_a_place_outside_the_table_is_an_error_and_never_some_other_key(place):
    """The place of a key that was not found is −1, so counting from the end would hide a mistake."""
    table = KeyTable.of([b"a", b"bc"])
    with pytest.raises(IndexError):
        table[place]
    with pytest.raises(IndexError):
        table.at([0, place])


@given(keys_lists, keys_lists)
def test_keys_whose_hashes_are_all_the_same_are_told_apart(keys, others):
    table, asked = KeyTable.of(keys), [*reversed(keys), *others]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyTable, "_hashes", lambda _, part: np.zeros(part.stop - part.start, np.uint64))
        assert table.find(asked).tolist() == [keys.index(key) if key in keys else -1 for key in asked]


@given(keys_lists, keys_lists)
def test_a_table_that_is_gone_through_in_parts_finds_the_same(keys, others):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nudge_vdb.keys.KEYS_AT_ONCE", 3)
        table, asked = KeyTable.of(keys), [*reversed(keys), *others]
        assert table.find(KeyTable.of(asked)).tolist() == [keys.index(key) if key in keys else -1 for key in asked]
        assert list(table) == keys


@given(keys_lists.filter(bool), st.data())
def test_a_selection_is_a_table_of_the_keys_at_the_places_asked(keys, data):
    places = data.draw(st.lists(st.integers(0, len(keys) - 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nudge_vdb.keys.KEYS_AT_ONCE", 3)
        chosen = KeyTable.of(keys).select(places)
    assert list(chosen) == [keys[place] for place in places]
    assert chosen.offsets.tolist()[0] == 0


@given(keys_lists, st.booleans(), st.sampled_from([3, 64]))
@example([b"a\0", b"a", b"", b"\0", b"a\0\0", b"12345678", b"12345678\0", b"\xff"], False, 64)
def test_the_order_of_a_table_is_that_of_its_keys(keys, ascending, padded):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nudge_vdb.keys.KEYS_AT_ONCE", 2)
        patch.setattr("nudge_vdb.keys.PADDED", padded)
        table = KeyTable.of(sorted(keys) if ascending else keys)
        assert [table[int(place)] for place in table.order()] == sorted(keys)


@given(st.lists(keys_lists, max_size=4))
def test_a_union_holds_every_key_once_in_order(lists):
    union = KeyTable.union(map(KeyTable.of, lists))
    assert list(union) == sorted({key for keys in lists for key in keys})


@given(keys_lists, keys_lists)
def test_tables_are_the_same_if_their_keys_are(keys, others):
    assert KeyTable.of(keys).same(KeyTable.of(list(keys)))
    assert KeyTable.of(keys).same(KeyTable.of(others)) == (keys == others)
