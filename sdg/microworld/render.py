"""Drawing a scene: lit, grained backdrop, cast shadows, anti-aliased objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sdg.microworld.kinds import COLOURS, KINDS, MATERIALS, Part
from sdg.microworld.scene import GROUNDS, SKIES, Scene, Thing
from sdg.microworld.shapes import Array, Shape, capsule, union

REFERENCE_SIZE = 128
"""Side in pixels at which line widths and artifact strengths are given; other sizes scale them."""


@dataclass(frozen=True)
class Drawing:
    """A drawn scene: pixels (S, S, 3) float32 in 0..255, and what each thing covers, (S, S) bool by uid."""

    pixels: Array
    covers: dict[int, NDArray[np.bool_]]


def draw(scene: Scene, size: int = REFERENCE_SIZE) -> Drawing:
    """Draw a scene as a square of ``size`` pixels a side."""
    canvas = _backdrop(scene, size)
    for thing in scene.things:
        _cast_shadow(canvas, thing, scene, size)
    covers = {thing.uid: _stand(canvas, thing, scene, size) for thing in scene.things}
    return Drawing(np.clip(canvas, 0, 255), covers)


@lru_cache(maxsize=64)
def _grain(seed: int, size: int, smooth: float) -> Array:
    """Repeatable texture of unit variance, correlated over ``smooth`` pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((REFERENCE_SIZE, REFERENCE_SIZE), dtype=np.float32)
    texture = ndimage.uniform_filter(coarse, size=int(smooth), mode="wrap") * smooth
    return texture if size == REFERENCE_SIZE else ndimage.zoom(texture, size / REFERENCE_SIZE, order=1)[:size, :size]


def _backdrop(scene: Scene, size: int) -> Array:
    ys = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None]
    top, low = (np.array(c, dtype=np.float32) for c in SKIES[scene.sky])
    ground = np.array(GROUNDS[scene.ground], dtype=np.float32)
    along = np.clip(ys / scene.horizon, 0, 1)[..., None]
    sky = np.broadcast_to(top * (1 - along) + low * along, (size, size, 3))
    depth = np.clip((ys - scene.horizon) / (1 - scene.horizon), 0, 1)[..., None]
    earth = ground * (0.82 + 0.26 * depth) + 6 * _grain(scene.grain, size, 2)[..., None]
    canvas = np.where(ys[..., None] < scene.horizon, sky + 2 * _grain(scene.grain + 1, size, 6)[..., None], earth)
    x, y = _plane(size, 0, 0, size, size)
    sun = np.hypot(x - (0.5 + 0.42 * scene.light), y - 0.09)
    glow = np.clip((0.065 - sun) * size, 0, 1)[..., None]
    return np.ascontiguousarray(canvas * (1 - glow) + np.array((255, 246, 204), dtype=np.float32) * glow)


def _plane(size: int, left: int, top: int, right: int, bottom: int) -> tuple[Array, Array]:
    """Pixel centres of a window, in widths of the picture: x (1, w), y (h, 1)."""
    xs = (np.arange(left, right, dtype=np.float32) + 0.5) / size
    ys = (np.arange(top, bottom, dtype=np.float32) + 0.5) / size
    return xs[None, :].astype(np.float32), ys[:, None].astype(np.float32)


def _window(size: int, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int]:
    low, high = np.floor(np.array([x0, y0]) * size), np.ceil(np.array([x1, y1]) * size)
    left, top, right, bottom = (int(e) for e in np.clip([*low, *high], 0, size))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _cast_shadow(canvas: Array, thing: Thing, scene: Scene, size: int) -> None:
    away = -scene.light
    if thing.fault is not None and thing.fault.kind == "wrong_shadow":
        away = -away
    reach = 0.3 * thing.height + 0.35 * thing.width
    cx, rx, ry = thing.x + away * reach, reach, 0.035 + 0.03 * thing.height
    left, top, right, bottom = _window(size, cx - rx, thing.base - ry, cx + rx, thing.base + ry)
    if left >= right or top >= bottom:
        return
    x, y = _plane(size, left, top, right, bottom)
    distance = (np.hypot((x - cx) / rx, (y - thing.base) / ry) - 1) * ry * size
    canvas[top:bottom, left:right] *= 1 - 0.5 * np.clip(0.5 - distance / 1.5, 0, 1)[..., None]


