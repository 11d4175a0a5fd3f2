"""From what a file states to a record: box order and space, and what policy makes of what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdg.boxes import GRID, BoxOrder, reorder
from sdg.defects import SUBTYPES, TYPES, Defect, DefectType
from sdg.readers.raw import Layout, RawDefect, RawRecord
from sdg.readers.report import Problem

BROKEN_LINE = "broken line"
NO_IMAGE = "no image named"
MISSING_IMAGE = "missing image"
UNREADABLE_IMAGE = "unreadable image"
DUPLICATE_ID = "duplicate id"
DEFECTS_MISSING = "defects missing"
SIZE_DIFFERS = "size differs from the picture"
MALFORMED_BOX = "malformed box"
NOT_FINITE = "box not finite"
SWAPPED = "swapped corners"
OUT_OF_RANGE = "box out of range"
DEGENERATE = "degenerate box"
UNKNOWN_LABEL = "unknown label"
UNKNOWN_SUBTYPE = "unknown subtype"
IMPORTANCE_TEXT = "importance as text"
IMPORTANCE_MISSING = "importance missing"
IMPORTANCE_RANGE = "importance out of range"
IMPORTANCE_MALFORMED = "malformed importance"
REASON_MISSING = "reason missing"

_NAMES = tuple(t.value for t in TYPES)

Found = Callable[[Problem], None]


def numbers(box: Any) -> tuple[float, ...] | None:
    """A box as four floats, which may be infinite or NaN; None where it is anything else."""
    if isinstance(box, str | bytes) or not hasattr(box, "__iter__"):
        return None
    values = tuple(box)
    if len(values) != 4 or any(isinstance(v, bool | str | bytes) for v in values):
        return None
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return None


def scale_of(raw: RawRecord, size: tuple[int, int] | None) -> tuple[float, float]:
    """What coordinates of a record are multiplied with, in x and y, to come to the grid."""
    if raw.space == "grid":
        return 1.0, 1.0
    if raw.space == "fractions":
        return float(GRID), float(GRID)
    if size is None:
        raise ValueError(f"{raw.where}: boxes in pixels, and no width and height to place them in")
    width, height = size
    return GRID / width, GRID / height


def defect_of(
    item: RawDefect, index: int, layout: Layout, order: BoxOrder, scale: tuple[float, float], found: Found
) -> Defect | None:
    """One defect; what is wrong with it goes to ``found``, and is mended in what is returned.

    Returns:
        None where nothing honest can be made of it.
    """
    field = f"defect {index} "
    box = _box(item.box, field, order, scale, found)
    type = _type(item.label, field, found)
    reason = _reason(item.reason, field, layout, found)
    importance = _importance(item.importance, field, layout, found)
    if box is None or type is None:
        return None
    subtype = item.subtype
    if subtype is not None and subtype not in SUBTYPES[type]:
        found(Problem(UNKNOWN_SUBTYPE, f"{field}subtype", subtype, "no subtype"))
        subtype = None
    return Defect.from_pixels(
        box.tolist(), GRID, GRID, type=type, reason=reason, importance=importance, subtype=subtype, clip=True
    )


def _box(
    value: Any, field: str, order: BoxOrder, scale: tuple[float, float], found: Found
) -> NDArray[np.float64] | None:
    name = f"{field}box"
    four = numbers(value)
    if four is None:
        found(Problem(MALFORMED_BOX, name, value))
        return None
    if not all(map(math.isfinite, four)):
        found(Problem(NOT_FINITE, name, value))
        return None
    box: NDArray[np.float64] = reorder([four], order)[0] * np.array([*scale, *scale])
    low, high = np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])
    if (low == high).any():
        found(Problem(DEGENERATE, name, value))
        return None
    if (low != box[:2]).any():
        found(Problem(SWAPPED, name, value, "corners sorted"))
    box = np.concatenate([low, high])
    clamped: NDArray[np.float64] = np.clip(box, 0, GRID)
    outside = bool((clamped[:2] >= clamped[2:]).any())
    rounded = np.floor(box + 0.5)
    if outside or (rounded < 0).any() or (rounded > GRID).any():
        found(Problem(OUT_OF_RANGE, name, value, "" if outside else "clamped to the picture"))
    return None if outside else clamped


def _type(label: Any, field: str, found: Found) -> DefectType | None:
    if isinstance(label, str) and label in _NAMES:
        return DefectType(label)
    same = label.strip().lower() if isinstance(label, str) else ""
    found(Problem(UNKNOWN_LABEL, f"{field}label", label, same if same in _NAMES else ""))
    return DefectType(same) if same in _NAMES else None


def _reason(value: Any, field: str, layout: Layout, found: Found) -> str:
    if isinstance(value, str) and (value.strip() or not layout.gives_reason):
        return value
    if value is not None or layout.gives_reason:
        found(Problem(REASON_MISSING, f"{field}reason", value, "an empty reason"))
    return ""


def _importance(value: Any, field: str, layout: Layout, found: Found) -> int | None:
    name = f"{field}importance"
    if value is None:
        if layout.gives_importance:
            found(Problem(IMPORTANCE_MISSING, name, None, "no importance"))
        return None
    number = _number(value)
    if number is None:
        found(Problem(IMPORTANCE_MALFORMED, name, value, "no importance"))
        return None
    whole = min(max(math.floor(number + 0.5), 1), 100)
    if isinstance(value, str):
        found(Problem(IMPORTANCE_TEXT, name, value, f"{whole}"))
    elif not 1 <= number <= 100:
        found(Problem(IMPORTANCE_RANGE, name, value, f"{whole}"))
    elif number != whole:
        found(Problem(IMPORTANCE_MALFORMED, name, value, f"{whole}"))
    return whole


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
