"""Row digests: equal rows are found again wherever they stand, and no others."""

import copy

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.library import row_digests as module
from simsearch.library.row_digests import digests_of, match_rows, row_digests


def match_by_hand(old, new):
    """The oracle: a queue of old rows for each content."""
    queues = {}
    for i, key in enumerate(old):
        queues.setdefault(key, []).append(i)
    return [queues[key].pop(0) if queues.get(key) else -1 for key in new]


@settings(max_examples=300, deadline=None)
@given(old=st.lists(st.integers(0, 6)), new=st.lists(st.integers(0, 6)))
def test_rows_are_matched_one_to_one_by_content(old, new):
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    keys = [row_digests(rows[np.array(which, int)]) for which in (old, new)]
    assert match_rows(*keys).tolist() == match_by_hand(old, new)


def test_a_change_of_one_bit_is_another_row():
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    changed = rows.copy()
    changed.view(np.uint32)[np.arange(50), np.arange(50) % 8] ^= 1
    assert (match_rows(row_digests(rows), row_digests(changed)) == -1).all()
    assert (match_rows(row_digests(rows), row_digests(rows[:, :7])) == -1).all()


def test_digests_do_not_depend_on_blocks_or_memory_order(monkeypatch):
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    whole = row_digests(rows)
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    np.testing.assert_array_equal(row_digests(np.asfortranarray(rows)), whole)
    np.testing.assert_array_equal(row_digests(rows[::2]), whole[::2])


def test_a_library_that_comes_to_hold_other_rows_gets_other_digests():
    library = ss.ImageLibrary(np.eye(4), list("abcd"))
    first = digests_of(library)
    assert digests_of(library) is first
    part = copy.copy(library)
    part.embeddings = library.embeddings[::2]
    assert len(digests_of(part)) == 2
    assert digests_of(library) is first
