"""Vectorised box arithmetic.

One convention inside the library: corners ``x0, y0, x1, y1`` with x to the right and y down. Whatever arrives in
another order or unit passes through :func:`reorder`, :func:`to_grid` or :func:`to_pixels` once, at the border.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRID = 1000
"""Boxes live on an image-relative grid: 1000 is the full width or height (§3.1)."""

BoxOrder = Literal["xyxy", "yxyx", "xywh"]
"""``xyxy`` corners, ``yxyx`` corners with y first (the Gemini habit), ``xywh`` corner and size (COCO)."""


def as_boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    """Return ``boxes`` as a float array of shape (n, 4); an empty input becomes (0, 4)."""
    array = np.asarray(boxes, dtype=np.float64)
    return array.reshape(0, 4) if array.size == 0 else array.reshape(-1, 4)


def reorder(boxes: ArrayLike, order: BoxOrder) -> NDArray[np.float64]:
    """Boxes given in ``order`` as xyxy corners.

    Args:
        boxes: (n, 4) or (4,), any unit.
        order: the order that the boxes are in; there is no default, because guessing it is this field's silent bug.

    Returns:
        (n, 4) xyxy in the same unit.

    Raises:
        ValueError: for an unknown order.

    Example:
        >>> reorder([[10, 20, 30, 40]], "xywh").tolist()
        [[10.0, 20.0, 40.0, 60.0]]
    """
    b = as_boxes(boxes)
    if order == "xyxy":
        return b
    if order == "yxyx":
        return b[:, [1, 0, 3, 2]]
    if order == "xywh":
        return np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1)
    raise ValueError(f"order={order!r} is not a box order; choose one of {', '.join(get_args(BoxOrder))}")


def _scale(width: float, height: float) -> NDArray[np.float64]:
    for name, value in (("width", width), ("height", height)):
        if not value > 0:
            raise ValueError(f"{name}={value!r} must be positive")
    return np.array([width, height, width, height], dtype=np.float64)


def to_grid(boxes: ArrayLike, width: float, height: float) -> NDArray[np.float64]:
    """Pixel corners (n, 4) on an image of ``width`` x ``height`` to the 0..1000 grid, unrounded."""
    return as_boxes(boxes) * GRID / _scale(width, height)


def to_pixels(boxes: ArrayLike, width: float, height: float) -> NDArray[np.float64]:
    """Grid corners (n, 4) to pixels of an image of ``width`` x ``height``."""
    return as_boxes(boxes) * _scale(width, height) / GRID


def area(boxes: ArrayLike) -> NDArray[np.float64]:
    """Area of each box, (n,); a box with swapped corners has none."""
    b = as_boxes(boxes)
    return np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), axis=1)


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every pair, without an epsilon: (n, 4), (m, 4) -> (n, m) in 0..1.

    Two boxes without area have IoU 0.

    Example:
        >>> iou([[0, 0, 10, 10]], [[0, 0, 10, 5], [20, 20, 30, 30]]).tolist()
        [[0.5, 0.0]]
    """
    a, b = as_boxes(a), as_boxes(b)
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    intersection = np.prod(np.clip(size, 0, None), axis=2)
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def diou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Distance-IoU of every pair (App. D): IoU - (centre distance)^2 / (diagonal of the enclosing box)^2, in -1..1.

    Args:
        a: (n, 4).
        b: (m, 4).

    Returns:
        (n, m).
    """
    a, b = as_boxes(a), as_boxes(b)
    between = (a[:, None, :2] + a[:, None, 2:] - b[None, :, :2] - b[None, :, 2:]) / 2
    enclosing = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    diagonal = np.sum(enclosing**2, axis=2)
    apart = np.divide(np.sum(between**2, axis=2), diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    return iou(a, b) - apart
