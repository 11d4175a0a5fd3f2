"""Objects of a picture: cut out of the backdrop, and fitted with every kind, colour and fault of the world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sdg.microworld.kinds import KINDS
from sdg.microworld.oracle.seeing import COLOUR_NAMES, MATERIAL_NAMES, SIZE, Floats, View
from sdg.microworld.oracle.templates import (
    ABOVE,
    FIRST_MATERIAL,
    MAIN,
    REACH_X,
    RESOLUTION,
    Extent,
    Template,
    signs,
    templates,
)

Pixels = tuple[int, int, int, int]
"""A box x0, y0, x1, y1 in pixels, ends open."""
FOREGROUND = 0.45
"""Misfit of the backdrop from which a pixel belongs to an object."""
MIN_AREA = 30
"""Pixels of the smallest object."""
SPLIT = 0.28
"""Cost of the best fit from which a thing may be two that touch."""
_TEXT = MATERIAL_NAMES.index("ink") + FIRST_MATERIAL, MATERIAL_NAMES.index("paint") + FIRST_MATERIAL


@dataclass(frozen=True)
class Fit:
    """A template laid over the picture: ``x`` of its middle, ``base``, ``height`` in pixels.

    ``cost`` is the misfit of the pixels that it paints and of those that it leaves unexplained, over the larger of the
    two areas: 0 for a perfect picture of it, 1 and more for none at all.
    """

    template: Template
    colour: str
    x: float
    base: float
    height: float
    cost: float

    @property
    def box(self) -> Pixels:
        """What it covers, in pixels."""
        return _placed(self.template.box, self.x, self.base, self.height)


@dataclass(frozen=True)
class Seen:
    """A thing in the picture.

    Args:
        box: of its pixels.
        area: number of its pixels.
        mask: its pixels, (S, S).
        sound: the best faultless template.
        flawed: the best template with a fault, or None.
        text: for a sign, how much better its lettering fits a scrawl than any word, in misfit a pixel; else 0.
    """

    box: Pixels
    area: int
    mask: NDArray[np.bool_]
    sound: Fit
    flawed: Fit | None
    text: float = 0.0

    @property
    def cost(self) -> float:
        """Of the best template, faultless or not."""
        return min(self.sound.cost, _cost(self.flawed))


def recognise(view: View) -> list[Seen]:
    """The things of a picture, from left to right."""
    paints = _Paints(view)
    seen = [s for mask in _components(view) for s in _apart(paints, mask, cuts=2)]
    return sorted(seen, key=lambda s: s.box[0] + s.box[2])


def paint_map(fit: Fit) -> NDArray[np.int8]:
    """What a fit paints where, (S, S)."""
    out = np.zeros((SIZE, SIZE), dtype=np.int8)
    rows, columns, labels = _sample(fit.template, fit.x, fit.base, fit.height)
    out[rows, columns] = labels
    return out


def _cost(fit: Fit | None) -> float:
    return np.inf if fit is None else fit.cost


def _placed(extent: Extent, x: float, base: float, height: float) -> Pixels:
    top = base - height
    corners = (x + extent[0] * height, top + extent[1] * height, x + extent[2] * height, top + extent[3] * height)
    x0, y0, x1, y1 = (int(c) for c in np.clip(np.round(corners), 0, SIZE))
    x0, y0 = min(x0, SIZE - 1), min(y0, SIZE - 1)  # what lies beyond the picture keeps its outermost pixel
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


class _Paints:
    """Misfits as a template needs them: what painting a pixel saves against leaving it to the backdrop."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.bare = view.bare.ravel()
        self.colours = (view.colours - view.bare).reshape(len(COLOUR_NAMES), -1)
        materials = (view.materials - view.bare).reshape(len(MATERIAL_NAMES), -1)
        self.materials = np.concatenate([np.zeros((FIRST_MATERIAL, materials.shape[1]), np.float32), materials])

    def lay(self, template: Template, x: float, base: float, height: float, unexplained: float, area: int) -> Fit:
        """The fit of a template there, in its best colour."""
        rows, columns, labels = _sample(template, x, base, height)
        flat = labels.ravel()
        where = (np.arange(rows.start, rows.stop)[:, None] * SIZE + np.arange(columns.start, columns.stop)).ravel()
        main = self.colours[:, where[flat == MAIN]].sum(axis=1)
        best = int(main.argmin()) if main.size else 0
        saved = float(main[best]) + float(self.materials[flat, where].sum())
        painted = max(area, template.area * height * height)
        return Fit(template, COLOUR_NAMES[best], x, base, height, (unexplained + saved) / painted)


def _sample(template: Template, x: float, base: float, height: float) -> tuple[slice, slice, NDArray[np.int8]]:
    x0, y0, x1, y1 = _placed(template.box, x, base, height)
    columns = ((np.arange(x0, x1) + 0.5 - x) / height + REACH_X) * RESOLUTION
    rows = ((np.arange(y0, y1) + 0.5 - (base - height)) / height + ABOVE) * RESOLUTION
    r = np.clip(rows.astype(np.intp), 0, template.paints.shape[0] - 1)
    c = np.clip(columns.astype(np.intp), 0, template.paints.shape[1] - 1)
    return slice(y0, y1), slice(x0, x1), template.paints[r[:, None], c[None, :]]


