"""Pictures after an attempt to mend them, with labels that follow from the clean render.

A refiner keeps what its detector finds no fault with, so the detector must know how failed attempts look: half mended,
smudged, or with something else in the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image
from scipy import ndimage

from sdg.boxes import GRID
from sdg.defects import Defect, DefectSet, DefectType
from sdg.microworld.wording import HEADINGS, REASONS, SUBTYPE, located
from sdg.records import Record

WRONG = 55
"""Difference of a channel from the clean render, of 255 and smoothed, from which a pixel is wrong."""
MIN_PIXELS, MIN_SIDE = 50, 7
"""Of a fault, in pixels; less is taken for mended."""

Box = tuple[int, int, int, int]


def fault(edited: Image.Image, clean: Image.Image, box: Box) -> Box | None:
    """The tight box of what is still wrong in a place, on the grid; None where nothing is.

    Args:
        edited: RGB.
        clean: what it should look like, of the same size.
        box: the place, on the grid.
    """
    width, height = clean.size
    apart = np.abs(np.asarray(edited, dtype=np.float32) - np.asarray(clean, dtype=np.float32)).max(axis=2)
    wrong = ndimage.gaussian_filter(apart, 1.0) >= WRONG
    place = np.zeros_like(wrong)
    x0, y0, x1, y1 = box
    place[y0 * height // GRID : -(-y1 * height // GRID), x0 * width // GRID : -(-x1 * width // GRID)] = True
    wrong &= place
    rows, columns = np.flatnonzero(wrong.any(axis=1)), np.flatnonzero(wrong.any(axis=0))
    if wrong.sum() < MIN_PIXELS or min(np.ptp(rows), np.ptp(columns)) + 1 < MIN_SIDE:
        return None
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return left * GRID // width, top * GRID // height, -(-right * GRID // width), -(-bottom * GRID // height)


def relabelled(
    record: Record, edited: Image.Image, places: Sequence[tuple[Box, str]], rng: np.random.Generator
) -> Record:
    """The record with an edited picture, and with what is still wrong in it.

    A fault that looks like the one before keeps its reason; another one is called warped.

    Args:
        record: drawn, without misalignments, with a clean render and a think text; its artifacts are what was to be
            mended, or it has none.
        edited: the picture after the attempt, RGB.
        places: where it was edited, on the grid, and the kind of object there; of the artifacts, in their order.
        rng: draws the wording.
    """
    assert record.clean_image is not None
    assert record.defects.reasoning is not None
    asked, spotted, _ = _steps(record.defects.reasoning)
    seen, *faults = spotted.split("; ")
    defects, names = [], []
    for index, (place, kind) in enumerate(places):
        box = fault(edited, record.clean_image, place)
        old = record.defects[index] if record.defects else None
        if old is not None and _closer(edited, record, place):
            defects.append(replace(old, box=box or old.box))
            names.append(faults[index])
            continue
        if box is None:
            continue
        importance = 70 if old is None else old.importance
        reason = str(rng.choice(REASONS["warp"])).format(kind=kind, part="middle")
        defects.append(Defect(box, DefectType.ARTIFACT, reason, importance, subtype=SUBTYPE["warp"]))
        names.append(f"artifact {kind} middle warped")
    steps = (asked, f"{seen}; {'; '.join(names) or 'no defect'}", "; ".join(map(located, defects)) or "nowhere")
    think = "".join(heading + step for heading, step in zip(HEADINGS, steps, strict=True)) + "."
    return replace(
        record,
        image=edited,
        defects=DefectSet(tuple(defects), caption=record.caption, reasoning=think),
        kinds=(),
        id=f"{record.id}-mended",
        provenance={**record.provenance, "mended": True},
    )


def object_at(record: Record, index: int) -> str:
    """The kind of object that the artifact of an index sits on, from the think text."""
    assert record.defects.reasoning is not None
    return _steps(record.defects.reasoning)[1].split("; ")[1 + index].split()[1]


def _steps(think: str) -> tuple[str, str, str]:
    first, rest = think.removeprefix(HEADINGS[0]).split(HEADINGS[1])
    second, third = rest.split(HEADINGS[2])
    return first, second, third.removesuffix(".")


def _closer(edited: Image.Image, record: Record, place: Box) -> bool:
    """Whether a place still looks more like it did before than like the clean render."""
    assert record.clean_image is not None
    width, height = edited.size
    x0, y0, x1, y1 = place
    part = (x0 * width // GRID, y0 * height // GRID, -(-x1 * width // GRID), -(-y1 * height // GRID))
    new, old, clean = (
        np.asarray(image.crop(part), dtype=np.float32) for image in (edited, record.image, record.clean_image)
    )
    return bool(np.abs(new - old).mean() < np.abs(new - clean).mean())
