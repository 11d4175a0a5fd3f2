"""A checkpoint's answers on annotated pictures, and the calibration that is fitted on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdg.calibration.confidence import Calibration, is_right
from sdg.calibration.curves import Judged
from sdg.calibration.evidence import FEATURES
from sdg.defects import DefectSet

FOLDS = 5


@dataclass(frozen=True)
class Answers:
    """What a checkpoint said of annotated pictures; four lists, one entry a picture.

    Args:
        found: the defects that it named.
        truth: the true ones.
        tables: (len(found), features) of :func:`~sdg.calibration.evidence.features`.
        pictures: (d,) features of the picture, or None.
    """

    found: Sequence[DefectSet]
    truth: Sequence[DefectSet]
    tables: Sequence[NDArray[np.float64]]
    pictures: Sequence[tuple[float, ...] | None]

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.found)

    def take(self, chosen: Sequence[int]) -> Answers:
        """Those of some of the pictures."""
        parts = (self.found, self.truth, self.tables, self.pictures)
        return Answers(*([part[i] for i in chosen] for part in parts))  # type: ignore[arg-type]

    def calibration(self, fitted_on: Mapping[str, Any] | None = None) -> Calibration:
        """The calibration that fits them.

        Args:
            fitted_on: what else it is to say of where it comes from.

        Raises:
            ValueError: where too few defects are right, or wrong.
        """
        table = np.concatenate([np.zeros((0, len(FEATURES))), *self.tables])
        right = np.concatenate([np.zeros(0, bool), *map(is_right, self.found, self.truth)])
        facts = {"pictures": len(self), "defects": len(right), "right": int(right.sum())}
        return Calibration.fit(table, right, facts | dict(fitted_on or {}))

    def judged(self, calibration: Calibration) -> Judged:
        """Their defects with the confidences of a calibration that was fitted on others."""
        return Judged.of(
            [_weighed(*pair, calibration) for pair in zip(self.found, self.tables, strict=True)], self.truth
        )

    def cross_judged(self, folds: int = FOLDS) -> Judged:
        """Their defects, each with the confidence of a calibration fitted on the other folds of pictures.

        Raises:
            ValueError: where too few defects are right, or wrong.
        """
        weighed: list[DefectSet] = list(self.found)
        for fold in range(folds):
            inside = range(fold, len(self), folds)
            rest = self.take([i for i in range(len(self)) if i % folds != fold]).calibration()
            for i in inside:
                weighed[i] = _weighed(self.found[i], self.tables[i], rest)
        return Judged.of(weighed, self.truth)


def _weighed(found: DefectSet, table: NDArray[np.float64], calibration: Calibration) -> DefectSet:
    confidences = calibration.confidence(table)
    return replace(found, defects=tuple(replace(d, confidence=c) for d, c in zip(found, confidences, strict=True)))
