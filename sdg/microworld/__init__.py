"""The microworld: small drawn scenes with captions, and every defect in them known exactly.

A wind tunnel for the whole method: pictures, captions and defects come from one seed, so a detector can be trained, an
evaluation checked and an alignment judged without a data set and without a learned judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image

from sdg.boxes import GRID
from sdg.defects import Defect, DefectSet, DefectType
from sdg.microworld.artifacts import ARTIFACTS, Artifact, add_artifacts
from sdg.microworld.captions import caption
from sdg.microworld.misalignments import MISALIGNMENTS, Misalignment, misalign
from sdg.microworld.render import REFERENCE_SIZE, Drawing
from sdg.microworld.scene import SPLITS, Plan, Scene, arrange, place, sample_backdrop, sample_plan, scene_class
from sdg.microworld.wording import (
    HEADINGS,
    SUBTYPE,
    VOCABULARY,
    Box,
    artifact_reason,
    common_box,
    importance,
    misalignment_reason,
    think,
)
from sdg.records import Record

__all__ = ["ARTIFACTS", "HEADINGS", "MISALIGNMENTS", "VOCABULARY", "generate"]

Split = Literal["train", "validation", "test"]

COMPOSITION = {"clean": 0.25, "artifact": 0.30, "misalignment": 0.20, "both": 0.25}
"""Shares of pictures that are clean, hold artifacts only, misalignments only, or both."""


def generate(
    n: int,
    seed: int,
    split: Split = "train",
    *,
    size: int = REFERENCE_SIZE,
    start: int = 0,
    uncaptioned: float = 0.0,
    clean: bool = False,
) -> Iterator[Record]:
    """Draw records ``start`` to ``start + n`` of a seed; each depends on its own number alone.

    Args:
        n: how many.
        seed: 0 or more; same arguments, same bytes.
        split: ``train``, ``validation`` or ``test``; splits share no caption pattern and no scene.
        size: side of the pictures in pixels, at least 64.
        start: number of the first record, so that parts of one data set can be drawn apart.
        uncaptioned: share of records with an empty caption, and so without misalignments.
        clean: draw no defects at all, only what the captions ask for.

    Yields:
        Records with image, clean_image (the same scene without artifacts), caption, defects, kinds, objects.

    Raises:
        ValueError: for an unknown split, a negative seed, a size below 64.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is none of {', '.join(SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed={seed!r} is negative")
    if size < 64:
        raise ValueError(f"size={size!r} is below 64 pixels, where defects can no longer be seen")
    for index in range(start, start + n):
        yield _record(index, seed, split, size, uncaptioned, clean)


def _record(index: int, seed: int, split: Split, size: int, uncaptioned: float, clean_only: bool) -> Record:
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    plan, backdrop = _sample(split, rng)
    text = caption(plan, split, rng)
    if rng.random() < uncaptioned:
        text = ""
    mix = str(rng.choice(list(COMPOSITION), p=list(COMPOSITION.values())))
    mix = "clean" if clean_only else mix
    n_misalignments = 1 + int(rng.random() < 0.25) if mix in ("misalignment", "both") and text else 0
    n_artifacts = 1 + int(rng.random() < 0.35) if mix in ("artifact", "both") else 0
    row, misalignments = misalign(plan, arrange(plan, rng), n_misalignments, rng)
    scene, drawing, clean, artifacts = add_artifacts(place(backdrop, row, rng), n_artifacts, size, rng)
    boxes, areas = _extents(drawing, size)
    defects, kinds = _defects(scene, plan, boxes, areas, misalignments, artifacts, size, rng)
    things = sorted(scene.things, key=lambda t: t.x)
    reasoning = think(plan if text else None, things, boxes, misalignments, artifacts, defects)
    return Record(
        image=_picture(drawing.pixels),
        clean_image=_picture(clean),
        caption=text,
        defects=DefectSet(tuple(defects), caption=text, reasoning=reasoning),
        id=f"microworld-{split}-{seed}-{index}",
        generator="microworld",
        split=split,
        kinds=tuple(kinds),
        objects=tuple({"kind": t.kind, "colour": t.colour, "box": list(boxes[t.uid])} for t in scene.things),
        provenance={"world": "microworld", "seed": seed, "index": index, "size": size},
    )


def _sample(split: Split, rng: np.random.Generator) -> tuple[Plan, Scene]:
    """A plan and a backdrop of the split's own scene classes."""
    while True:
        plan, backdrop = sample_plan(rng), sample_backdrop(rng)
        if scene_class(plan, backdrop) in SPLITS[split]:
            return plan, backdrop


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(pixels).astype(np.uint8))


def _on_grid(box: tuple[int, int, int, int], size: int) -> Box:
    """Pixel corners to the grid, outwards, so that no changed pixel is left out."""
    x0, y0, x1, y1 = box
    return x0 * GRID // size, y0 * GRID // size, -(-x1 * GRID // size), -(-y1 * GRID // size)


def _extents(drawing: Drawing, size: int) -> tuple[dict[int, Box], dict[int, int]]:
    """Box on the grid and visible area in pixels of each thing, by uid."""
    boxes, areas = {}, {}
    for uid, cover in drawing.covers.items():
        rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
        boxes[uid] = _on_grid((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1), size)
        areas[uid] = int(cover.sum())
    return boxes, areas


def _defects(
    scene: Scene,
    plan: Plan,
    boxes: dict[int, Box],
    areas: dict[int, int],
    misalignments: list[Misalignment],
    artifacts: list[Artifact],
    size: int,
    rng: np.random.Generator,
) -> tuple[list[Defect], list[str]]:
    """Misalignments in the caption's order, then artifacts from left to right; and their kinds."""
    things, largest = {t.uid: t for t in scene.things}, max(areas.values())
    defects = []
    for m in misalignments:
        box = common_box([boxes[uid] for uid in m.targets])
        weight = importance(m.kind, box, sum(areas[uid] for uid in m.targets) / largest)
        reason = misalignment_reason(m, plan, rng)
        defects.append(Defect(box, DefectType.MISALIGNMENT, reason, weight, subtype=SUBTYPE[m.kind]))
    for a in artifacts:
        box = _on_grid(a.box, size)
        weight = importance(a.kind, box, areas[a.uid] / largest)
        reason = artifact_reason(a, things[a.uid], rng)
        defects.append(Defect(box, DefectType.ARTIFACT, reason, weight, subtype=SUBTYPE[a.kind]))
    return defects, [m.kind for m in misalignments] + [a.kind for a in artifacts]
