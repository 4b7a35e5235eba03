"""The kinds of faults that `check_dataset` looks for, each with its measure and threshold.

The thresholds were chosen on other pictures than `benchmarks/health.py` reports on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray


NEIGHBOURS = 10  # of each picture, for outliers and labels
LEAST_IMAGES = 20  # of a collection, for outliers: among fewer, none is usual
LEAST_OF_LABEL = 5  # pictures: a rarer label has too few neighbours that could agree


@dataclass(frozen=True)
class Check:
    """One kind of fault.

    Attributes
    ----------
    meaning : str
        In a few words.
    measure : str
        What the score is.
    threshold : float
        From which, or up to which, a score is a finding; NaN where nothing is measured.
    low : bool
        Whether low scores are the bad ones.
    """

    meaning: str
    measure: str = ""
    threshold: float = math.nan
    low: bool = False

    def fails(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Tell which scores are findings; NaN is none: (N,)."""
        with np.errstate(invalid="ignore"):
            return scores <= self.threshold if self.low else scores >= self.threshold


CHECKS: dict[str, Check] = {
    "unreadable": Check("files that could not be read, or were left out, with the reason"),
    "blank": Check("shows (nearly) nothing", "range of levels", 8.0, low=True),
    "dark": Check("even its lightest parts are dark", "lightest level", 75.0, low=True),
    "bright": Check("even its darkest parts are bright", "darkest level", 182.0),
    "low_contrast": Check("all its levels are close together", "range of levels", 65.0, low=True),
    "blurred": Check("even its sharpest edges are soft", "sharpness", 0.29, low=True),
    "odd_size": Check("much larger or smaller than is usual here", "side / usual", 3.0),
    "odd_shape": Check("much longer than it is wide, or the other way", "long / short side", 2.5),
    "exact_duplicate": Check("holds the same bytes or pixels as another", "cosine"),
    "near_duplicate": Check("another picture, edited; confirmed on the pixels", "cosine"),
    "leak": Check("the same picture in two splits, such as train and test", "cosine"),
    "outlier": Check("far from all other pictures", "distance / usual", 1.75),
    "label": Check("its neighbours have another label", "share of its label", 0.1, low=True),
}


def choose_checks(thresholds: Mapping[str, float] | None) -> dict[str, Check]:
    """Take the checks, some with another threshold.

    Raises
    ------
    QueryError
        If there is no such kind, it has no threshold, or that is no number.
    """
    checks = dict(CHECKS)
    measured = [kind for kind, check in CHECKS.items() if not math.isnan(check.threshold)]
    for kind, value in (thresholds or {}).items():
        if kind not in measured:
            raise QueryError(f"thresholds has {kind!r}: give some of {', '.join(measured)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise QueryError(f"thresholds[{kind!r}] is {value!r}: give a number")
        checks[kind] = replace(checks[kind], threshold=float(value))
    return checks


class QualityScores(NamedTuple):
    """Scores of the checks on single pictures, by kind: (N,) float64 each, NaN if not measured."""

    scores: dict[str, NDArray[np.float64]]
    notes: dict[str, list[str]]


def quality_scores(rows: NDArray[np.void], checks: Mapping[str, Check]) -> QualityScores:
    """Score pictures by their measures; one that is blank is told as that alone.

    Parameters
    ----------
    rows : (N,) array of dtype `picture_quality.QUALITY`
        Zeros where a picture was not measured.
    checks
        From `choose_checks`.
    """
    measured = rows["width"] > 0
    width, height = (
        np.where(measured, rows[side], 1).astype(np.float64) for side in ("width", "height")
    )
    side = np.sqrt(width * height)
    usual = float(np.median(side[measured])) if measured.any() else 1.0
    names = {
        "blank": "detail", "dark": "lightest", "bright": "darkest",
        "low_contrast": "contrast", "blurred": "sharpness",
    }  # fmt: skip
    scores = {kind: rows[name].astype(np.float64) for kind, name in names.items()}
    scores["blank"] = np.maximum(scores["blank"], scores["low_contrast"])
    blank = checks["blank"].fails(scores["blank"])
    for kind in names:
        scores[kind][~measured | (blank & (kind != "blank"))] = np.nan
    told = CHECKS["dark"].fails(scores["dark"]) | CHECKS["bright"].fails(scores["bright"])
    scores["low_contrast"][told] = np.nan  # of dark and of bright pictures it goes without saying
    scores["odd_size"] = np.maximum(side / usual, usual / side)
    scores["odd_shape"] = np.maximum(width / height, height / width)
    for kind in ("odd_size", "odd_shape"):
        scores[kind][~measured] = np.nan
    sizes = [f"{w:.0f}×{h:.0f}" for w, h in zip(width, height, strict=True)]
    return QualityScores(scores, {"odd_size": sizes, "odd_shape": sizes})
