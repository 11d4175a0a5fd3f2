"""Several looks at one picture: which defects come back, and how a mirrored view is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sdg.boxes import GRID
from sdg.calibration.confidence import RIGHT_IOU
from sdg.defects import Defect, DefectSet
from sdg.matching import match

_SIDES = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDE = re.compile(r"\b(leftmost|rightmost|left|right)\b", re.IGNORECASE)


def agreement(found: DefectSet, others: Sequence[DefectSet], iou: float = RIGHT_IOU) -> list[float]:
    """Share of the looks in which each defect was seen, the first look included.

    Args:
        found: the first look.
        others: the further ones; one that could not be read saw nothing.
        iou: from which on two boxes of one type are the same defect.

    Returns:
        One share a defect of ``found``, above 0, at most 1.
    """
    seen = np.ones(len(found))
    for other in others:
        for index, _, score in match(found, other):
            seen[index] += score >= iou
    return (seen / (1 + len(others))).tolist()


def mirrored_caption(caption: str) -> str:
    """The caption of the mirrored picture: the words left and right (leftmost, rightmost) change places.

    Example:
        >>> mirrored_caption("a cup to the left of a car, Right of a tree")
        'a cup to the right of a car, Left of a tree'
    """

    def swap(found: re.Match[str]) -> str:
        word = _SIDES[found[0].lower()]
        return word.upper() if found[0].isupper() else word.capitalize() if found[0][0].isupper() else word

    return _SIDE.sub(swap, caption)


def mirrored(found: DefectSet) -> DefectSet:
    """The set of a mirrored picture, told of the picture itself: boxes and the words left and right are mirrored."""

    def back(defect: Defect) -> Defect:
        x0, y0, x1, y1 = defect.box
        return replace(defect, box=(GRID - x1, y0, GRID - x0, y1), reason=mirrored_caption(defect.reason))

    return replace(found, defects=tuple(map(back, found)))
