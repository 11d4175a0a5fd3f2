"""Artifacts: visual flaws of a picture, whatever its caption says.

Box rule: an artifact's box is the tight box of the pixels that it changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sdg.microworld.kinds import KINDS
from sdg.microworld.render import REFERENCE_SIZE, Drawing, draw
from sdg.microworld.scene import Fault, Scene, Thing
from sdg.microworld.shapes import Array

_WEIGHTS = {
    "warp": 1.0,
    "smear": 1.0,
    "jagged_edge": 1.0,
    "extra_part": 1.2,
    "missing_part": 1.2,
    "garbled_text": 3.0,
    "wrong_shadow": 0.5,
}
ARTIFACTS = tuple(_WEIGHTS)
VISIBLE = 24
"""Change of a channel, of 255, from which a pixel counts as changed."""
_MIN_SIDE, _MIN_PIXELS = 7, 50
"""At the reference size; a smaller mark could not be told from a clean picture."""


@dataclass(frozen=True)
class Artifact:
    """One artifact: its kind, the thing it sits on, the part concerned, and its box in pixels (x0, y0, x1, y1)."""

    kind: str
    uid: int
    part: str
    box: tuple[int, int, int, int]
    side: int = 1


def _changed(before: Array, after: Array, size: int) -> tuple[int, int, int, int] | None:
    """Tight box of the visibly changed pixels, or None where too few changed."""
    mask = np.abs(after - before).max(axis=2) >= VISIBLE
    line = size / REFERENCE_SIZE
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if mask.sum() < _MIN_PIXELS * line * line or min(np.ptp(rows), np.ptp(columns)) + 1 < _MIN_SIDE * line:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _fault(kind: str, thing: Thing, rng: np.random.Generator) -> Fault | None:
    spec = KINDS[thing.kind]
    if kind == "missing_part" and spec.removable:
        return Fault(kind, part=str(rng.choice(list(spec.removable))))
    if kind == "extra_part" and spec.extras:
        index = int(rng.integers(len(spec.extras)))
        return Fault(kind, part=spec.extras[index].name, index=index)
    if kind == "garbled_text" and thing.kind == "sign":
        return Fault(kind, part="text")
    if kind == "jagged_edge":
        side = int(rng.choice([-1, 1]))
        return Fault(kind, part="right edge" if side > 0 else "left edge", side=side)
    if kind == "wrong_shadow":
        return Fault(kind, part="shadow")
    return None


def _extent(cover: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _warp(pixels: Array, cover: NDArray[np.bool_], size: int, rng: np.random.Generator) -> Array:
    """Waves through an elliptic window over the thing."""
    x0, y0, x1, y1 = _extent(cover)
    line = size / REFERENCE_SIZE
    rx, ry = max(0.5 * (x1 - x0), 9 * line), max(rng.uniform(0.28, 0.4) * (y1 - y0), 9 * line)
    cx, cy = (x0 + x1) / 2, y0 + rng.uniform(0.35, 0.65) * (y1 - y0)
    top, bottom = max(0, int(cy - ry)), min(size, int(cy + ry) + 1)
    left, right = max(0, int(cx - rx)), min(size, int(cx + rx) + 1)
    ys, xs = np.mgrid[top:bottom, left:right].astype(np.float32)
    inside = np.clip(2.5 * (1 - np.hypot((xs - cx) / rx, (ys - cy) / ry)), 0, 1)
    wave = 2 * np.pi / (rng.uniform(8, 11) * line)
    amplitude = rng.uniform(3.6, 4.6) * line
    phase = rng.uniform(0, 2 * np.pi)
    at_x = xs + inside * amplitude * np.sin(ys * wave + phase)
    at_y = ys + inside * 0.5 * amplitude * np.sin(xs * wave + phase)
    out = pixels.copy()
    for channel in range(3):
        out[top:bottom, left:right, channel] = ndimage.map_coordinates(
            pixels[..., channel], [at_y, at_x], order=1, mode="nearest"
        )
    return out


def _smear(pixels: Array, cover: NDArray[np.bool_], size: int, rng: np.random.Generator) -> Array:
    """Colour that runs down in streaks from a row of the thing."""
    x0, y0, x1, y1 = _extent(cover)
    line = size / REFERENCE_SIZE
    width = max(rng.uniform(0.6, 0.95) * (x1 - x0), min(10 * line, x1 - x0))
    left = int(x0 + rng.uniform(0, 1) * (x1 - x0 - width))
    right = min(size, int(left + width) + 1)
    row = int(y0 + rng.uniform(0.2, 0.5) * (y1 - y0))
    longest = max(rng.uniform(0.5, 0.8) * (y1 - y0), 12 * line)
    out = pixels.copy()
    source = ndimage.uniform_filter1d(pixels[row], size=max(1, round(2 * line)), axis=0)
    lengths = ndimage.uniform_filter1d(rng.uniform(0.35, 1.0, size), size=max(1, round(2 * line))) * longest
    for x in range(left, right):
        if cover[max(0, row - 1) : row + 2, x].any():
            bottom = min(size, row + int(lengths[x]))
            out[row:bottom, x] = source[x]
    return out


def add_artifacts(
    scene: Scene, n: int, size: int, rng: np.random.Generator
) -> tuple[Scene, Drawing, Array, list[Artifact]]:
    """Draw the scene with up to ``n`` artifacts, at most one a thing.

    Args:
        scene: what to draw.
        n: how many artifacts to try for.
        size: side in pixels.
        rng: random numbers.

    Returns:
        The scene with its geometric faults; the flawed drawing; the clean pixels (S, S, 3) float32 in 0..255; the
        artifacts from left to right.
    """
    clean = draw(scene, size)
    chosen: list[tuple[Thing, Fault | str]] = []
    made: list[Artifact] = []
    for index in rng.permutation(len(scene.things)):
        thing = scene.things[int(index)]
        names = [k for k in ARTIFACTS if k != "garbled_text" or thing.kind == "sign"]
        weights = np.array([_WEIGHTS[k] for k in names])
        order = rng.choice(len(names), size=len(names), replace=False, p=weights / weights.sum())
        for kind in (names[int(i)] for i in order):
            if len(chosen) >= n:
                break
            if kind in ("warp", "smear"):
                chosen.append((thing, kind))
                break
            fault = _fault(kind, thing, rng)
            if fault is None:
                continue
            flawed = _with_fault(scene, thing.uid, fault)
            box = _changed(clean.pixels, draw(flawed, size).pixels, size)
            if box is not None:
                chosen.append((thing, fault))
                made.append(Artifact(kind, thing.uid, fault.part, box, fault.side))
                break
    for thing, flaw in chosen:
        if isinstance(flaw, Fault):
            scene = _with_fault(scene, thing.uid, flaw)
    drawing = draw(scene, size) if made else clean
    pixels = drawing.pixels
    for thing, flaw in chosen:
        if isinstance(flaw, str):
            after = (_warp if flaw == "warp" else _smear)(pixels, drawing.covers[thing.uid], size, rng)
            box = _changed(pixels, after, size)
            if box is not None:
                pixels = after
                made.append(Artifact(flaw, thing.uid, "middle" if flaw == "warp" else "surface", box))
    return (
        scene,
        Drawing(pixels, drawing.covers),
        clean.pixels,
        sorted(made, key=lambda a: (a.box[0] + a.box[2], a.box[1])),
    )


def _with_fault(scene: Scene, uid: int, fault: Fault) -> Scene:
    things: Sequence[Thing] = [replace(t, fault=fault) if t.uid == uid else t for t in scene.things]
    return replace(scene, things=tuple(things))
