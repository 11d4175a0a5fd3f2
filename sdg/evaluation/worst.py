"""The images on which predictions and references differ most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sdg.defects import TYPES
from sdg.evaluation.counts import ImageCounts

WORST_IOU = 0.5


@dataclass(frozen=True)
class ImageErrors:
    """What went wrong on one image.

    Args:
        image: its place in the table.
        found: by type, references that a prediction meets.
        missed: by type, references that none meets.
        false_alarms: by type, predictions that meet none.
        readable: whether the prediction could be read.
    """

    image: int
    found: Mapping[str, int]
    missed: Mapping[str, int]
    false_alarms: Mapping[str, int]
    readable: bool


def worst_images(counts: ImageCounts, n: int = 10, iou: float = WORST_IOU) -> list[ImageErrors]:
    """The images with most misses and false alarms together; of as many, those that missed what matters more.

    Args:
        counts: the table of counts.
        n: how many at the most; images without an error are none of them.
        iou: from which on a matched pair counts as found, in 0..1.

    Returns:
        The worst image first.
    """
    true, images = counts.true, len(counts)
    met = true.iou >= iou
    found = {
        t.value: np.bincount(true.image[met & (true.kind == k)], minlength=images).astype(int)
        for k, t in enumerate(TYPES)
    }
    missed = {t.value: counts.columns[f"{t}/true"].astype(int) - found[t.value] for t in TYPES}
    alarms = {t.value: counts.columns[f"{t}/predicted"].astype(int) - found[t.value] for t in TYPES}
    errors = sum(missed.values()) + sum(alarms.values())
    weight = np.bincount(true.image[~met], true.importance[~met], minlength=images)
    order = np.lexsort((np.arange(images), -weight, -errors))

    def at(image: int, numbers: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {kind: int(values[image]) for kind, values in numbers.items()}

    return [
        ImageErrors(i, at(i, found), at(i, missed), at(i, alarms), bool(counts.columns["readable"][i]))
        for i in order[:n].tolist()
        if errors[i]
    ]
