"""What is said of a picture: the reason of each defect, its importance, and the think text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sdg.boxes import GRID
from sdg.defects import Defect
from sdg.microworld.artifacts import Artifact
from sdg.microworld.captions import NUMBERS, noun_phrase, phrase, pieces
from sdg.microworld.kinds import COLOURS, KINDS, plural
from sdg.microworld.misalignments import Misalignment
from sdg.microworld.scene import Plan, Thing

Box = tuple[int, int, int, int]

REASONS: dict[str, tuple[str, ...]] = {
    "wrong_colour": (
        "the {kind} is {seen} but the caption asks for {asked}",
        "the caption wants {asked_phrase} yet this {kind} is {seen}",
        "this {kind} came out {seen} where the caption says {asked}",
    ),
    "wrong_object": (
        "a {seen} stands where the caption asks for a {asked}",
        "the caption asks for a {asked} but a {seen} is shown",
        "this {seen} takes the place of the {asked} in the caption",
    ),
    "extra_object": (
        "a {seen} is here that the caption never mentions",
        "the caption does not ask for this {seen} at all",
        "this {seen} was added without a word in the caption",
    ),
    "missing_object": (
        "the caption puts a {asked} with the {seen} but none is shown",
        "no {asked} can be seen near this {seen} against the caption",
        "the {asked} that belongs with the {seen} is missing",
    ),
    "wrong_count": (
        "there should be {asked} {kinds} here but the picture has {seen}",
        "the caption says {asked} {kinds} and the picture shows {seen}",
        "the number of {kinds} is {seen} where {asked} were asked for",
    ),
    "wrong_relation": (
        "the {first} should be on the {asked} of the {second}",
        "the {first} and the {second} have swapped sides against the caption",
        "the caption puts the {first} to the {asked} of the {second}",
    ),
    "warp": (
        "the {kind} is bent in waves and out of shape",
        "wavy lines distort the middle of the {kind} badly",
        "the outline of the {kind} ripples as if under water",
    ),
    "smear": (
        "the colour of the {kind} runs down like melted wax",
        "melted streaks run down the surface of the {kind}",
        "the lower part of the {kind} is smeared into streaks",
    ),
    "jagged_edge": (
        "the {part} of the {kind} is torn into jagged teeth",
        "a jagged break cuts off the {part} of the {kind}",
        "the {kind} ends in saw teeth along its {part}",
    ),
    "extra_part": (
        "a {part} grows on the {kind} where none belongs",
        "the {kind} has a {part} that should not be there",
        "an impossible {part} sticks out of the {kind}",
    ),
    "missing_part": (
        "the {part} of the {kind} is missing here",
        "the {kind} has lost its {part} in this picture",
        "nothing is left where the {kind} needs its {part}",
    ),
    "garbled_text": (
        "the letters on the sign are scrawls that spell nothing",
        "the sign shows garbled marks instead of a readable word",
        "the writing on this sign is broken and unreadable",
    ),
    "wrong_shadow": (
        "the shadow of the {kind} falls towards the sun",
        "the {kind} throws its shadow on the side of the light",
        "the light comes from the side where the {kind} has its shadow",
    ),
}
"""Wordings of 6 to 14 words, by kind of defect."""

SEMANTIC: dict[str, float] = {
    "missing_object": 0.95,
    "wrong_object": 0.9,
    "extra_part": 0.8,
    "missing_part": 0.8,
    "wrong_colour": 0.75,
    "wrong_count": 0.7,
    "warp": 0.7,
    "wrong_relation": 0.65,
    "smear": 0.65,
    "extra_object": 0.6,
    "jagged_edge": 0.6,
    "garbled_text": 0.6,
    "wrong_shadow": 0.3,
}
"""Semantic impact of each kind of defect, 0..1."""

SUBTYPE: dict[str, str] = {
    "missing_object": "missing_object",
    "wrong_object": "missing_object",
    "extra_object": "extra_object",
    "wrong_colour": "wrong_attribute",
    "wrong_count": "wrong_attribute",
    "wrong_relation": "wrong_relation",
    "warp": "warped_geometry",
    "smear": "texture_fault",
    "jagged_edge": "unnatural_edge",
    "extra_part": "duplicated_or_missing_part",
    "missing_part": "duplicated_or_missing_part",
    "garbled_text": "garbled_text",
    "wrong_shadow": "inconsistent_lighting",
}

_FLAW = {
    "warp": "warped",
    "smear": "melted",
    "jagged_edge": "torn",
    "extra_part": "extra",
    "missing_part": "missing",
    "garbled_text": "garbled",
    "wrong_shadow": "wrong side",
}


def importance(kind: str, box: Box, prominence: float) -> int:
    """Importance 1..100 of a defect, by the rubric's criteria in order of priority.

    ``100 (0.35 prominence + 0.30 semantic + 0.20 area + 0.15 location)`` with prominence = visible area of the affected
    things over that of the picture's largest thing, semantic = :data:`SEMANTIC`, area = square root of the box's area
    over 600 grid units (at most 1), location = 1 at the picture's vertical middle line, 0 at its sides.
    """
    x0, y0, x1, y1 = box
    area = min(1.0, ((x1 - x0) * (y1 - y0)) ** 0.5 / 600)
    location = 1 - abs(x0 + x1 - GRID) / GRID
    score = 0.35 * min(1.0, prominence) + 0.30 * SEMANTIC[kind] + 0.20 * area + 0.15 * location
    return int(min(100, max(1, round(100 * score))))


def misalignment_reason(m: Misalignment, plan: Plan, rng: np.random.Generator) -> str:
    """Why a misalignment is one."""
    words = {"asked": m.asked, "seen": m.seen, "kind": "", "kinds": "", "asked_phrase": "", "first": "", "second": ""}
    if m.groups:
        group = plan.groups[m.groups[0]]
        words |= {"kind": group.kind, "kinds": plural(group.kind)}
    if m.kind == "wrong_colour":
        words["asked_phrase"] = noun_phrase(m.asked, words["kind"])
    elif m.kind == "wrong_count":
        words |= {"asked": NUMBERS[int(m.asked)], "seen": NUMBERS[len(m.targets)]}
    elif m.kind == "wrong_relation":
        first, second = (plan.groups[g] for g in m.groups)
        words |= {side: plural(g.kind) if g.count > 1 else g.kind for side, g in (("first", first), ("second", second))}
    return str(rng.choice(REASONS[m.kind])).format(**words)


def artifact_reason(artifact: Artifact, thing: Thing, rng: np.random.Generator) -> str:
    """Why an artifact is one."""
    return str(rng.choice(REASONS[artifact.kind])).format(kind=thing.kind, part=artifact.part)


def _ninth(box: Box) -> tuple[str, str]:
    column = ("left", "centre", "right")[min(2, (box[0] + box[2]) * 3 // (2 * GRID))]
    row = ("top", "middle", "bottom")[min(2, (box[1] + box[3]) * 3 // (2 * GRID))]
    return row, column


def _place(box: Box) -> str:
    return " ".join(_ninth(box))


def common_box(boxes: Sequence[Box]) -> Box:
    """The smallest box around all of them."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _counted(count: int, colour: str, kind: str) -> str:
    return f"{colour} {kind}" if count == 1 else f"{NUMBERS[count]} {colour} {plural(kind)}"