def _components(view: View) -> Iterator[NDArray[np.bool_]]:
    """Masks of the things: pieces of the foreground, those above one another taken together."""
    solid = ndimage.binary_opening(view.bare > FOREGROUND, np.ones((2, 2), bool))
    labels, _ = ndimage.label(ndimage.binary_closing(np.pad(solid, 2), np.ones((3, 3), bool))[2:-2, 2:-2])
    labels[~solid] = 0
    pieces = []
    for index, place in enumerate(ndimage.find_objects(labels), start=1):
        area = int((labels[place] == index).sum()) if place else 0
        if area >= 4:
            pieces.append([{index}, place[1].start, place[1].stop, area, place[0].start, place[0].stop])
    pieces.sort(key=lambda p: -p[3])
    things: list[list] = []
    for piece in pieces:
        for thing in things:
            overlap = min(piece[2], thing[2]) - max(piece[1], thing[1])
            apart = max(piece[4], thing[4]) - min(piece[5], thing[5])
            small = piece[3] < 0.15 * thing[3]
            # Things stand side by side: what lies under or over a thing is a part of it, whose link was lost.
            within = overlap > 0.5 * (piece[2] - piece[1]) and apart < (14 if piece[3] < 12 else 60)
            if within or (small and overlap >= -2 and apart < 3):
                thing[0] |= piece[0]
                thing[1], thing[2] = min(thing[1], piece[1]), max(thing[2], piece[2])
                thing[4], thing[5] = min(thing[4], piece[4]), max(thing[5], piece[5])
                thing[3] += piece[3]
                break
        else:
            things.append(piece)
    for thing in things:
        if thing[3] >= MIN_AREA:
            yield np.isin(labels, list(thing[0]))


def _identify(paints: _Paints, mask: NDArray[np.bool_]) -> Seen | None:
    area, box = int(mask.sum()), _extent(mask)
    if area < MIN_AREA:
        return None
    unexplained = float(paints.view.bare[mask].sum())
    colours = paints.view.colours[:, mask]
    other = paints.view.materials[:, mask].min(axis=0)
    worn = ((colours == colours.min(axis=0)) & (colours <= other + 0.1) & (colours < 0.5)).sum(axis=1)
    proposals: list[tuple[Pixels, bool]] = [(box, False)]
    main = np.zeros_like(mask)
    main[mask] = (colours[int(worn.argmax())] <= np.minimum(other, colours.min(axis=0)) + 0.1) & (
        colours[int(worn.argmax())] < 0.6
    )
    main = ndimage.binary_opening(main, np.ones((2, 2), bool))
    if main.sum() >= 9:
        proposals.append((_extent(main), True))
    first = [
        paints.lay(template, *pose, unexplained, area)
        for template in templates()
        for pose in _poses(template, proposals)
    ]
    if all(fit.template.fault is not None for fit in first):
        # Of the shape of nothing: whatever fits least badly.
        first += [
            paints.lay(template, *pose, unexplained, area)
            for template in templates()[: len(KINDS)]
            for pose in _poses(template, proposals, tolerance=9)
        ]
    sound = _refine(paints, _leaders([f for f in first if f.template.fault is None], 3), unexplained, area)
    flawed = _refine(paints, _leaders([f for f in first if f.template.fault is not None], 4), unexplained, area)
    if sound is None:
        return None
    if flawed is not None and flawed.cost < sound.cost and flawed.template.kind != sound.template.kind:
        # The faultless rival of a flawed fit is the same kind at the same place.
        twin = next(t for t in templates() if t.kind == flawed.template.kind)
        rival = _refine(
            paints, [paints.lay(twin, flawed.x, flawed.base, flawed.height, unexplained, area)], unexplained, area
        )
        if rival is not None and flawed.cost < 0.6 * sound.cost:
            sound = rival
    best = flawed if flawed is not None and flawed.cost < sound.cost else sound
    if best.template.kind != "sign":
        return Seen(box, area, mask, sound, flawed)
    # Templates of signs hold one word of many: put in the one that fits, which is worth the same to all of them.
    text, word = _lettering(paints, best)
    spelt = paints.lay(word, sound.x, sound.base, sound.height, unexplained, area)
    if sound.template.kind == "sign" and spelt.cost < sound.cost:
        if flawed is not None and flawed.template.kind == "sign":
            flawed = replace(flawed, cost=flawed.cost - sound.cost + spelt.cost)
        sound = replace(spelt, colour=sound.colour)
    return Seen(box, area, mask, sound, flawed, text)


