"""A copy of the rows: a narrow, rotated one that bounds every cosine from above.

What the first few directions leave open is bounded by Cauchy-Schwarz. Nothing here ranks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import gather_cost, scan_cost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

PROGRESS_BYTES = 2**31  # of rows, from which on the making takes long enough to show a bar
LEVEL_COLUMNS = (64, 128, 256)  # widths that a level may have
MAX_COLUMNS = 512  # of all levels together
BLOCK_ROWS = 4096  # that are projected together
SUMMED_COLUMNS = 128  # whose products are summed in float32
SAMPLE_ROWS = 4096  # that the directions are computed from
TRIAL_ROWS_QUERIES_K = (2048, 32, 10)  # rows and queries that measure the survivors, for so many
BATCH_QUERIES = 100  # that a copy is chosen for, beside a single one
PREPARING = "Preparing the library for search"
FLOAT32_ULP = 2.0**-24


class PrunedCopy(NamedTuple):
    """The copy: levels of columns, each a closer look than the one before; none if none pays."""

    basis: NDArray[np.float32]  # (D, L·w), nearly orthonormal columns
    levels: NDArray[np.float32]  # (L, N, w), the rows along these columns
    residual_norms: NDArray[np.float32]  # (L, N), of what the levels so far leave out, rounded up
    survivor_shares: tuple[float, ...]  # (L,) of the rows that a level cannot rule out
    square_error: float  # bounds the rounding error of a squared residual norm ...
    score_error: float  # ... and of a cosine

    def project(
        self, vectors: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Project queries as rows: (L, Q, w) along the columns, and (L, Q) residual norms."""
        projections = project_rows(vectors, self.basis)
        count = len(self.survivor_shares)
        norms = residual_norms(vectors, projections, count, self.square_error)
        levels = projections.reshape(len(vectors), count, -1).transpose(1, 0, 2)
        return np.ascontiguousarray(levels), norms

    def depth(self, queries: int) -> int:
        """How many levels to read whole for so many queries at once; 0 if all rows cost less."""
        return best_depth(self.basis.shape[0], self.levels.shape[2], self.survivor_shares, queries)[
            0
        ]


def best_depth(
    dim: int, width: int, survivor_shares: tuple[float, ...], queries: int
) -> tuple[int, float]:
    """Find the cheapest number of levels to read whole, and its cost per row and query."""
    costs = [scan_cost(dim, queries)]
    for depth in range(1, len(survivor_shares) + 1):
        widths = [width] * (len(survivor_shares) - depth) + [dim]
        later = zip(survivor_shares[depth - 1 :], widths, strict=True)
        gathers = sum(share * gather_cost(wide) for share, wide in later)
        costs.append(scan_cost(width * depth, queries) + gathers)
    depth = int(np.argmin(costs))
    return depth, costs[depth]


stopping = threading.Event()  # set when the process ends


class StoppedError(Exception):
    """The process ends while a copy is made in the background."""


class Plan(NamedTuple):
    """The directions that a copy keeps, in levels of equal width."""

    basis: NDArray[np.float32]  # (D, L·w)
    width: int
    survivor_shares: tuple[float, ...]  # (L,)


