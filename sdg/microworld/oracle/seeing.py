"""What a picture is made of: its backdrop, and how well every pixel fits each paint of the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdg.microworld.kinds import COLOURS, MATERIALS
from sdg.microworld.scene import GROUNDS, SKIES

Floats = NDArray[np.float32]

SIZE = 128
"""Side in pixels at which pictures are measured; others are scaled."""
_HORIZONS = [float(h) for h in np.arange(0.49, 0.675, 0.008)]
_SUN = np.array((255, 246, 204), dtype=np.float32)
_NEAR, _FAR = 10.0, 44.0
"""Distance in RGB below which a pixel wears a paint without doubt, and above which it does not at all."""
_SHADES = (0.42, 1.22)
"""Light, texture and outline multiply a paint by factors in this range."""
_SHADOW = (0.44, 1.15)
COLOUR_NAMES, MATERIAL_NAMES = tuple(COLOURS), tuple(MATERIALS)


@dataclass(frozen=True)
class View:
    """A picture, seen through the world's paints.

    Args:
        pixels: (S, S, 3) in 0..255.
        sky: name of the sky that fits best.
        ground: name of the ground that fits best.
        horizon: in 0..1 of the height.
        misfit: share of the backdrop's own pixels that fit no backdrop, 0..1.
        bare: misfit of the backdrop, (S, S) in 0..1.
        shade: factor on the backdrop's colour, (S, S).
        colours: misfit of each object colour, (7, S, S).
        materials: misfit of each material, (13, S, S).
        light: -1 with the sun on the left, 1 on the right, 0 where none is seen.
    """

    pixels: Floats
    sky: str
    ground: str
    horizon: float
    misfit: float
    bare: Floats
    shade: Floats
    colours: Floats
    materials: Floats
    light: int


def look(image: Image.Image) -> View:
    """Measure a picture against the world's backdrops and paints."""
    square = image.convert("RGB")
    if square.size != (SIZE, SIZE):
        square = square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pixels = np.asarray(square, dtype=np.float32)
    noise = _noise(pixels)
    smooth = ndimage.gaussian_filter(pixels, (0.5 + 0.05 * noise, 0.5 + 0.05 * noise, 0))
    sky, ground, horizon, backdrop = _backdrop(smooth)
    below = (np.arange(SIZE) + 0.5)[:, None] / SIZE >= horizon
    low = np.where(below, _SHADOW[0], 0.9).astype(np.float32)
    bare, shade = _misfit(smooth, backdrop, low, _SHADOW[1])
    # The line between sky and ground is soft in a scaled or generated picture.
    row = round(horizon * SIZE)
    for y in range(max(0, row - 2), min(SIZE, row + 2)):
        for other in (max(0, row - 4), min(SIZE - 1, row + 4)):
            bare[y] = np.minimum(bare[y], _misfit(smooth[y], backdrop[other], np.float32(0.6), 1.15)[0])
    light = _sun(smooth, bare)
    palette = np.array([*COLOURS.values(), *MATERIALS.values()], dtype=np.float32)
    worn = np.stack([_misfit(smooth, paint, np.float32(_SHADES[0]), _SHADES[1])[0] for paint in palette])
    n = len(COLOURS)
    far = float((bare[: SIZE // 8] > 0.5).mean())
    return View(pixels, sky, ground, horizon, far, bare, shade, worn[:n], worn[n:], light)


def _noise(pixels: Floats) -> float:
    """Standard deviation of what no neighbour shares, per channel, in the picture's upper third: it is mostly sky."""
    sky = pixels[: SIZE // 3]
    fine = sky[1:-1, 1:-1] - (sky[:-2, 1:-1] + sky[2:, 1:-1] + sky[1:-1, :-2] + sky[1:-1, 2:]) / 4
    return float(np.clip(1.48 * np.median(np.abs(fine)) / 1.118, 0, 12))


def _misfit(pixels: Floats, paint: Floats, low: Floats | np.float32, high: float) -> tuple[Floats, Floats]:
    """How badly pixels fit a paint under the best light: 0 not at all badly, 1 hopelessly; and that light."""
    light = np.clip((pixels * paint).sum(-1) / (paint * paint).sum(-1), low, high)
    # A paint lit beyond white is cut off there.
    distance = np.linalg.norm(pixels - np.minimum(light[..., None] * paint, 255), axis=-1)
    return np.clip((distance - _NEAR) / (_FAR - _NEAR), 0, 1).astype(np.float32), light.astype(np.float32)


def _backdrop(pixels: Floats) -> tuple[str, str, float, Floats]:
    """The sky, ground and horizon that fit best, and the colours that they have, (S, S, 3)."""
    ys: Floats = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE)[:, None].astype(np.float32)
    sample = pixels[:, 2::4]
    best: tuple[float, str, str, float] = (np.inf, "", "", 0.5)
    for horizon in _HORIZONS:
        rows = int(np.ceil(horizon * SIZE - 0.5))
        part = {}
        for name, wanted in (("sky", _skies(ys[:rows], horizon)), ("ground", _grounds(ys[rows:], horizon))):
            seen = sample[:rows] if name == "sky" else sample[rows:]
            costs = {
                key: float(np.minimum(np.abs(seen - colours[:, None]).sum(-1), 60).sum())
                for key, colours in wanted.items()
            }
            part[name] = min(costs.items(), key=lambda item: item[1])
        total = part["sky"][1] + part["ground"][1]
        if total < best[0]:
            best = (total, part["sky"][0], part["ground"][0], float(horizon))
    _, sky, ground, horizon = best
    rows = int(np.ceil(horizon * SIZE - 0.5))
    colours = np.concatenate([_skies(ys[:rows], horizon)[sky], _grounds(ys[rows:], horizon)[ground]])
    # A generator's backdrop may be a little off colour: follow it, row by row, where most of the row agrees.
    wrong = pixels - colours[:, None]
    near = np.abs(wrong).sum(-1) < 60
    shift = np.zeros_like(colours)
    for band in (slice(0, rows), slice(rows, SIZE)):
        if near[band].mean() > 0.2:
            shift[band] = np.median(wrong[band][near[band]], axis=0)
    colours = np.clip(colours + shift, 1, 255)
    return sky, ground, horizon, np.broadcast_to(colours[:, None], pixels.shape).astype(np.float32)


def _skies(ys: Floats, horizon: float) -> dict[str, Floats]:
    along = ys / np.float32(horizon)
    return {name: _rgb(top) * (1 - along) + _rgb(low) * along for name, (top, low) in SKIES.items()}


def _grounds(ys: Floats, horizon: float) -> dict[str, Floats]:
    depth = np.clip((ys - horizon) / (1 - horizon), 0, 1).astype(np.float32)
    return {name: _rgb(colour) * (np.float32(0.82) + np.float32(0.26) * depth) for name, colour in GROUNDS.items()}


def _rgb(colour: tuple[int, int, int]) -> Floats:
    return np.array(colour, dtype=np.float32)


def _sun(pixels: Floats, bare: Floats) -> int:
    """Side of the sun, whose disc counts as backdrop from here on (``bare`` is changed)."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    share, side = 0.35, 0
    for light in (-1, 1):
        away = np.hypot(x + 0.5 - (0.5 + 0.42 * light) * SIZE, y + 0.5 - 0.09 * SIZE)
        warm = np.clip(np.linalg.norm(pixels - _SUN, axis=-1) / 60, 0, 1)
        lit = float((warm[away < 0.06 * SIZE] < 0.6).mean())
        if lit > share:
            share, side = lit, light
    if side:
        disc = np.hypot(x + 0.5 - (0.5 + 0.42 * side) * SIZE, y + 0.5 - 0.09 * SIZE) < 0.085 * SIZE
        bright = disc & (pixels.min(-1) > 110) & (pixels[..., 0] > 150)
        bare[bright] = 0
    return side