def _seen(things: Sequence[Thing], boxes: dict[int, Box]) -> str:
    where = _place(common_box([boxes[t.uid] for t in things]))
    return f"{_counted(len(things), things[0].colour, things[0].kind)} {where}"


def _misaligned(m: Misalignment, plan: Plan) -> str:
    kind = plan.groups[m.groups[0]].kind if m.groups else ""
    return (
        "misalignment "
        + {
            "wrong_colour": f"{kind} colour",
            "wrong_object": f"{m.seen} not {m.asked}",
            "extra_object": f"extra {m.seen}",
            "missing_object": f"no {m.asked}",
            "wrong_count": f"{kind} count",
            "wrong_relation": "wrong order",
        }[m.kind]
    )


def located(defect: Defect) -> str:
    """Where a defect lies and its shape, without coordinates."""
    row, column = _ninth(defect.box)
    width, height = defect.box[2] - defect.box[0], defect.box[3] - defect.box[1]
    side = (width * height) ** 0.5
    scale = "small" if side < 200 else "medium" if side < 400 else "large"
    shape = "wide" if width > 1.5 * height else "tall" if height > 1.5 * width else "square"
    return f"{row} image-{column} {scale} {shape}"


def think(
    plan: Plan | None,
    things: Sequence[Thing],
    boxes: dict[int, Box],
    misalignments: Sequence[Misalignment],
    artifacts: Sequence[Artifact],
    defects: Sequence[Defect],
) -> str:
    """The three steps: what the caption asks for, what is seen and what is wrong with it, and where.

    Args:
        plan: what the caption asks for, None without a caption.
        things: what the picture shows, from left to right.
        boxes: box of each thing on the grid, by uid.
        misalignments: in the order of ``defects``, first.
        artifacts: in the order of ``defects``, after the misalignments.
        defects: the defects in the order of the answer.
    """
    if plan is None:
        asked, rows = "no caption", [[t] for t in things]
    else:
        groups = range(len(plan.groups))
        asked = ", ".join(phrase(g) for g in plan.groups) + {"alone": "", "list": ""}.get(plan.form, f", {plan.form}")
        rows = [[t for t in things if t.group == g] for g in groups]
        rows += [[t] for t in things if t.group < 0]
    seen = [
        _seen(row, boxes) if row else f"no {plan.groups[index].kind}"  # type: ignore[union-attr]
        for index, row in enumerate(rows)
    ]
    by_uid = {t.uid: t for t in things}
    faults = [_misaligned(m, plan) for m in misalignments] if plan is not None else []
    faults += [f"artifact {by_uid[a.uid].kind} {a.part} {_FLAW[a.kind]}" for a in artifacts]
    where = [located(d) for d in defects]
    steps = (asked, f"{', '.join(seen)}; {'; '.join(faults) or 'no defect'}", "; ".join(where) or "nowhere")
    return "".join(heading + step for heading, step in zip(HEADINGS, steps, strict=True)) + "."


def _vocabulary() -> tuple[str, ...]:
    """Every word that a caption, a reason or a think text can hold."""
    texts = pieces()
    texts += [wording for wordings in REASONS.values() for wording in wordings] + list(NUMBERS) + list(COLOURS)
    texts += [f"{name} {plural(name)}" for name in KINDS] + list(_FLAW.values())
    for kind in KINDS.values():
        texts += [*kind.removable, *(part.name for part in kind.extras)]
    texts += ["Step : ; , . a an no caption count order wrong not extra misalignment artifact defect nowhere"]
    texts += ["top middle bottom left centre right image-left image-centre image-right small medium large"]
    texts += ["wide tall square beside text left edge right edge surface shadow"]
    words = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*|[^\w\s]")
    return tuple(sorted({word for text in texts for word in words.findall(re.sub(r"{\w+}", "", text))}))


VOCABULARY = _vocabulary()
HEADINGS = ("Step 1: ", ".\nStep 2: ", ".\nStep 3: ")
"""The fixed pieces of a think text."""
