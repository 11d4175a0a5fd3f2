"""Are the predictions' coordinates in another order than was said? Only the truth can tell."""

from __future__ import annotations

from collections.abc import Sequence

from sdg.defects import TYPES, Defect, DefectSet
from sdg.evaluation.counts import count_images
from sdg.evaluation.reading import Reference, read_predictions, read_references

_IOU = 0.5
_PAIRS = 5
"""Fewer pairs than this may agree by chance."""


def transposed_pairs(predictions: Sequence[DefectSet], references: Sequence[Reference]) -> tuple[int, int]:
    """How many pairs meet at IoU 0.5: with the boxes as they are, and with x and y exchanged.

    A box with x and y exchanged is as valid as before, so that nothing but its fit tells that an order is wrong.

    Args:
        predictions: one an image.
        references: one an image, in the same order.
    """
    swapped = [
        DefectSet(tuple(Defect((d.box[1], d.box[0], d.box[3], d.box[2]), d.type) for d in p), parse_error=p.parse_error)
        for p in predictions
    ]
    answers = {name: read_predictions(sets, name) for name, sets in (("given", predictions), ("swapped", swapped))}
    tables = count_images(answers, read_references(references), (_IOU,), "hungarian", None)
    given, exchanged = (
        int(sum(tables[name].columns[f"{t}/matched@{_IOU:g}"].sum() for t in TYPES)) for name in ("given", "swapped")
    )
    return given, exchanged


def look_transposed(given: int, exchanged: int) -> bool:
    """Whether so many pairs more with x and y exchanged are no chance."""
    return exchanged >= _PAIRS and exchanged > 2 * given
