"""Background normalisation: against its definition, with filters, thresholds and deleted rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.errors import LibraryError
from simsearch.retrieval import background


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def library_of(rows):
    return ss.ImageLibrary(rows, [f"{'ab'[i % 2]}/{i:04d}.jpg" for i in range(len(rows))])


def random_rows(count, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((count, dim)) + 0.7 * rng.standard_normal(dim))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 60),
    bank=st.integers(1, 80),
    candidates=st.integers(1, 70),
    k=st.integers(1, 70),
    seed=st.integers(0, 10**6),
)
def test_the_order_is_that_of_the_definition(count, bank, candidates, k, seed):
    rows = random_rows(count, seed=seed)
    query = random_rows(1, seed=seed + 1)[0]
    drawn = np.random.default_rng(0).choice(count, min(bank, count), replace=False)
    cosines = rows.astype(np.float64) @ query
    usual = np.array([(rows[drawn].astype(np.float64) @ row).mean() for row in rows])
    plain = np.argsort(-cosines, kind="stable")
    best = sorted(plain[:candidates], key=lambda i: usual[i] - cosines[i])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "BANK_ROWS", bank)
        patch.setattr(background, "CANDIDATES", candidates)
        found = ss.search(library_of(rows), query, k=k, rerank="background")
    assert [match.row for match in found] == [*best, *plain[candidates:]][:k]
    np.testing.assert_allclose(found.scores, cosines[[match.row for match in found]], atol=1e-6)


def test_an_image_that_is_near_to_everything_comes_later():
    rng = np.random.default_rng(0)
    centre = np.eye(8)[0]
    rows = unit(0.5 * centre + rng.standard_normal((300, 8)) * 0.5)
    rows[0], rows[1] = unit(centre), unit(0.4 * centre + 0.9165 * np.eye(8)[1])
    query = unit(0.75 * centre + 0.66 * np.eye(8)[1])
    library = library_of(rows[:2].tolist() + rows[2:].tolist())
    plain, found = (
        [match.row for match in ss.search(library, query, k=300, rerank=rerank)]
        for rerank in (None, "background")
    )
    assert found.index(0) - found.index(1) > plain.index(0) - plain.index(1)


def test_filters_thresholds_and_several_queries_hold_as_they_always_do():
    library = library_of(random_rows(400))
    plain = ss.search(library, 7, k=400, threshold=0.3, where="a/*")
    found = ss.search(library, 7, k=400, threshold=0.3, where="a/*", rerank="background")
    assert sorted(found.paths) == sorted(plain.paths)
    assert found.paths != plain.paths
    several = ss.search(library, [3, 8], k=20, rerank="background")
    assert several[0].paths == ss.search(library, 3, k=20, rerank="background").paths
    assert len(ss.search(library, 7, threshold=1.0, rerank="background")) == 0


class Published:
    """A library whose rows 0 and 5 were deleted, so that the bank has to do without."""

    row_limit = 8

    def __init__(self, rows):
        self.rows, self.row_lookup, self.embeddings = rows, self, self

    def __len__(self):
        return 6

    def has_row(self, row):
        return row not in (0, 5)

    def __getitem__(self, rows):
        if not all(map(self.has_row, rows)):
            raise LibraryError("no such row")
        return self.rows[rows]


def test_deleted_rows_are_not_in_the_bank_and_it_is_read_once():
    rows = random_rows(8)
    library = Published(rows)
    expected = rows[[1, 2, 3, 4, 6, 7]].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(background.bank_mean(library), expected, atol=1e-7)
    assert background.bank_mean(library) is background.bank_mean(library)


def test_other_rows_of_the_same_number_have_a_bank_of_their_own():
    library = library_of(random_rows(50))
    ss.search(library, 3, k=9, rerank="background")
    for seed in range(1, 30):  # an address in memory comes again, once what was there has gone
        rows = random_rows(50, seed=seed)
        library.embeddings = rows.copy()
        expected = rows.astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(background.bank_mean(library), expected, atol=1e-7)


def test_with_diversity_it_is_refused():
    with pytest.raises(ss.QueryError, match="give one of the two"):
        ss.search(library_of(random_rows(9)), 1, rerank="background", diversity=0.2)