def _garbled() -> Shape:
    """Strokes that look like writing and are none."""
    zigzag = ((-0.62, 0.42), (-0.5, 0.18), (-0.42, 0.46), (-0.24, 0.3), (-0.3, 0.17), (-0.08, 0.45), (0.0, 0.2))
    scrawl = ((0.08, 0.44), (0.3, 0.44), (0.12, 0.22), (0.34, 0.18), (0.44, 0.46), (0.6, 0.2), (0.62, 0.46))
    lines = [capsule(*a, *b, 0.032) for points in (zigzag, scrawl) for a, b in pairwise(points)]
    return union(*lines)


def _parts(thing: Thing) -> list[Part]:
    kind, fault = KINDS[thing.kind], thing.fault
    ink = "ink" if thing.colour in ("white", "yellow") else "paint"
    parts = list(kind.parts(thing.word, ink))
    if fault is None:
        return parts
    if fault.kind == "missing_part":
        lost = kind.removable[fault.part]
        return [p for p in parts if p.name not in lost]
    if fault.kind == "extra_part":
        return [*parts, kind.extras[fault.index]]
    if fault.kind == "garbled_text":
        return [Part(p.name, _garbled(), p.paint) if p.name == "text" else p for p in parts]
    return parts


def _stand(canvas: Array, thing: Thing, scene: Scene, size: int) -> NDArray[np.bool_]:
    """Draw one thing onto the canvas; returns what it covers, (S, S)."""
    reach = thing.width / 2 + 0.3 * thing.height
    left, top, right, bottom = _window(
        size, thing.x - reach, thing.base - 1.15 * thing.height, thing.x + reach, thing.base + 0.08 * thing.height
    )
    x, y = _plane(size, left, top, right, bottom)
    u = ((x - thing.x) / thing.height + 0 * y).astype(np.float32)
    v = ((y - thing.base) / thing.height + 1 + 0 * x).astype(np.float32)
    unit = thing.height * size
    line = size / REFERENCE_SIZE
    light = 1 + 0.3 * scene.light * u / KINDS[thing.kind].width
    texture = 1 + 0.035 * _grain(scene.grain + 7 + thing.uid, size, 2)[top:bottom, left:right]
    shade = (light * texture)[..., None]
    cut = _tear(thing, u, v) * unit if thing.fault is not None and thing.fault.kind == "jagged_edge" else None
    window = canvas[top:bottom, left:right]
    covered = np.zeros(window.shape[:2], dtype=bool)
    for part in _parts(thing):
        distance = part.shape(u, v) * unit
        if cut is not None:
            distance = np.maximum(distance, cut)
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]
        outline = 1 - 0.5 * np.clip(1.5 + distance / line, 0, 1)[..., None]
        main = part.paint == "main"
        base = np.array(COLOURS[thing.colour] if main else MATERIALS[part.paint], dtype=np.float32)
        colour = (base + np.array(thing.tint, dtype=np.float32) * main) * shade * outline
        window *= 1 - alpha
        window += alpha * colour
        covered |= alpha[..., 0] > 0.5
    cover = np.zeros((size, size), dtype=bool)
    cover[top:bottom, left:right] = covered
    return cover


def _tear(thing: Thing, u: Array, v: Array) -> Array:
    """Signed distance to the half-plane beyond a saw-tooth line, in heights of the thing."""
    assert thing.fault is not None
    width = KINDS[thing.kind].width
    teeth = np.abs((v * 6) % 1 - 0.5) * 2
    line = 0.14 * width + 0.22 * min(width, 0.9) * (teeth - 0.5)
    return (thing.fault.side * u - line) * 0.8
