"""What is wrong with a picture: its things against the caption's plan, and against how such things are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sdg.boxes import GRID
from sdg.defects import Defect, DefectType
from sdg.microworld.captions import NUMBERS
from sdg.microworld.kinds import plural
from sdg.microworld.oracle.recognising import Fit, Pixels, Seen, paint_map, unfit
from sdg.microworld.oracle.seeing import SIZE, View
from sdg.microworld.oracle.templates import templates
from sdg.microworld.scene import Plan
from sdg.microworld.wording import SUBTYPE, Box, common_box, importance

# All thresholds were set on validation scenes.
FAULT_GAIN = 0.06
"""A fault is believed where its template fits this much better than the faultless one, in misfit over the area,"""
FAULT_PIXELS = 14.0
"""and by this many pixels."""
IRREGULAR = 0.42
"""Cost of the best fit from which a thing is irregular: warped, smeared, noisy or blurred."""
PATCH, PATCH_PIXELS, PATCH_SHARE = 0.5, 40, 0.035
"""Or where patches inside its parts misfit by so much, over so many pixels and so much of its area."""
UNKNOWN = 0.55
"""Cost from which a thing is no object at all."""
SCRAWL = 0.04
"""How much better a scrawl must fit a sign's text than the best word."""


@dataclass(frozen=True)
class Thing:
    """A recognised object; ``kind`` and ``colour`` are empty where it matches none well enough."""

    kind: str
    colour: str
    box: Box
    area: int


def name(seen: Seen) -> Thing:
    """What a seen thing is taken for."""
    best = _best(seen)
    known = best.cost < UNKNOWN
    kind, colour = (best.template.kind, best.colour) if known else ("", "")
    # A fit ends where the object does; the mask may lack a foot in the shadow.
    return Thing(kind, colour, to_grid(best.box if known else seen.box), seen.area)


def to_grid(box: Pixels) -> Box:
    """Pixels to the grid."""
    x0, y0, x1, y1 = (round(c * GRID / SIZE) for c in box)
    return x0, y0, x1, y1


def _gain(seen: Seen) -> float:
    return 0.0 if seen.flawed is None else seen.sound.cost - seen.flawed.cost


def _faulty(seen: Seen) -> bool:
    return _gain(seen) > FAULT_GAIN and _gain(seen) * seen.area > FAULT_PIXELS


def _best(seen: Seen) -> Fit:
    return seen.flawed if seen.flawed is not None and _faulty(seen) else seen.sound


def artifacts(view: View, things: Sequence[Seen]) -> tuple[list[Defect], list[str]]:
    """Faults of the things, from left to right, and their kinds.

    Kinds are the world's own (``missing_part``, ``extra_part``, ``jagged_edge``, ``garbled_text``) and ``irregular``: a
    thing, or a patch of it, that no drawing of a known object explains.
    """
    largest = max((s.area for s in things), default=1)
    defects, kinds = [], []
    for seen in things:
        best = _best(seen)
        kind, box, reason = "", seen.box, ""
        patch = _patch(view, seen, best)
        fault = best.template.fault
        if best.cost >= UNKNOWN:
            kind, reason = "irregular", "this shape matches no object of the world"
        elif best.cost >= IRREGULAR:
            kind, reason = "irregular", f"the {best.template.kind} is out of shape or smeared"
        elif fault is not None:
            kind, box = fault.kind, _difference(seen, best)
            reason = f"{fault.kind.replace('_', ' ')}: {fault.part} of the {best.template.kind}"
        elif best.template.kind == "sign" and seen.text > SCRAWL:
            kind, reason = "garbled_text", "the letters on the sign spell no word"
            x, top, height = best.x, best.base - best.height, best.height
            box = _clip(x - 0.64 * height, top + 0.18 * height, x + 0.64 * height, top + 0.46 * height)
        elif patch is not None:
            kind, box, reason = "irregular", patch, f"a patch of the {best.template.kind} is irregular"
        if kind:
            weighed = "warp" if kind == "irregular" else kind
            grid = to_grid(box)
            weight = importance(weighed, grid, seen.area / largest)
            defects.append(Defect(grid, DefectType.ARTIFACT, reason, weight, subtype=SUBTYPE[weighed]))
            kinds.append(kind)
    return defects, kinds


