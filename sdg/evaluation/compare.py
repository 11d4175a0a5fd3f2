"""Two sets of predictions of the same images: is the difference more than the luck of the draw?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdg.defects import TYPES
from sdg.evaluation.counts import ImageCounts
from sdg.evaluation.metrics import SEED, blocks, interval, resampled, sdg_metrics

PERMUTATIONS = 10_000
"""Random swaps behind a p-value, which is then 1/10,001 at the least; their seed is fixed."""


@dataclass(frozen=True)
class Difference:
    """One metric of two sets of predictions, NaN where it is undefined.

    Args:
        value: of the first set.
        against: of the second.
        difference: ``value - against``.
        low: lower end of the paired bootstrap interval of the difference.
        high: its upper end.
        p_value: two-sided, of the paired permutation test.
    """

    value: float
    against: float
    difference: float
    low: float
    high: float
    p_value: float


def compare_counts(first: ImageCounts, second: ImageCounts, ci: float = 0.95) -> dict[str, Difference]:
    """Compare two sets of predictions of the same images, metric by metric, image against image.

    The interval draws images with replacement and takes both sets' predictions of each. The p-value asks how often the
    two differ as much when the labels first and second are swapped at random, image by image. Both are arithmetic on
    the tables: nothing is matched again. The p-values are not corrected for the number of metrics.

    Args:
        first: table of counts of one set.
        second: of the other, from the same references in the same order.
        ci: level of the intervals.

    Returns:
        By metric, the keys of :meth:`sdg.SDGEval.compute`.

    Raises:
        ValueError: for tables of other references, thresholds, matching or embedder.
    """
    if not 0 < ci < 1:
        raise ValueError(f"ci={ci!r} is not a level between 0 and 1, such as 0.95")
    _check_comparable(first, second)
    names, taus = list(first.columns), first.iou_thresholds

    def metrics(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return sdg_metrics(dict(zip(names, sums.T, strict=True)), taus)

    def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        one, other = metrics(a), metrics(b)
        return {key: one[key] - other[key] for key in one}

    a, b = first.rows(), second.rows()
    total_a, total_b = a.sum(axis=0, keepdims=True), b.sum(axis=0, keepdims=True)
    draws = resampled({str(k): column for k, column in enumerate(np.hstack([a, b]).T)})
    drawn = np.stack(list(draws.values()), axis=1)
    spread = difference(drawn[:, : len(names)], drawn[:, len(names) :])
    moved = _swapped(b - a)
    by_luck = difference(total_a + moved, total_b - moved)

    value, against, seen = metrics(total_a), metrics(total_b), difference(total_a, total_b)
    return {
        key: Difference(
            value=float(value[key][0]),
            against=float(against[key][0]),
            difference=float(seen[key][0]),
            low=(ends := interval(spread[key], ci))[0],
            high=ends[1],
            p_value=_p_value(float(seen[key][0]), by_luck[key]),
        )
        for key in value
    }


def _swapped(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of (n, c) rows over random halves of the images, (PERMUTATIONS, c)."""
    images, random = len(rows), np.random.default_rng(SEED)
    swaps = (random.integers(0, 2, size=(b, images), dtype=np.int8) for b in blocks(PERMUTATIONS, images))
    return np.concatenate([np.zeros((0, rows.shape[1])), *(swap.astype(np.float64) @ rows for swap in swaps)])


def _p_value(seen: float, by_luck: NDArray[np.float64]) -> float:
    """Share of the swaps, the data among them, that differ at least as much; swaps without a value are left out."""
    if np.isnan(seen):
        return np.nan
    defined = by_luck[~np.isnan(by_luck)]
    # Equal differences must count as equal whatever the order in which their sums were rounded.
    return float((1 + np.count_nonzero(np.abs(defined) >= abs(seen) - 1e-9)) / (1 + defined.size))


def _check_comparable(first: ImageCounts, second: ImageCounts) -> None:
    for name in ("iou_thresholds", "matching", "embedder"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise ValueError(f"{name} is {one!r} in the first table and {other!r} in the second: count both alike")
    if len(first) != len(second):
        raise ValueError(f"the first table has {len(first)} images, the second {len(second)}")
    for t in TYPES:
        unlike = np.flatnonzero(first.columns[f"{t}/true"] != second.columns[f"{t}/true"])
        if unlike.size:
            raise ValueError(f"image {unlike[0]} has other references of type {t} in the two tables")