def make_plan(rows: NDArray[np.float32]) -> Plan:
    """Choose the levels that cost least on a sample of the rows themselves."""
    dim = int(rows.shape[1])
    rng = np.random.default_rng(0)
    step = min(LEVEL_COLUMNS)
    basis = leading_directions(rows, min(MAX_COLUMNS, dim) // step * step, rng)
    survivor_shares = _measure_survivors(rows, basis, step, rng)

    def cost(width: int, count: int) -> float:
        """Cost relative to reading all, single and in a batch; and a little for the space."""
        some = tuple(survivor_shares[width * level // step - 1] for level in range(1, count + 1))
        costs = [best_depth(dim, width, some, q)[1] / scan_cost(dim, q) for q in (1, BATCH_QUERIES)]
        return sum(costs) + width * count / dim / 8

    options = [(step, 0)]
    options += [(w, n) for w in LEVEL_COLUMNS for n in range(1, basis.shape[1] // w + 1)]
    width, count = min(options, key=lambda option: cost(*option))
    kept = tuple(survivor_shares[width * level // step - 1] for level in range(1, count + 1))
    return Plan(np.ascontiguousarray(basis[:, : width * count]), width, kept)


def leading_directions(
    rows: Any,  # noqa: ANN401 (an array, or what is indexed as one)
    wide: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Find where a sample of the rows has most of its energy: (D, wide) orthonormal columns."""
    count, dim = rows.shape
    if not wide:
        return np.empty((dim, 0), np.float32)
    sample = rows[np.sort(rng.choice(count, min(SAMPLE_ROWS, count), replace=False))]
    with one_blas_thread():  # many steps so short that two would mostly wait
        _, vectors = np.linalg.eigh(sample.T @ sample)
        basis, _ = np.linalg.qr(vectors[:, : -wide - 1 : -1].astype(np.float64))
    return np.asarray(basis, np.float32)


def _measure_survivors(
    rows: NDArray[np.float32], basis: NDArray[np.float32], step: int, rng: np.random.Generator
) -> list[float]:
    """Measure what share of the rows is not ruled out after each `step` columns."""
    sample, queries, wanted = TRIAL_ROWS_QUERIES_K
    chosen = rng.permutation(len(rows))[: sample + queries]
    asked, seen = rows[chosen[:queries]], rows[np.sort(chosen)]
    best = np.full((len(asked), wanted), -np.inf, np.float32)
    for _, block in _blocks(rows):
        best = np.partition(np.hstack([best, asked @ block.T]), -wanted, axis=1)[:, -wanted:]
    kth_best = best.min(axis=1, keepdims=True)
    projections = [project_rows(some, basis) for some in (asked, seen)]
    survivor_shares = []
    for wide in range(step, basis.shape[1] + 1, step):
        ours, theirs = (projection[:, :wide] for projection in projections)
        norms = [residual_norms(asked, ours, 1, 0.0)[0], residual_norms(seen, theirs, 1, 0.0)[0]]
        bounds = ours @ theirs.T + np.multiply.outer(*norms)
        survivor_shares.append(float(np.mean(bounds >= kth_best)))
    return survivor_shares


def _blocks(
    rows: NDArray[np.float32], shown: str | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the rows in parts, with the number of the first of each."""
    starts = range(0, len(rows), BLOCK_ROWS)
    for i in tqdm(starts, desc=shown, disable=not shown or rows.nbytes < PROGRESS_BYTES):
        if stopping.is_set():
            raise StoppedError("the process ends")
        yield i, np.asarray(rows[i : i + BLOCK_ROWS])


def project_rows(rows: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of rows and columns: (n, W). Short sums in float32, the long one in float64."""
    projections = np.zeros((len(rows), basis.shape[1]))
    for i in range(0, len(basis), SUMMED_COLUMNS):
        projections += rows[:, i : i + SUMMED_COLUMNS] @ basis[i : i + SUMMED_COLUMNS]
    return projections.astype(np.float32)


# Let x and q be unit vectors, B the basis with BᵀB = I + E, h and g what `project_rows` makes of
# x and q, each off from Bᵀx and Bᵀq by at most d, and r = x - Bh, s = q - Bg the residuals. Then
#   x·q = h·g + h·Eg + h·(Bᵀs) + (Bᵀr)·g + r·s <= h·g + |r||s| + 2d + 3|E|
#   |r|² = |x|² - |h|² - 2h·(Bᵀx - h) + h·Eh  <= |x|² - |h|² + 2d + |E|
# and every prefix of the columns obeys the same. After FEXIPRO (Li et al., SIGMOD 2017), which
# rotates and bounds likewise; the roundings are bounded as in Higham (2002, ch. 3).


def rounding_bounds(basis: NDArray[np.float32]) -> tuple[float, float]:
    """Bound the rounding errors of |r|², and of x·q with the float32 sums over all levels."""
    width = basis.shape[1]
    exact = basis.astype(np.float64)
    skew = float(np.linalg.norm(exact.T @ exact - np.eye(width))) + 1e-10  # |E|
    off = (np.sqrt(width) * SUMMED_COLUMNS + 1) * FLOAT32_ULP  # d
    return 1.01 * (2 * off + skew), 1.01 * (2 * off + 3 * skew + (width + 16) * FLOAT32_ULP)


def residual_norms(
    rows: NDArray[np.float32], projections: NDArray[np.float32], count: int, square_error: float
) -> NDArray[np.float32]:
    """Norm of what the levels up to each leave out, rounded up: (count, n)."""
    total = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    squares = np.square(projections, dtype=np.float64).reshape(len(rows), count, -1).sum(axis=2)
    left = np.maximum(total - squares.cumsum(axis=1).T, 0) + square_error
    norms = np.sqrt(left).astype(np.float32)
    return np.asarray(np.nextafter(norms, np.float32(np.inf)))


Put = Callable[[int, "NDArray[np.float32]"], object]
Fill = Callable[[Put], None]


def fill_copy(rows: NDArray[np.float32], plan: Plan, put: Put, *, progress: bool = True) -> None:
    """Compute the copy, a block of rows at a time, and put each part where it belongs."""
    count, total = len(plan.survivor_shares), len(rows)
    square_error, _ = rounding_bounds(plan.basis)
    put(0, plan.basis)
    for start, block in _blocks(rows, PREPARING if progress else None):
        projections = project_rows(block, plan.basis)
        norms = residual_norms(block, projections, count, square_error)
        for level in range(count):
            first = plan.basis.size + (level * total + start) * plan.width
            put(first, projections[:, level * plan.width : (level + 1) * plan.width])
            of_norms = plan.basis.size + total * count * plan.width
            put(of_norms + level * total + start, norms[level])


def copy_size(rows: NDArray[np.float32], plan: Plan) -> int:
    """How many numbers the copy holds."""
    return plan.basis.size + len(rows) * len(plan.survivor_shares) * (plan.width + 1)


def split_copy(
    flat: NDArray[np.float32], shape: tuple[int, ...], survivor_shares: tuple[float, ...]
) -> PrunedCopy:
    """Find the parts of a copy in the file that holds them one after the other."""
    rows, dim = shape
    count = len(survivor_shares)
    width = (flat.size - rows * count) // (count * (dim + rows))
    sizes = [dim * count * width, rows * count * width]
    basis, levels, norms = np.split(flat, np.cumsum(sizes))
    basis = np.array(basis).reshape(dim, count * width)
    return PrunedCopy(
        basis,
        levels.reshape(count, rows, width),
        norms.reshape(count, rows),
        survivor_shares,
        *rounding_bounds(basis),
    )


def in_memory(rows: NDArray[np.float32], plan: Plan, fill: Fill | None = None) -> PrunedCopy:
    """Make a copy in memory."""
    if not plan.survivor_shares:
        return empty_copy(*rows.shape)
    flat = np.empty(copy_size(rows, plan), np.float32)

    def put(start: int, values: NDArray[np.float32]) -> None:
        flat[start : start + values.size] = values.ravel()

    (fill or partial(fill_copy, rows, plan))(put)
    return split_copy(flat, rows.shape, plan.survivor_shares)


def empty_copy(rows: int, dim: int) -> PrunedCopy:
    """Stand for a copy where none pays."""
    empty = np.empty((0, rows), np.float32)
    return PrunedCopy(np.empty((dim, 0), np.float32), empty[:, :, None], empty, (), 0.0, 0.0)
