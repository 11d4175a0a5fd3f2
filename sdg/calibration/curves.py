"""How far confidences can be trusted, in numbers: reliability, precision and recall, false alarms by threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdg.calibration.confidence import is_right
from sdg.defects import TYPES, DefectSet

BINS = 15
"""Bins of the reliability curve and of ECE, as many defects in each: most confidences lie near 1."""

THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Confidences that the table of :meth:`Judged.table` lists."""


class Reliability(NamedTuple):
    """Mean confidence and share of right defects of each bin, and its size, (bins,) each."""

    confidence: NDArray[np.float64]
    right: NDArray[np.float64]
    size: NDArray[np.int64]


class PrecisionRecall(NamedTuple):
    """By falling threshold: the threshold, precision and recall of the defects at or above it, (k,) each."""

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Predicted defects with their confidence and whether they are right, and the pictures that they come from.

    Defects are matched once, all of them (:func:`~sdg.calibration.confidence.is_right`), and then thresholded.

    Args:
        confidence: (n,) in 0..1.
        right: (n,) booleans.
        image: (n,) index of the picture.
        kind: (n,) index of the type in TYPES.
        true: (pictures, types) how many true defects there are.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    image: NDArray[np.int64]
    kind: NDArray[np.int64]
    true: NDArray[np.int64]

    @classmethod
    def of(cls, predictions: Sequence[DefectSet], references: Sequence[DefectSet]) -> Judged:
        """Judge the defects of answers that carry confidences; one without is left out.

        Raises:
            ValueError: for lists of unlike length.
        """
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions but {len(references)} references")
        rows = [
            (defect.confidence, right, image, TYPES.index(defect.type))
            for image, (found, truth) in enumerate(zip(predictions, references, strict=True))
            for defect, right in zip(found, is_right(found, truth).tolist(), strict=True)
            if defect.confidence is not None
        ]
        confidence, right, image, kind = zip(*rows, strict=True) if rows else ((), (), (), ())
        true = [[len(truth.of_type(t)) for t in TYPES] for truth in references]
        return cls(
            np.array(confidence, dtype=np.float64),
            np.array(right, dtype=bool),
            np.array(image, dtype=np.int64),
            np.array(kind, dtype=np.int64),
            np.array(true, dtype=np.int64).reshape(-1, len(TYPES)),
        )

    def reliability(self, bins: int = BINS) -> Reliability:
        """Mean confidence against the share that is right, in bins of as many defects each."""
        order = np.argsort(self.confidence, kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
        return Reliability(
            np.array([self.confidence[part].mean() for part in parts]),
            np.array([self.right[part].mean() for part in parts]),
            np.array([len(part) for part in parts], dtype=np.int64),
        )

    def ece(self, bins: int = BINS) -> float:
        """Expected calibration error: the mean over defects of |confidence - share that is right| of their bin.

        Naeini et al., 2015, with bins of as many defects each; NaN without a defect.
        """
        curve = self.reliability(bins)
        gaps = np.abs(curve.confidence - curve.right)
        return float((gaps * curve.size).sum() / curve.size.sum()) if len(gaps) else math.nan

    def brier(self) -> float:
        """Mean squared difference of confidence and rightness (Brier, 1950); NaN without a defect."""
        return float(np.mean((self.confidence - self.right) ** 2)) if len(self.right) else math.nan

    def auroc(self) -> float:
        """Chance that a right defect has more confidence than a wrong one; NaN where one kind is absent."""
        return auroc(self.confidence[~self.right], self.confidence[self.right])

    def precision_recall(self, kind: int | None = None) -> PrecisionRecall:
        """Precision and recall at every threshold that changes them.

        Args:
            kind: index of a type in TYPES, or None for both.
        """
        here = np.ones(len(self.kind), dtype=bool) if kind is None else self.kind == kind
        true = self.true.sum() if kind is None else self.true[:, kind].sum()
        confidence, right = self.confidence[here], self.right[here]
        order = np.argsort(-confidence, kind="stable")
        confidence, hits = confidence[order], np.cumsum(right[order])
        last = np.flatnonzero(np.diff(confidence, append=-1.0))  # of equal confidences all are kept or none
        recall = hits[last] / true if true else np.full(len(last), np.nan)
        return PrecisionRecall(confidence[last], hits[last] / (last + 1), recall)

    def false_alarms(self, thresholds: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the clean pictures that get a defect at or above each threshold; NaN without a clean picture."""
        clean = np.flatnonzero(self.true.sum(1) == 0)
        loudest = np.full(len(self.true), -1.0)
        np.maximum.at(loudest, self.image, self.confidence)
        if not len(clean):
            return np.full(len(thresholds), np.nan)
        return np.array([(loudest[clean] >= threshold).mean() for threshold in thresholds])

    def table(self, thresholds: Sequence[float] = THRESHOLDS) -> list[dict[str, float]]:
        """What a threshold buys and costs: by threshold ``kept`` defects, ``precision``, ``recall``, ``f1`` and the
        share of clean pictures with a ``false_alarm``; NaN where undefined."""
        rows = []
        total = int(self.true.sum())
        for threshold, alarm in zip(thresholds, self.false_alarms(thresholds).tolist(), strict=True):
            above = self.confidence >= threshold
            kept, hits = int(above.sum()), int(self.right[above].sum())
            rows.append(
                {
                    "threshold": threshold,
                    "kept": kept,
                    "precision": hits / kept if kept else math.nan,
                    "recall": hits / total if total else math.nan,
                    "f1": 2 * hits / (kept + total) if kept + total else math.nan,
                    "false_alarm": alarm,
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """The numbers in one dictionary, NaN where undefined."""
        return {
            "pictures": len(self.true),
            "clean_pictures": int((self.true.sum(1) == 0).sum()),
            "defects": len(self.right),
            "right": float(self.right.mean()) if len(self.right) else math.nan,
            "ece": self.ece(),
            "brier": self.brier(),
            "auroc": self.auroc(),
            "thresholds": self.table(),
        }


def auroc(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> float:
    """Chance that a positive scores higher than a negative, ties by half (Mann and Whitney, 1947); NaN without either.

    Example:
        >>> auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
        0.875
    """
    n, m = len(negatives), len(positives)
    if not n or not m:
        return math.nan
    below = np.sort(negatives)
    less, up_to = (np.searchsorted(below, positives, side) for side in ("left", "right"))
    return float((less + up_to).sum() / (2 * n * m))
