"""The metrics of parts: images by any column, references by importance tier or subtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sdg.defects import SUBTYPES, TIERS, TYPES, tier_of
from sdg.evaluation.counts import ImageCounts
from sdg.evaluation.metrics import Sums, estimate, ratio, summarise

NOT_GIVEN = "not given"
"""The part of what has no value, no importance or no subtype."""

Parts = dict[str, dict[str, Any]]
"""Results by the name of the part."""


def by_column(counts: ImageCounts, values: Sequence[Any], ci: float | None = None) -> Parts:
    """All metrics for each group of images.

    Args:
        counts: the table of counts.
        values: one an image, in the same order, such as the name of its generator; None and "" are "not given".
        ci: None, or the level of the intervals.

    Returns:
        What :meth:`sdg.SDGEval.compute` returns, by value.

    Raises:
        ValueError: for another number of values than of images.
    """
    if len(values) != len(counts):
        raise ValueError(f"{len(values)} values for {len(counts)} images: one for each is needed")
    names = np.array([NOT_GIVEN if value is None or value == "" else str(value) for value in values], dtype=object)
    present = sorted(set(names), key=lambda name: (name == NOT_GIVEN, name))
    return {name: summarise(counts.take(names == name), ci) for name in present}


def by_tier(counts: ImageCounts, ci: float | None = None) -> Parts:
    """How many of the references of each importance tier were found.

    Recall only: a prediction that no reference answers belongs to no reference's tier.

    Args:
        counts: the table of counts.
        ci: None, or the level of the intervals.

    Returns:
        By tier, from critical down: ``t/box_recall@tau`` in 0..1, NaN where there is no such reference, and
        ``t/n_true``, how many there are, for t in artifact, misalignment.
    """
    tiers = [tier_of(importance) if importance else NOT_GIVEN for importance in counts.true.importance.tolist()]
    return _recall_by(counts, tiers, TIERS, ci)


def by_subtype(counts: ImageCounts, ci: float | None = None) -> Parts:
    """How many of the references of each subtype were found; as :func:`by_tier`, predictions carry no subtype."""
    known = [name for names in SUBTYPES.values() for name in names]
    return _recall_by(counts, [name or NOT_GIVEN for name in counts.true.subtype], known, ci)


def _recall_by(counts: ImageCounts, labels: Sequence[str], known: Iterable[str], ci: float | None) -> Parts:
    rank = {name: place for place, name in enumerate(known)}
    present = sorted(set(labels), key=lambda name: (name == NOT_GIVEN, rank.get(name, len(rank)), name))
    label, true = np.array(labels, dtype=object), counts.true

    def metrics(s: Sums) -> Sums:
        matched = {(t, tau): s[f"{t}/matched@{tau:g}"] for t in TYPES for tau in counts.iou_thresholds}
        return {f"{t}/box_recall@{tau:g}": ratio(m, s[f"{t}/true"]) for (t, tau), m in matched.items()}

    parts: Parts = {}
    for name in present:
        columns = {}
        for k, t in enumerate(TYPES):
            here = (label == name) & (true.kind == k)
            met = {f"matched@{tau:g}": here & (true.iou >= tau) for tau in counts.iou_thresholds}
            for column, chosen in {"true": here, **met}.items():
                columns[f"{t}/{column}"] = np.bincount(true.image[chosen], minlength=len(counts)).astype(np.float64)
        parts[name] = estimate(metrics, columns, ci)
        parts[name] |= {f"{t}/n_true": int(columns[f"{t}/true"].sum()) for t in TYPES}
    return parts
