"""A narrow, rotated copy of a library's rows that bounds every cosine from above.

What it cannot tell from the first few directions, it bounds by Cauchy-Schwarz, so that most rows
are out of the race before they are read. Made once and stored beside the library; a copy that is
stale or damaged is made anew. Nothing here knows the answer to a query.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from simsearch.files import write_text
from simsearch.library.files import is_sealed, seal_file
from simsearch.retrieval.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, Literal

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary


FORMAT = 1
SKETCH, FACTS = "sketch.npy", "sketch.json"

_LEAST_BYTES = 10**8  # of rows, from which on a copy is worth its making
_SHOWN_BYTES = 2**31  # of rows, from which on the making takes long enough to be shown
_WIDTHS = (64, 128, 256)  # of a level
_DEEPEST = 512  # columns of all levels together
_BLOCK = 4096  # rows that are projected together
_CHUNK = 128  # columns whose products are summed in float32
_SAMPLE = 4096  # rows that tell the directions
_JUDGES = (2048, 32, 10)  # rows and queries that tell the survivors, and how many a query wants

# What things cost, in the time to stream one float32: measured with OpenBLAS on two cores.
_BATCH = 100  # queries that a copy is chosen for, beside a single one
_FLOP = 1 / 16  # of a product that more queries share
_GATHER, _GATHER_ROW = 1.75, 60.0  # a float32 out of turn, and the start of each row

_ULP = 2.0**-24


class PrunedIndex(NamedTuple):
    """The copy: levels of columns, each a closer look than the one before; none if none pays."""

    basis: NDArray[np.float32]  # (D, L·w), nearly orthonormal columns
    levels: NDArray[np.float32]  # (L, N, w), the rows along these columns
    rests: NDArray[np.float32]  # (L, N), at least the norm of what the levels so far leave out
    shares: tuple[float, ...]  # (L,) of the rows that a level leaves in the race
    rounding: float  # at most what rounding hides of the square of a rest ...
    slack: float  # ... and of a cosine

    def project(
        self, vectors: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Look at queries as at rows: (L, Q, w) along the columns, and (L, Q) norms of the rest."""
        heads = _project(vectors, self.basis)
        count = len(self.shares)
        rests = _rests(vectors, heads, count, self.rounding)
        levels = heads.reshape(len(vectors), count, -1).transpose(1, 0, 2)
        return np.ascontiguousarray(levels), rests

    def depth(self, queries: int) -> int:
        """How many levels to read whole for so many queries at once; 0 if all rows cost less."""
        return _depth(self.basis.shape[0], self.levels.shape[2], self.shares, queries)[0]


def pruned_index_of(library: ImageLibrary) -> PrunedIndex | None:
    """Open the copy of a library's rows, or make it; None where the rows are few."""
    rows = library.embeddings
    if rows.nbytes < _LEAST_BYTES:
        return None
    with _lock:
        known = _known.get(library)
        if known is None or known[0] is not rows:
            known = _known[library] = (rows, _open(library) or _make(library))
    return known[1]


_lock = threading.Lock()
# With the rows that each belongs to: a library may come to hold others.
_known: WeakKeyDictionary[ImageLibrary, tuple[NDArray[np.float32], PrunedIndex]] = (
    WeakKeyDictionary()
)


def plain_cost(dim: int, queries: float) -> float:
    """Cost of reading every row whole, a row and query."""
    return dim * (1 / queries + _FLOP)


def gather_cost(dim: int) -> float:
    """Cost of reading one row out of turn."""
    return _GATHER_ROW + _GATHER * dim


def _depth(dim: int, width: int, shares: tuple[float, ...], queries: int) -> tuple[int, float]:
    """Find the cheapest number of levels to read whole, and its cost a row and query."""
    costs = [plain_cost(dim, queries)]
    for depth in range(1, len(shares) + 1):
        widths = [width] * (len(shares) - depth) + [dim]
        later = zip(shares[depth - 1 :], widths, strict=True)
        gathers = sum(share * gather_cost(wide) for share, wide in later)
        costs.append(plain_cost(width * depth, queries) + gathers)
    depth = int(np.argmin(costs))
    return depth, costs[depth]


class _Plan(NamedTuple):
    """The directions that a copy keeps, in levels of equal width."""

    basis: NDArray[np.float32]  # (D, L·w)
    width: int
    shares: tuple[float, ...]  # (L,)


