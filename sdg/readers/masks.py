"""Masks and heatmaps to boxes in pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Box = tuple[float, float, float, float]


def boxes_of(mask: ArrayLike, min_area: int = 1) -> list[Box]:
    """The boxes round the connected regions of a mask.

    Args:
        mask: (height, width), nonzero inside; pixels that touch at a corner are connected.
        min_area: regions of fewer pixels are left out.

    Returns:
        xyxy in pixels, from the largest region down.

    Example:
        >>> boxes_of([[0, 1, 1, 0], [0, 0, 0, 0]])
        [(1.0, 0.0, 3.0, 1.0)]
    """
    from scipy import ndimage

    inside = np.asarray(mask) != 0
    regions, count = ndimage.label(inside, structure=np.ones((3, 3)))
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    places = ndimage.find_objects(regions)
    found = []
    for k in sorted(range(count), key=lambda k: -int(areas[k])):
        if areas[k] >= min_area:
            rows, columns = places[k]
            found.append((float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)))
    return found


def box_of(mask: ArrayLike) -> Box | None:
    """The one box round all of a mask, xyxy in pixels; None round nothing."""
    inside = np.asarray(mask) != 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def intensity(value: Any) -> NDArray[np.float64]:
    """A heatmap in 0..1, (height, width).

    Args:
        value: a picture, the bytes of one, or an array; whole numbers count to the largest of their type (0..255 in a
            grey picture), floats are in 0..1 already, and wider whole numbers are read as 0..255.
    """
    if isinstance(value, bytes):
        value = Image.open(io.BytesIO(value))
    if isinstance(value, Image.Image) and value.mode not in ("L", "I;16", "F", "1"):
        value = value.convert("L")
    array = np.squeeze(np.asarray(value))
    if array.ndim != 2:
        raise ValueError(f"a heatmap of shape {array.shape} is not height x width")
    if array.dtype == np.bool_ or array.dtype.kind == "f":
        return array.astype(np.float64)
    return array.astype(np.float64) / (65535 if array.dtype == np.uint16 else 255)


def decoded(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask from how annotation files write it.

    Args:
        segmentation: polygons (lists of x, y, x, y, ... in pixels), or run lengths as COCO writes them uncompressed:
            ``{"size": [height, width], "counts": [...]}``, down the columns, beginning with the outside.
        size: width and height.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(segmentation, Mapping):
        return _of_runs(segmentation)
    polygons = segmentation
    if isinstance(polygons, Sequence) and polygons and isinstance(polygons[0], int | float):
        polygons = [polygons]
    canvas = Image.new("1", size)
    for polygon in polygons:
        if not isinstance(polygon, Sequence) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"polygon={polygon!r:.80} is not a list of x, y, x, y, ... of three points or more")
        ImageDraw.Draw(canvas).polygon([float(v) for v in polygon], fill=1)
    return np.asarray(canvas, dtype=np.bool_)


def _of_runs(runs: Mapping[str, Any]) -> NDArray[np.bool_]:
    counts, size = runs.get("counts"), runs.get("size")
    if not isinstance(counts, list) or not isinstance(size, list) or len(size) != 2:
        raise ValueError(
            "run lengths are {'size': [height, width], 'counts': [...]}; compressed ones (a string) are decoded with "
            "pycocotools first"
        )
    height, width = size
    if sum(counts) != height * width:
        raise ValueError(f"run lengths add up to {sum(counts)}, not to {height} x {width}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.asarray(flat.reshape(width, height).T, dtype=np.bool_)
