"""Where a picture may change: masks grown from boxes, the regions that they fall into, and windows round these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdg.defects import Defect


class Rectangle(NamedTuple):
    """Pixels from (left, top) up to, but not including, (right, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top


def grown(defect: Defect, size: tuple[int, int], grow: float) -> Rectangle:
    """A defect's box in pixels, grown on all sides; it holds at least one pixel, whatever the box covers.

    Args:
        defect: whose box is meant.
        size: width and height of the picture in pixels.
        grow: by how much, as a share of the picture's shorter side.
    """
    room = grow * min(size)
    x0, y0, x1, y1 = defect.to_pixels(*size)
    left, top = max(0, int(np.floor(x0 - room))), max(0, int(np.floor(y0 - room)))
    right, bottom = min(size[0], int(np.ceil(x1 + room))), min(size[1], int(np.ceil(y1 + room)))
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return Rectangle(left, top, max(right, left + 1), max(bottom, top + 1))


def groups(defects: Sequence[Defect], size: tuple[int, int], grow: float) -> list[tuple[Defect, ...]]:
    """Defects that are repaired together, since their grown boxes overlap; the most important group first.

    Args:
        defects: of one picture.
        size: width and height of the picture in pixels.
        grow: as of :func:`grown`.
    """
    boxes = [grown(defect, size, grow) for defect in defects]
    joined = list(range(len(boxes)))
    for i, a in enumerate(boxes):
        for j, b in enumerate(boxes[:i]):
            if min(a.right, b.right) > max(a.left, b.left) and min(a.bottom, b.bottom) > max(a.top, b.top):
                old, new = joined[i], joined[j]
                joined = [new if group == old else group for group in joined]
    found: dict[int, list[Defect]] = {}
    for defect, group in zip(defects, joined, strict=True):
        found.setdefault(group, []).append(defect)

    def weight(defect: Defect) -> int:
        return 100 if defect.importance is None else defect.importance

    ordered = [tuple(sorted(group, key=weight, reverse=True)) for group in found.values()]
    return sorted(ordered, key=lambda group: weight(group[0]), reverse=True)


def mask_of(defects: Iterable[Defect], size: tuple[int, int], grow: float) -> Image.Image:
    """Mode L, 255 in the grown boxes and 0 elsewhere."""
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for defect in defects:
        left, top, right, bottom = grown(defect, size, grow)
        mask[top:bottom, left:right] = 255
    return Image.fromarray(mask)


def regions(mask: Image.Image) -> list[Rectangle]:
    """The bounding rectangles of a mask's connected parts, from the top down."""
    labels, _ = ndimage.label(np.asarray(mask) > 0, structure=np.ones((3, 3)))
    return [Rectangle(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]


def window(region: Rectangle, size: tuple[int, int], context: float, least: int) -> Rectangle:
    """A square round a region, as far as the picture has room for one, to be edited at the editor's own size.

    Args:
        region: what is to be edited.
        size: width and height of the picture in pixels.
        context: side of the window over the longer side of the region, 1 or more.
        least: smallest side in pixels, so that a speck is seen with what is round it.
    """
    side = int(max(least, round(context * max(region.size))))

    def span(low: int, high: int, limit: int) -> tuple[int, int]:
        length = min(limit, max(side, high - low))
        start = min(max(0, (low + high - length) // 2), limit - length)
        return start, start + length

    left, right = span(region.left, region.right, size[0])
    top, bottom = span(region.top, region.bottom, size[1])
    return Rectangle(left, top, right, bottom)


def feathered(mask: Image.Image, radius: float) -> NDArray[np.float32]:
    """How much of the edit is taken at each pixel, (H, W) in 0..1: it fades out towards the mask's edge, within it.

    Args:
        mask: mode L; where it is 0 nothing is taken.
        radius: pixels over which the edit fades out; 0 takes all of it. Where the mask meets the border of the picture
            it does not fade.
    """
    inside = np.asarray(mask) > 0
    if radius <= 0 or inside.all():
        return inside.astype(np.float32)
    padded = np.pad(inside, 1, mode="edge")
    distance = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    return np.clip(distance / (radius + 1), 0, 1).astype(np.float32) * inside


def mixed(image: Image.Image, edited: Image.Image, share: NDArray[np.floating]) -> Image.Image:
    """``edited`` where ``share`` is 1, ``image`` to the bit where it is 0, and a mixture between.

    Args:
        image: RGB.
        edited: RGB of the same size.
        share: (H, W) in 0..1.
    """
    old, new = np.asarray(image, dtype=np.float32), np.asarray(edited, dtype=np.float32)
    return Image.fromarray(np.rint(old + (new - old) * share[..., None]).astype(np.uint8))


def cells(mask: Image.Image, side: int) -> NDArray[np.bool_]:
    """The cells of a grid of side x side over the picture of which a mask touches a pixel."""
    return np.asarray(mask.convert("F").resize((side, side), Image.Resampling.BOX)) > 0
