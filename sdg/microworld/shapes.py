"""Signed distances of a few plane shapes: negative inside, positive outside, in the unit of the coordinates.

Every shape is a function of two arrays ``x, y`` (y down) that returns an array of distances. Ellipses are approximate
away from their edge, which is all that anti-aliasing asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Shape = Callable[[Array, Array], Array]


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Shape:
    """Axis-parallel ellipse."""

    def distance(x: Array, y: Array) -> Array:
        return (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)

    return distance


def circle(cx: float, cy: float, r: float) -> Shape:
    """Disc."""
    return ellipse(cx, cy, r, r)


def ring(cx: float, cy: float, r: float, thickness: float) -> Shape:
    """Circle line of the given thickness."""

    def distance(x: Array, y: Array) -> Array:
        return np.abs(np.hypot(x - cx, y - cy) - r) - thickness / 2

    return distance


def rectangle(x0: float, y0: float, x1: float, y1: float, rounding: float = 0.0) -> Shape:
    """Axis-parallel rectangle, its corners rounded."""
    cx, cy, hx, hy = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2 - rounding, (y1 - y0) / 2 - rounding

    def distance(x: Array, y: Array) -> Array:
        dx, dy = np.abs(x - cx) - hx, np.abs(y - cy) - hy
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
        return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0) - rounding, dtype=np.float32)

    return distance


def capsule(x0: float, y0: float, x1: float, y1: float, r: float) -> Shape:
    """Line from one point to another, of radius ``r``, with round ends."""
    dx, dy = x1 - x0, y1 - y0
    length2 = dx * dx + dy * dy

    def distance(x: Array, y: Array) -> Array:
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / length2, 0, 1)
        return np.asarray(np.hypot(x - x0 - t * dx, y - y0 - t * dy) - r, dtype=np.float32)

    return distance


def polygon(*points: tuple[float, float]) -> Shape:
    """Convex polygon, its corners in clockwise order on a y-down plane."""
    edges = []
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        length = float(np.hypot(bx - ax, by - ay))
        edges.append((ax, ay, (by - ay) / length, -(bx - ax) / length))

    def distance(x: Array, y: Array) -> Array:
        sides = [(x - ax) * nx + (y - ay) * ny for ax, ay, nx, ny in edges]
        return np.maximum.reduce(sides)

    return distance


def union(*shapes: Shape) -> Shape:
    """What any of the shapes covers."""

    def distance(x: Array, y: Array) -> Array:
        return np.minimum.reduce([shape(x, y) for shape in shapes])

    return distance


# Letters as strokes between points of a 3 x 3 lattice, numbered row by row: 0 1 2 / 3 4 5 / 6 7 8.
_STROKES = {
    "A": "61 18 35",
    "C": "20 06 68",
    "E": "20 06 68 34",
    "F": "20 06 34",
    "I": "17",
    "K": "06 23 38",
    "L": "06 68",
    "N": "60 08 82",
    "O": "02 28 86 60",
    "P": "60 02 25 53",
    "S": "20 03 35 58 86",
    "T": "02 17",
    "X": "08 26",
}
LETTERS = tuple(_STROKES)


def lettering(strokes: Sequence[str], x0: float, y0: float, x1: float, y1: float) -> Shape:
    """Glyphs side by side in a rectangle, each given by its strokes ("06 68" is an L)."""
    pitch = (x1 - x0) / len(strokes)
    glyph = pitch * 0.62
    lines = []
    for index, glyph_strokes in enumerate(strokes):
        left = x0 + index * pitch + (pitch - glyph) / 2
        for stroke in glyph_strokes.split():
            ends = [(left + int(p) % 3 * glyph / 2, y0 + int(p) // 3 * (y1 - y0) / 2) for p in stroke]
            lines.append(capsule(*ends[0], *ends[1], pitch * 0.09))
    return union(*lines)


def strokes_of(word: str) -> list[str]:
    """The strokes of a word's letters."""
    return [_STROKES[letter] for letter in word]
