"""Queries made of numbers: arrays, tensors, series and lists, as embeddings or as pictures.

The rule, by shape, for a library of D-d embeddings:

- (D,) or (1, D): one embedding; (Q, D): Q of them, where its values cannot be pixels or its rows
  have unit norm;
- (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of bool, uint8, uint16 or floats in [0, 1]: one picture;
- what may be both is refused, and so is what is neither: floats below 0 or above 1, a single line
  of pixels, rows or columns of unit norm.
"""

from __future__ import annotations

import os
from array import array as array_type
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import ArrayError
from simsearch.images.arrays import embedding_sign, has_unit_rows, pixel_fault, refuse

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

MIN_SQUARED, MAX_SQUARED = 1e-100, 1e100  # whose squares neither vanish nor overflow


def split_queries(queries: Any, dim: int) -> tuple[list[Any], bool]:  # noqa: ANN401
    """Return the queries in what was given, and whether that stands for several.

    A list or tuple is several queries, unless it is one embedding: numbers, not all whole. A
    (Q, D) array of embeddings is several queries, unless Q is 1; so is an array of paths.
    """
    if isinstance(queries, (list, tuple)):
        if _is_vector(queries) and not all(isinstance(one, Integral) for one in queries):
            return [np.array(queries, object)], False
        return list(queries), True
    array = _to_array(queries)
    if array is not None and array.ndim == 1 and array.size and _is_paths(array):
        return array.tolist(), True
    if array is None or array.ndim != 2:
        return [queries], False
    read = _embeddings(array, dim)
    return ([queries], False) if read is None or len(read) == 1 else (list(read), True)


def read_numbers(query: Any, dim: int) -> Any:  # noqa: ANN401
    """Return one query as what it stands for.

    Returns
    -------
    int
        A row number, for an array of no dimension that holds a whole number.
    numpy.ndarray
        (D,) float32 of unit norm for an embedding; (H, W[, C]) for a picture.
    object
        Anything that is not made of numbers, as it was given.

    Raises
    ------
    ArrayError
        If it may be a picture and an embedding, or is neither.
    """
    nested = isinstance(query, (list, tuple)) and _is_numeric(query)
    array = _nested_array(query) if nested else _to_array(query)
    if array is None:
        return query
    if not array.ndim and array.dtype.kind in "iu":
        return int(array)
    if array.ndim == 1:
        return _unit(array, dim)
    vectors = _embeddings(array, dim)
    if vectors is not None and len(vectors) == 1:
        return vectors[0]
    if vectors is not None:
        raise ArrayError(
            f"an array of shape {array.shape} holds {len(array)} embeddings, and stands where one "
            "query is meant: give each row as a query of its own, such as [*array]"
        )
    if nested:
        raise refuse(array, "lists of numbers are no picture", dim)
    return array


def _embeddings(array: NDArray[Any], dim: int) -> NDArray[np.float32] | None:
    """Return the embeddings in an array that is not of one dimension; None if it is a picture."""
    fault = pixel_fault(array)
    if array.ndim == 2 and array.shape[1] == dim:
        certain = has_unit_rows(array) or (fault and array.dtype.kind != "b")
        if len(array) == 1 or certain:
            rows = [_unit(row, dim) for row in array]
            return np.array(rows, np.float32).reshape(-1, dim)
        raise refuse(array, f"it may be a picture or {len(array)} embeddings", dim)
    if reason := fault or embedding_sign(array, dim):
        raise refuse(array, reason, dim)
    return None


def _unit(vector: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """Check an embedding, and scale it to unit norm: (D,) float32."""
    values = _as_floats(vector)
    if values is not None and values.shape == (dim,) and np.isfinite(values).all() and values.any():
        largest = np.abs(values).max()
        if not MIN_SQUARED < largest < MAX_SQUARED:
            values /= largest
        unit: NDArray[np.float32] = (values / np.linalg.norm(values)).astype(np.float32)
        return unit
    raise ArrayError(
        f"an array of shape {vector.shape} and dtype {vector.dtype} is neither an image nor an "
        f"embedding of this library: ({dim},), finite and not zero. For a picture give "
        "Image.fromarray(array), for row numbers a list of whole numbers"
    )


def _as_floats(vector: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return a vector of numbers, perhaps Python's own, as float64; None if there are others."""
    numeric = vector.dtype.kind in "fiu" or (vector.dtype.kind == "O" and _is_vector(vector))
    try:
        with np.errstate(over="ignore"):  # of long doubles, to infinity
            return vector.astype(np.float64) if numeric else None
    except OverflowError:  # a whole number of Python's that has no limit
        return None


def _to_array(query: Any) -> NDArray[Any] | None:  # noqa: ANN401
    """Return an array, tensor, series or frame as a numpy array; None for anything else."""
    if isinstance(query, np.ma.MaskedArray) and np.ma.is_masked(query):
        raise ArrayError(f"an array of shape {query.shape} has masked values: fill them first")
    try:
        if hasattr(query, "detach") and hasattr(query, "cpu"):  # a tensor, on any device
            query = query.detach().cpu()
            query = query.float() if str(query.dtype) == "torch.bfloat16" else query
        if isinstance(query, array_type) or hasattr(type(query), "__array__"):
            return np.asarray(query)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArrayError(f"{type(query).__name__} gives no array of numbers: {error}") from error
    return None


def _is_paths(array: NDArray[Any]) -> bool:
    return all(isinstance(one, (str, os.PathLike)) for one in array.tolist())


def _nested_array(query: Any) -> NDArray[Any]:  # noqa: ANN401
    try:
        return np.asarray(query)
    except ValueError as error:
        raise ArrayError(f"lists of different lengths are no embedding: {error}") from error


def _is_vector(values: Any) -> bool:  # noqa: ANN401
    """Tell whether a list holds numbers alone, and at least one."""
    kinds = [
        isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) for value in values
    ]
    return bool(kinds) and all(kinds)


def _is_numeric(values: Any) -> bool:  # noqa: ANN401
    """Tell whether lists, however deep, hold numbers alone."""
    return all(
        _is_numeric(value) if isinstance(value, (list, tuple)) else isinstance(value, Real)
        for value in values
    )
