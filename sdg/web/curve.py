"""BoxF1 against the IoU threshold as SVG, in the colours of the page, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sdg.defects import TYPES, DefectType

if TYPE_CHECKING:
    from sdg.evaluation.plot import Curve

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 10, 38
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def plot(curves: Mapping[str, Mapping[str, Curve]], thresholds: Sequence[float], level: float) -> str:
    """A panel a type, a line a set of predictions, with a band for its interval.

    Args:
        curves: by the name of the set, the first one being one's own, and by type.
        thresholds: k IoUs in 0..1.
        level: of the intervals.
    """
    panels = "".join(_panel(t, {name: by_type[t.value] for name, by_type in curves.items()}, thresholds) for t in TYPES)
    names = list(curves)
    keys = [f'<span><i class="sdg-key-line own"></i>{escape(names[0])}</span>']
    keys += [f'<span><i class="sdg-key-line other"></i>{escape(name)}</span>' for name in names[1:]]
    note = f"Bands: {100 * level:g} % intervals over images. The matching is the same at every threshold."
    return (
        f'<div class="sdg-panels">{panels}</div><div class="sdg-keys">{"".join(keys)}</div>'
        f'<p class="sdg-note">{note}</p>'
    )


def _x(value: float) -> float:
    return LEFT + value * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)


def _points(xs: Iterable[float], ys: Iterable[float]) -> str:
    return " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in zip(xs, ys, strict=True))


def _panel(t: DefectType, curves: Mapping[str, Curve], thresholds: Sequence[float]) -> str:
    grid = "".join(
        f'<path class="grid" d="M{_x(0):.1f} {_y(v):.1f}H{_x(1):.1f}M{_x(v):.1f} {_y(0):.1f}V{_y(1):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{_y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        f'<text x="{_x(v):.1f}" y="{_y(0) + 16:.1f}" text-anchor="middle">{v:g}</text>'
        for v in TICKS
    )
    lines = "".join(
        _line(c, thresholds, "other" if k else "own") for k, c in reversed(list(enumerate(curves.values())))
    )
    said = "; ".join(f"{name}: {_words(curve, thresholds)}" for name, curve in curves.items())
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<figure class="sdg-panel {t.value}"><figcaption><i class="sdg-swatch {t.value}"></i>{t.value.capitalize()}'
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="BoxF1, {t.value}: {escape(said)}">'
        f'{grid}<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">IoU threshold</text>'
        f'<text class="axis" transform="rotate(-90)" x="{-_y(0.5):.1f}" y="10" text-anchor="middle">BoxF1</text>'
        f"{lines}</svg></figure>"
    )


def _line(curve: Curve, thresholds: Sequence[float], role: str) -> str:
    if np.isnan(curve.box_f1).any():  # undefined at one threshold is undefined at all: there is no box of this type
        return ""
    band = _points([*thresholds, *reversed(thresholds)], [*curve.high, *reversed(curve.low)])
    dots = "".join(
        f'<circle cx="{_x(x):.1f}" cy="{_y(f1):.1f}" r="6"><title>IoU {x:g}: {f1:.3f} [{low:.3f}, {high:.3f}]</title>'
        "</circle>"
        for x, f1, low, high in zip(thresholds, *curve, strict=True)
    )
    line = _points(thresholds, curve.box_f1)
    return f'<g class="{role}"><polygon points="{band}"/><polyline points="{line}"/>{dots}</g>'


def _words(curve: Curve, thresholds: Sequence[float]) -> str:
    if np.isnan(curve.box_f1).any():
        return "undefined, there is no box"
    chosen = [k for k, x in enumerate(thresholds) if round(100 * x) in (10, 50, 75)]
    return ", ".join(f"{curve.box_f1[k]:.2f} at {thresholds[k]:g}" for k in chosen)