def _patch(view: View, seen: Seen, best: Fit) -> Pixels | None:
    """Box of the patches of a thing that misfit, or None where they are few."""
    wrong = ndimage.binary_opening(unfit(view, best, seen.mask) > PATCH, np.ones((2, 2), bool))
    if wrong.sum() < max(PATCH_PIXELS, PATCH_SHARE * seen.area):
        return None
    rows, columns = np.nonzero(wrong)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _difference(seen: Seen, best: Fit) -> Pixels:
    """Box of what a fault adds or takes away."""
    twin = next(t for t in templates() if t.kind == best.template.kind and t.fault is None)
    changed = paint_map(best) != paint_map(Fit(twin, best.colour, best.x, best.base, best.height, 0))
    rows, columns = np.nonzero(ndimage.binary_opening(changed, np.ones((2, 2), bool)))
    if not rows.size:
        return seen.box
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _clip(x0: float, y0: float, x1: float, y1: float) -> Pixels:
    a, b, c, d = (int(v) for v in np.clip(np.round((x0, y0, x1, y1)), 0, SIZE))
    return min(a, SIZE - 1), min(b, SIZE - 1), max(c, a + 1), max(d, b + 1)


def misalignments(plan: Plan, things: Sequence[Thing]) -> tuple[list[Defect], list[str]]:
    """Departures from the plan in the caption's order, an extra object last, and their kinds (the world's own).

    Things that match no kind stand in for a missing object of the plan: they are artifacts, not a second defect.
    """
    largest = max((t.area for t in things), default=1)
    members: list[list[Thing]] = [[] for _ in plan.groups]
    free = [t for t in things if t.kind]
    blobs = [t for t in things if not t.kind]
    found: list[tuple[int, str, list[Thing], str]] = []

    def take(index: int, kind: str, colour: str) -> Thing | None:
        for thing in free:
            if (not kind or thing.kind == kind) and (not colour or thing.colour == colour):
                free.remove(thing)
                members[index].append(thing)
                return thing
        return None

    for index, group in enumerate(plan.groups):
        while len(members[index]) < group.count and take(index, group.kind, group.colour):
            pass
    for index, group in enumerate(plan.groups):
        while len(members[index]) < group.count and (thing := take(index, group.kind, "")):
            reason = f"the {group.kind} is {thing.colour} but the caption asks for {group.colour}"
            found.append((index, "wrong_colour", [thing], reason))
    for index, group in enumerate(plan.groups):
        while group.count == 1 and not members[index] and (thing := take(index, "", group.colour)):
            reason = f"a {thing.kind} stands where the caption asks for a {group.kind}"
            found.append((index, "wrong_object", [thing], reason))
    for index, group in enumerate(plan.groups):
        surplus = [t for t in free if group.count > 1 and (t.kind, t.colour) == (group.kind, group.colour)]
        for thing in surplus:
            free.remove(thing)
            members[index].append(thing)
        lacking = group.count - len(members[index])
        stand_ins = blobs[: max(0, lacking)]
        del blobs[: len(stand_ins)]
        lacking -= len(stand_ins)
        seen = members[index] + stand_ins
        if lacking and group.count > 1 and seen:
            shown = NUMBERS[len(seen)] if len(seen) < len(NUMBERS) else str(len(seen))
            reason = f"the caption says {NUMBERS[group.count]} {plural(group.kind)} and the picture shows {shown}"
            found.append((index, "wrong_count", seen, reason))
        elif lacking > 0:
            anchor = members[0] if index and members[0] else list(things)
            found.append((index, "missing_object", anchor, f"no {group.colour} {group.kind} can be seen"))
    if plan.form in ("left", "right") and members[0] and members[1]:
        first, second = (np.mean([t.box[0] + t.box[2] for t in members[i]]) for i in (0, 1))
        if (first < second) != (plan.form == "left"):
            reason = f"the {plan.groups[0].kind} should be on the {plan.form} of the {plan.groups[1].kind}"
            found.append((0, "wrong_relation", members[0] + members[1], reason))
    for thing in free:
        found.append((len(plan.groups), "extra_object", [thing], f"the caption does not ask for this {thing.kind}"))
    defects = []
    for _, kind, targets, reason in sorted(found, key=lambda f: f[0]):
        box = common_box([t.box for t in targets]) if targets else (0, 0, GRID, GRID)
        share = sum(t.area for t in targets) / largest if targets else 1.0
        weight = importance(kind, box, share)
        defects.append(Defect(box, DefectType.MISALIGNMENT, reason, weight, subtype=SUBTYPE[kind]))
    return defects, [f[1] for f in sorted(found, key=lambda f: f[0])]
