"""Every kind of object as it should be, and with each fault that the world knows, as maps of paints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sdg.microworld.kinds import KINDS, WORDS
from sdg.microworld.oracle.seeing import MATERIAL_NAMES
from sdg.microworld.render import _parts, _tear
from sdg.microworld.scene import Fault, Thing

RESOLUTION = 96
"""Cells of a map for one height of the object."""
REACH_X, ABOVE, BELOW = 1.15, 0.1, 0.1
"""What a map holds: this far to both sides, above and below, in heights."""
BARE, MAIN, FIRST_MATERIAL = 0, 1, 2

Extent = tuple[float, float, float, float]


@dataclass(frozen=True)
class Template:
    """An object's map and where its parts end, in heights: x from its middle, y from its top.

    Args:
        kind: of object.
        fault: None for a faultless one.
        word: on a sign.
        paints: (rows, columns): BARE, MAIN, or FIRST_MATERIAL + a material.
        box: x0, y0, x1, y1 of all that is painted.
        main_box: the same of what wears the main colour.
    """

    kind: str
    fault: Fault | None
    word: str
    paints: NDArray[np.int8]
    box: Extent
    main_box: Extent

    @property
    def area(self) -> float:
        """Painted area in squared heights."""
        return float((self.paints > BARE).sum()) / RESOLUTION**2


def grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates u, v of a map's cells."""
    us = (np.arange(round(2 * REACH_X * RESOLUTION), dtype=np.float32) + 0.5) / RESOLUTION - REACH_X
    vs = (np.arange(round((1 + ABOVE + BELOW) * RESOLUTION), dtype=np.float32) + 0.5) / RESOLUTION - ABOVE
    u, v = np.meshgrid(us, vs)
    return u.astype(np.float32), v.astype(np.float32)


@lru_cache(maxsize=1)
def templates() -> tuple[Template, ...]:
    """All kinds, faultless first, then with each missing part, extra part and torn side."""
    sound = [_template(kind, None) for kind in KINDS]
    return (*sound, *(_template(kind, fault) for kind in KINDS for fault in _faults(kind)))


@lru_cache(maxsize=1)
def signs() -> tuple[Template, ...]:
    """Signs with every word, then one with garbled text, dark lettering and light: 2 x (words + 1)."""
    return tuple(
        _template("sign", fault, word, colour)
        for colour in ("red", "white")
        for word, fault in (*((w, None) for w in WORDS), ("", Fault("garbled_text", part="text")))
    )


def _faults(kind: str) -> Iterator[Fault]:
    spec = KINDS[kind]
    for part in spec.removable:
        yield Fault("missing_part", part=part)
    for index, extra in enumerate(spec.extras):
        yield Fault("extra_part", part=extra.name, index=index)
    for side in (-1, 1):
        yield Fault("jagged_edge", part="right edge" if side > 0 else "left edge", side=side)


def _template(kind: str, fault: Fault | None, word: str = "", colour: str = "red") -> Template:
    thing = Thing(kind, colour, 0, 0, height=1.0, word=word or WORDS[0], fault=fault)
    u, v = grid()
    paints = np.zeros(u.shape, dtype=np.int8)
    cut = _tear(thing, u, v) if fault is not None and fault.kind == "jagged_edge" else None
    for part in _parts(thing):
        inside = part.shape(u, v) <= 0
        if cut is not None:
            inside &= cut <= 0
        paints[inside] = MAIN if part.paint == "main" else FIRST_MATERIAL + MATERIAL_NAMES.index(part.paint)
    return Template(kind, fault, word, paints, _extent(paints > BARE), _extent(paints == MAIN))


def _extent(mask: NDArray[np.bool_]) -> Extent:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        float(columns[0]) / RESOLUTION - REACH_X,
        float(rows[0]) / RESOLUTION - ABOVE,
        float(columns[-1] + 1) / RESOLUTION - REACH_X,
        float(rows[-1] + 1) / RESOLUTION - ABOVE,
    )
