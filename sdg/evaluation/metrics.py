"""Metrics from sums of counts (section 3.2, App. C), and their spread over resampled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdg.defects import TYPES
from sdg.evaluation.counts import TEXT_IOU, ImageCounts

RESAMPLES = 1000
"""Bootstrap resamples behind an interval; their seed is fixed, so that a result can be repeated."""

SEED = 0
BLOCK = 2_000_000
"""Weights (resamples x images) that are held at once."""

Sums = Mapping[str, NDArray[np.float64]]
"""Column sums of a table, (b,) each for b samples of its images."""


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def sdg_metrics(s: Sums, thresholds: Iterable[float]) -> dict[str, NDArray[np.float64]]:
    """The metrics of SDG-Eval, (b,) each; NaN where the denominator is 0."""
    out = {}
    for t in TYPES:
        predicted, true = s[f"{t}/predicted"], s[f"{t}/true"]
        out[f"{t}/det_type_f1"] = ratio(2 * s[f"{t}/images_both"], s[f"{t}/images_predicted"] + s[f"{t}/images_true"])
        out[f"{t}/cln_acc"] = ratio(s[f"{t}/images_clean_kept"], s[f"{t}/images_clean"])
        for tau in thresholds:
            matched = s[f"{t}/matched@{tau:g}"]
            out[f"{t}/box_precision@{tau:g}"] = ratio(matched, predicted)
            out[f"{t}/box_recall@{tau:g}"] = ratio(matched, true)
            out[f"{t}/box_f1@{tau:g}"] = ratio(2 * matched, predicted + true)
        out[f"{t}/desc_cos@{TEXT_IOU:g}"] = ratio(s[f"{t}/cosine"], s[f"{t}/described"])
        out[f"{t}/imp_acc@{TEXT_IOU:g}"] = ratio(s[f"{t}/importance_kept"], 100 * s[f"{t}/weighed"])
    out["parse_rate"] = ratio(s["readable"], s["images"])
    out["strict_rate"] = ratio(s["strict"], s["images"])
    return out


def blocks(samples: int, images: int) -> Iterator[int]:
    """Sizes that add up to ``samples``, so that only :data:`BLOCK` weights are in memory; none without images."""
    size = max(1, BLOCK // max(images, 1))
    return (min(size, samples - done) for done in range(0, samples if images else 0, size))


def resampled(columns: Sums) -> dict[str, NDArray[np.float64]]:
    """Column sums over :data:`RESAMPLES` draws of the images with replacement, (b,) each."""
    rows = np.stack(list(columns.values()), axis=1)
    images, random = len(rows), np.random.default_rng(SEED)
    weights = (random.multinomial(images, np.full(images, 1 / images), size=b) for b in blocks(RESAMPLES, images))
    sums = np.concatenate([np.zeros((0, rows.shape[1])), *(w @ rows for w in weights)])
    return dict(zip(columns, sums.T, strict=True))


def interval(values: NDArray[np.float64], level: float) -> list[float]:
    """Percentile interval [low, high] of the values that are defined; of NaN where none is."""
    defined = values[~np.isnan(values)]
    return np.quantile(defined, (0.5 - level / 2, 0.5 + level / 2)).tolist() if defined.size else [np.nan, np.nan]


def estimate(metrics: Callable[[Sums], Sums], columns: Sums, ci: float | None) -> dict[str, Any]:
    """Metrics over all images, and with ``ci`` their intervals as ``KEY/ci`` = [low, high].

    Args:
        metrics: what makes (b,) metrics out of (b,) sums.
        columns: counts by image, (n_images,) each.
        ci: None, or the level of percentile bootstrap intervals, over the resamples on which a metric is defined.
    """
    sums = {name: column.sum(keepdims=True) for name, column in columns.items()}
    out: dict[str, Any] = {key: float(value[0]) for key, value in metrics(sums).items()}
    if ci is not None:
        out |= {f"{key}/ci": interval(values, ci) for key, values in metrics(resampled(columns)).items()}
    return out


def summarise(counts: ImageCounts, ci: float | None = None) -> dict[str, Any]:
    """The flat dictionary of :meth:`sdg.SDGEval.compute`.

    Args:
        counts: the table of counts, or some images of it.
        ci: None, or the level of the intervals, such as 0.95.
    """
    result = estimate(lambda sums: sdg_metrics(sums, counts.iou_thresholds), counts.columns, ci)
    result |= {"n_images": len(counts), "embedder": counts.embedder}
    if counts.embedder is None:
        result["desc_cos_note"] = counts.embedder_note
    return result


def image_level(counts: ImageCounts, ci: float | None = None) -> dict[str, Any]:
    """Whether an image has a defect of a type, as a classifier (Table 3).

    Args:
        counts: the table of counts.
        ci: None, or the level of the intervals.

    Returns:
        ``t/image_precision``, ``t/image_recall`` and ``t/image_f1`` in 0..1 for t in artifact, misalignment, NaN where
        the denominator is empty; ``image_f1`` is SDG-Eval's ``det_type_f1``.
    """

    def metrics(s: Sums) -> Sums:
        out = {}
        for t in TYPES:
            both, predicted, true = (s[f"{t}/images_{name}"] for name in ("both", "predicted", "true"))
            out[f"{t}/image_precision"] = ratio(both, predicted)
            out[f"{t}/image_recall"] = ratio(both, true)
            out[f"{t}/image_f1"] = ratio(2 * both, predicted + true)
        return out

    return estimate(metrics, counts.columns, ci)
