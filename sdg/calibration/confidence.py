"""From evidence to a probability: a logistic regression, fitted on validation, kept as a small JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdg.calibration.evidence import FEATURES, WRITTEN
from sdg.defects import DefectSet
from sdg.matching import match

CALIBRATION_FILE = "calibration.json"
"""Where a checkpoint keeps it, beside its weights."""

RIGHT_IOU = 0.5
"""A predicted defect is right where it is matched with a true one of its type at this IoU or above."""

FEWEST = 10
"""Right ones, and wrong ones, below which nothing is fitted."""

FORMAT = 1


def is_right(found: DefectSet, truth: DefectSet, iou: float = RIGHT_IOU) -> NDArray[np.bool_]:
    """Which of the found defects are there, by SDG-Eval's matching (App. C).

    Returns:
        (len(found),) booleans.
    """
    right = np.zeros(len(found), dtype=bool)
    for index, _, score in match(found, truth):
        right[index] = score >= iou
    return right


@dataclass(frozen=True)
class Calibration:
    """Turns the features of a defect into the probability that it is right.

    Logistic and not isotonic: the answers of one checkpoint on validation hold few wrong defects, a step function
    learns their noise, and it would need one number to start from where there are several that each know a part.

    Args:
        features: names of the columns that it reads, of :data:`~sdg.calibration.evidence.FEATURES`.
        mean: of each in what it was fitted on; stands in for a value that is not known.
        scale: standard deviation of each, above 0.
        weights: of each, standardised.
        bias: added to the sum.
        fitted_on: where it comes from, JSON values.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.features) - set(FEATURES)):
            raise ValueError(f"features {', '.join(unknown)} are unknown to this version, which has {FEATURES}")
        for name in ("mean", "scale", "weights"):
            numbers = getattr(self, name)
            if len(numbers) != len(self.features) or not np.isfinite(numbers).all():
                raise ValueError(f"{name}={numbers!r:.80} is not one finite number a feature ({len(self.features)})")
        if min(self.scale, default=1.0) <= 0 or not np.isfinite(self.bias):
            raise ValueError(f"scale={self.scale!r:.80} must be above 0, and bias={self.bias!r} finite")

    @classmethod
    def fit(
        cls, table: ArrayLike, right: ArrayLike, fitted_on: Mapping[str, Any] | None = None, strength: float = 1.0
    ) -> Calibration:
        """Fit by maximum likelihood with an L2 penalty (scikit-learn's logistic regression).

        Args:
            table: (n, :data:`~sdg.calibration.evidence.FEATURES`), NaN where not known.
            right: (n,) booleans.
            fitted_on: kept with it.
            strength: inverse of the penalty, scikit-learn's C.

        Raises:
            ValueError: where fewer than :data:`FEWEST` defects are right, or wrong.
        """
        from sklearn.linear_model import LogisticRegression

        x, y = np.asarray(table, dtype=np.float64), np.asarray(right, dtype=bool)
        n_right = int(y.sum())
        if min(n_right, len(y) - n_right) < FEWEST:
            raise ValueError(
                f"{n_right} of {len(y)} predicted defects are right: a calibration needs at least {FEWEST} right and"
                f" {FEWEST} wrong ones; give more pictures"
            )
        known = [k for k in range(len(FEATURES)) if not np.isnan(x[:, k]).all()]
        x = x[:, known]
        mean, scale = np.nanmean(x, 0), np.nanstd(x, 0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        z = np.nan_to_num((x - mean) / scale)
        model = LogisticRegression(C=strength, max_iter=2000).fit(z, y)
        return cls(
            features=tuple(FEATURES[k] for k in known),
            mean=_rounded(mean),
            scale=_rounded(scale),
            weights=_rounded(model.coef_[0]),
            bias=float(model.intercept_[0]),
            fitted_on=dict(fitted_on or {}),
        )

    def confidence(self, table: NDArray[np.float64]) -> list[float | None]:
        """The probability of each row of a table of features; None where nothing is known of the writing.

        Args:
            table: (n, :data:`~sdg.calibration.evidence.FEATURES`).
        """
        columns = [FEATURES.index(name) for name in self.features]
        z = np.nan_to_num((table[:, columns] - np.array(self.mean)) / np.array(self.scale))
        p = 1 / (1 + np.exp(-np.clip(z @ np.array(self.weights) + self.bias, -30, 30)))
        heard = (~np.isnan(table[:, WRITTEN])).sum(1)
        return [float(value) if known else None for value, known in zip(p, heard.tolist(), strict=True)]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write :data:`CALIBRATION_FILE` into a folder."""
        path = Path(folder, CALIBRATION_FILE)
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: naming the file and what is wrong with it.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}: it comes from another version of sdg")
            rows = {name: tuple(data.pop(name)) for name in ("features", "mean", "scale", "weights")}
            return cls(**rows, bias=float(data.pop("bias")), fitted_on=data.pop("fitted_on"))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{os.fspath(path)} is no calibration ({what}): write it again with `sdg calibrate`"
            ) from error


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