def _poses(
    template: Template, proposals: Sequence[tuple[Pixels, bool]], tolerance: float = 0.4
) -> Iterator[tuple[float, float, float]]:
    """Where a template would stand, were its extent (or that of its main colour) the one seen."""
    for (x0, y0, x1, y1), of_main in proposals:
        u0, v0, u1, v1 = template.main_box if of_main else template.box
        by_width, by_height = (x1 - x0) / (u1 - u0), (y1 - y0) / (v1 - v0)
        if abs(np.log(by_width / by_height)) < tolerance:
            height = float(np.sqrt(by_width * by_height))
            x = (x0 + x1) / 2 - height * (u0 + u1) / 2
            yield x, (y0 + y1) / 2 - height * (v0 + v1) / 2 + height, height


def _leaders(fits: list[Fit], n: int) -> list[Fit]:
    """The best fit of each template, the ``n`` best of them."""
    best: dict[int, Fit] = {}
    for fit in fits:
        if fit.cost < _cost(best.get(id(fit.template))):
            best[id(fit.template)] = fit
    return sorted(best.values(), key=lambda f: f.cost)[:n]


def _refine(paints: _Paints, fits: list[Fit], unexplained: float, area: int) -> Fit | None:
    """The best of some fits after small moves."""
    refined = []
    for index, fit in enumerate(fits):
        if index and fit.cost > 2 * fits[0].cost + 0.1:
            continue
        for step in (1.5, 0.7):
            moved = True
            for _ in range(2):
                if not moved:
                    break
                moved = False
                for dx, dbase, dheight in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                    height = fit.height + dheight * step
                    if height < 6:
                        continue
                    tried = paints.lay(
                        fit.template,
                        fit.x + dx * step,
                        fit.base + dbase * step + dheight * step / 2,
                        height,
                        unexplained,
                        area,
                    )
                    if tried.cost < fit.cost - 1e-6:
                        fit, moved = tried, True
        refined.append(fit)
    return min(refined, key=lambda f: f.cost, default=None)


def _lettering(paints: _Paints, sign: Fit) -> tuple[float, Template]:
    """How much better a scrawl fits a sign than the best word, in misfit a pixel of the text field; and that word."""
    dark = sign.colour in ("white", "yellow")
    half = len(signs()) // 2
    ink = _TEXT[0 if dark else 1]
    board = paints.view.colours[COLOUR_NAMES.index(sign.colour)]
    letters = paints.view.materials[ink - FIRST_MATERIAL]
    top, left = sign.base - sign.height, sign.x
    x0, y0, x1, y1 = _placed((-0.66, 0.14, 0.66, 0.5), left, top + sign.height, sign.height)
    field = slice(y0, y1), slice(x0, x1)
    scrawl, best, word = np.inf, np.inf, signs()[0]
    for template in signs()[half:] if dark else signs()[:half]:
        for dx in (-1.0, 0.0, 1.0):
            for dy in (-0.7, 0.0, 0.7):
                fit = Fit(template, sign.colour, sign.x + dx, sign.base + dy, sign.height, 0)
                written = paint_map(fit)[field] == ink
                cost = float(np.where(written, letters[field], board[field]).mean())
                if template.fault is not None:
                    scrawl = min(scrawl, cost)
                elif cost < best:
                    best, word = cost, template
    return best - scrawl, word


def _apart(paints: _Paints, mask: NDArray[np.bool_], cuts: int) -> list[Seen]:
    """The thing that a mask shows; or the things, where it fits badly and two that touch explain it much better."""
    whole = _identify(paints, mask)
    if whole is None or not cuts or whole.cost < SPLIT:
        return [] if whole is None else [whole]
    x0, _, x1, _ = _extent(mask)
    margin = (x1 - x0) // 5
    profile = mask.sum(axis=0)[x0 + margin : x1 - margin]
    if profile.size < 6:
        return [whole]
    at = x0 + margin + int(profile.argmin())
    columns = np.arange(SIZE)
    parts = [s for half in (columns < at, columns >= at) for s in _apart(paints, mask & half, cuts - 1)]
    areas = [s.area for s in parts]
    if len(parts) < 2 or min(areas) < 0.25 * whole.area or max(s.cost for s in parts) > SPLIT:
        return [whole]
    return parts if np.average([s.cost for s in parts], weights=areas) < 0.5 * whole.cost else [whole]


def _extent(mask: NDArray[np.bool_]) -> Pixels:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def unfit(view: View, fit: Fit, mask: NDArray[np.bool_]) -> Floats:
    """Misfit of a thing's pixels under a fit, (S, S): painted ones by their paint, others by the backdrop."""
    painted = paint_map(fit)
    out = np.where(mask, view.bare, 0).astype(np.float32)
    colour = view.colours[COLOUR_NAMES.index(fit.colour)]
    out = np.where(painted == MAIN, colour, out)
    rows, columns = np.nonzero(painted >= FIRST_MATERIAL)
    out[rows, columns] = view.materials[painted[rows, columns] - FIRST_MATERIAL, rows, columns]
    # Where paints meet, a scaled, blurred or generated picture mixes them: no fault.
    edge = ndimage.maximum_filter(painted, 3) != ndimage.minimum_filter(painted, 3)
    return np.where(edge, 0, out)