def _plan(rows: NDArray[np.float32]) -> _Plan:
    """Choose the levels that cost least on a sample of the rows themselves."""
    dim = int(rows.shape[1])
    rng = np.random.default_rng(0)
    basis = _directions(rows, rng)
    step = min(_WIDTHS)
    shares = _survivors(rows, basis, step, rng)

    def cost(width: int, count: int) -> float:
        """Cost relative to reading all, single and in a batch; and a little for the space."""
        some = tuple(shares[width * level // step - 1] for level in range(1, count + 1))
        costs = [_depth(dim, width, some, q)[1] / plain_cost(dim, q) for q in (1, _BATCH)]
        return sum(costs) + width * count / dim / 8

    options = [(step, 0)]
    options += [(w, n) for w in _WIDTHS for n in range(1, basis.shape[1] // w + 1)]
    width, count = min(options, key=lambda option: cost(*option))
    kept = tuple(shares[width * level // step - 1] for level in range(1, count + 1))
    return _Plan(np.ascontiguousarray(basis[:, : width * count]), width, kept)


def _directions(rows: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Find where a sample of the rows has most of its energy: (D, W) orthonormal columns."""
    count, dim = rows.shape
    wide = min(_DEEPEST, dim) // min(_WIDTHS) * min(_WIDTHS)
    if not wide:
        return np.empty((dim, 0), np.float32)
    sample = rows[np.sort(rng.choice(count, min(_SAMPLE, count), replace=False))]
    with one_blas_thread():  # many steps so short that two would mostly wait
        _, vectors = np.linalg.eigh(sample.T @ sample)
        basis, _ = np.linalg.qr(vectors[:, : -wide - 1 : -1].astype(np.float64))
    return np.asarray(basis, np.float32)


def _survivors(
    rows: NDArray[np.float32], basis: NDArray[np.float32], step: int, rng: np.random.Generator
) -> list[float]:
    """Count what share of the rows is in the race after each so many columns."""
    sample, queries, wanted = _JUDGES
    chosen = rng.permutation(len(rows))[: sample + queries]
    asked, seen = rows[chosen[:queries]], rows[np.sort(chosen)]
    best = np.full((len(asked), wanted), -np.inf, np.float32)
    for _, block in _blocks(rows):
        scores = np.concatenate([best, asked @ block.T], axis=1)
        best = np.partition(scores, -wanted, axis=1)[:, -wanted:]
    bar = best.min(axis=1, keepdims=True)
    heads = [_project(some, basis) for some in (asked, seen)]
    shares = []
    for wide in range(step, basis.shape[1] + 1, step):
        ours, theirs = (head[:, :wide] for head in heads)
        rests = [_rests(asked, ours, 1, 0.0)[0], _rests(seen, theirs, 1, 0.0)[0]]
        bounds = ours @ theirs.T + np.multiply.outer(*rests)
        shares.append(float(np.mean(bounds >= bar)))
    return shares


def _blocks(
    rows: NDArray[np.float32], shown: str | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the rows in parts, with the number of the first of each."""
    starts = range(0, len(rows), _BLOCK)
    for i in tqdm(starts, desc=shown, disable=not shown or rows.nbytes < _SHOWN_BYTES):
        yield i, np.asarray(rows[i : i + _BLOCK])


def _project(rows: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of rows and columns: (n, W). Short sums in float32, the long one in float64."""
    heads = np.zeros((len(rows), basis.shape[1]))
    for i in range(0, len(basis), _CHUNK):
        heads += rows[:, i : i + _CHUNK] @ basis[i : i + _CHUNK]
    return heads.astype(np.float32)


# Let x and q be unit vectors, B the basis with BᵀB = I + E, h and g what `_project` makes of x and
# q, each off from Bᵀx and Bᵀq by at most d, and r = x - Bh, s = q - Bg what they leave out. Then
#   x·q = h·g + h·Eg + h·(Bᵀs) + (Bᵀr)·g + r·s <= h·g + |r||s| + 2d + 3|E|
#   |r|² = |x|² - |h|² - 2h·(Bᵀx - h) + h·Eh  <= |x|² - |h|² + 2d + |E|
# and every prefix of the columns obeys the same. After FEXIPRO (Li et al., SIGMOD 2017), which
# rotates and bounds likewise; the roundings are bounded as in Higham (2002, ch. 3).


def _roundings(basis: NDArray[np.float32]) -> tuple[float, float]:
    """Bound what rounding hides of |r|², and of x·q with the float32 sums over all levels."""
    width = basis.shape[1]
    exact = basis.astype(np.float64)
    skew = float(np.linalg.norm(exact.T @ exact - np.eye(width))) + 1e-10  # |E|
    off = (np.sqrt(width) * _CHUNK + 1) * _ULP  # d
    return 1.01 * (2 * off + skew), 1.01 * (2 * off + 3 * skew + (width + 16) * _ULP)


def _rests(
    rows: NDArray[np.float32], heads: NDArray[np.float32], count: int, rounding: float
) -> NDArray[np.float32]:
    """Norm of what the levels up to each leave out, rounded up: (count, n)."""
    total = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    squares = np.square(heads, dtype=np.float64).reshape(len(rows), count, -1).sum(axis=2)
    left = np.maximum(total - squares.cumsum(axis=1).T, 0) + rounding
    rests = np.sqrt(left).astype(np.float32)
    return np.asarray(np.nextafter(rests, np.float32(np.inf)))


_Put = Callable[[int, "NDArray[np.float32]"], object]


def _fill(rows: NDArray[np.float32], plan: _Plan, put: _Put) -> None:
    """Compute the copy, a block of rows at a time, and put each part where it belongs."""
    count, total = len(plan.shares), len(rows)
    rounding, _ = _roundings(plan.basis)
    put(0, plan.basis)
    for start, block in _blocks(rows, "Preparing the library for search"):
        heads = _project(block, plan.basis)
        rests = _rests(block, heads, count, rounding)
        for level in range(count):
            first = plan.basis.size + (level * total + start) * plan.width
            put(first, heads[:, level * plan.width : (level + 1) * plan.width])
            put(plan.basis.size + total * count * plan.width + level * total + start, rests[level])


def _size(rows: NDArray[np.float32], plan: _Plan) -> int:
    """How many numbers the copy holds."""
    return plan.basis.size + len(rows) * len(plan.shares) * (plan.width + 1)


def _split(
    flat: NDArray[np.float32], shape: tuple[int, ...], shares: tuple[float, ...]
) -> PrunedIndex:
    """Find the parts of a copy in the file that holds them one after the other."""
    rows, dim = shape
    count = len(shares)
    width = (flat.size - rows * count) // (count * (dim + rows))
    basis, levels, rests = np.split(flat, np.cumsum([dim * count * width, rows * count * width]))
    basis = np.array(basis).reshape(dim, count * width)
    return PrunedIndex(
        basis,
        levels.reshape(count, rows, width),
        rests.reshape(count, rows),
        shares,
        *_roundings(basis),
    )


def _make(library: ImageLibrary) -> PrunedIndex:
    """Make a copy and store it; where it cannot be stored it is kept in memory."""
    rows = np.asarray(library.embeddings)
    plan = _plan(rows)
    if library.stored:
        try:
            _store(*library.stored, rows, plan)
        except OSError:  # read-only, full, or another process is just storing its own
            pass
        else:
            return _open(library) or _in_memory(rows, plan)
    return _in_memory(rows, plan)


def _in_memory(rows: NDArray[np.float32], plan: _Plan) -> PrunedIndex:
    if not plan.shares:
        return _none(*rows.shape)
    flat = np.empty(_size(rows, plan), np.float32)

    def put(start: int, values: NDArray[np.float32]) -> None:
        flat[start : start + values.size] = values.ravel()

    _fill(rows, plan, put)
    return _split(flat, rows.shape, plan.shares)


def _none(rows: int, dim: int) -> PrunedIndex:
    """Stand for a copy where none pays."""
    empty = np.empty((0, rows), np.float32)
    return PrunedIndex(np.empty((dim, 0), np.float32), empty[:, :, None], empty, (), 0.0, 0.0)


def _store(folder: Path, digest: str, rows: NDArray[np.float32], plan: _Plan) -> None:
    """Write a copy beside its library; the facts come last, and tell whether it is whole."""
    facts: dict[str, Any] = {"format": FORMAT, "of": digest, "shares": plan.shares, "file": None}
    part = folder / f"{SKETCH}.part"
    with FileLock(folder / ".sketch.lock", timeout=0):
        try:
            if plan.shares:
                _write(part, rows, plan)
                facts["file"] = seal_file(part)
                part.replace(folder / SKETCH)
            facts["sha256"] = _digest(facts)
            write_text(folder / FACTS, json.dumps(facts, indent=2))
        finally:
            part.unlink(missing_ok=True)  # half a copy would keep a full disk full


def _write(part: Path, rows: NDArray[np.float32], plan: _Plan) -> None:
    with part.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (_size(rows, plan),)}
        np.lib.format.write_array_header_1_0(stream, header)
        begin = stream.tell()

        def put(start: int, values: NDArray[np.float32]) -> None:
            stream.seek(begin + 4 * start)
            stream.write(np.ascontiguousarray(values, "<f4").data)

        _fill(rows, plan, put)
        stream.flush()
        os.fsync(stream.fileno())


def _digest(facts: dict[str, Any]) -> str:
    text = json.dumps({**facts, "sha256": None}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _open(library: ImageLibrary) -> PrunedIndex | None:
    """Open the stored copy, if there is one of these very rows, and nothing happened to it."""
    if library.stored is None:
        return None
    folder, digest = library.stored
    # Windows cannot replace a file that is mapped, so there the copy is read instead.
    mode: Literal["r"] | None = "r" if os.name != "nt" else None
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        if (facts["format"], facts["of"], facts["sha256"]) != (FORMAT, digest, _digest(facts)):
            return None
        if not facts["shares"]:
            return _none(*library.embeddings.shape)
        if not is_sealed(folder / SKETCH, facts["file"]):
            return None
        flat = np.load(folder / SKETCH, mmap_mode=mode, allow_pickle=False)
        return _split(np.asarray(flat), library.embeddings.shape, tuple(facts["shares"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
