"""The instruction that a detector is given with a picture, and how a caption gets into it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdg.boxes import BoxOrder

SLOT = "{caption}"
MAX_CAPTION = 4000
"""Characters of a caption that reach the model: ten times the longest that image generators read."""

_TASK = """\
You inspect a picture that an image generator made{from_caption}. Find everything that is wrong with it and say where \
it is, what kind of fault it is, why it is a fault and how much it matters.

Kinds of fault
{kinds}
A deliberate style (cartoon, grain, blur of the background) is not a fault. A picture may have no fault at all.

Write two blocks, in this order.

<think>
Step 1, understanding: {understanding}
Step 2, spotting: one bullet a fault, with its kind, the part it affects and the evidence that you see.
Step 3, locating: one line a fault: a landmark beside it, its place (image-left or image-right, top or bottom), what \
it touches, its size and its shape. Words only, no coordinates.
</think>
<answer>
[{"box_2d": [x0, y0, x1, y1], "label": {label}, "description": "...", "importance": N}]
</answer>

box_2d is the tight box of one fault: whole numbers from 0 to 1000, x from the left edge to the right edge of the \
picture, y from top to bottom, x0 < x1 and y0 < y1. Two faults in one place are two boxes; many small marks of one \
fault may share a box.
description names the part and the visible evidence in 18 to 45 words, without coordinates and without vague words.
importance is a whole number: 90-100 the picture is spoilt at first glance, 70-89 it is hard to overlook, 40-69 it \
shows on an ordinary look, 15-39 it takes a close look, 1-14 it hardly matters. Weigh first how much it stands out, \
then how much meaning it damages, then how much area it covers, then whether it sits on the main subject or in the \
background.
Without a fault the list is empty: <answer>[]</answer>"""

_ARTIFACT = (
    "- artifact: a visual flaw, whatever was asked for: distorted anatomy, a duplicated or missing part, warped "
    "geometry, melted or smeared texture, an unnatural edge, garbled text, light that does not fit."
)
_MISALIGNMENT = (
    "- misalignment: the picture contradicts the caption: an object missing or too many, a wrong colour, count, "
    "material or size, a wrong relation, action or style."
)


_ZERO_SHOT = """\
You are an inspector of pictures that text-to-image models made. Look at {the_picture} and report every defect in it \
as a tuple: where it is (box), what it is (label), why it is a defect (description), how much it matters (importance).

WHAT COUNTS
{kinds}
Do not report: a style that was plainly meant (cartoon, sketch, film grain, a blurred background), matters of taste, \
details too small to see, {not_asked}or anything that you merely suspect. Many generated pictures have no defect at \
all: for those the right answer is the empty list, and each invented defect is an error.

WHERE: the box
Four whole numbers on a grid of 0 to 1000 that spans the picture whatever its size in pixels: {grid} Pixel \
coordinates and fractions are wrong.
- Draw the box tight round the visible fault, not round the whole object or person that it belongs to.
- One box for each separate fault. Two different faults in one place are two boxes. Many small marks of one and the \
same fault that lie together share one box.{missing_box}

HOW MUCH: the importance, a whole number from 1 to 100
- 90-100, critical: it ruins the picture; everyone sees it at once.
- 70-89, major: hard to overlook, and it damages the main subject or the meaning.
- 40-69, moderate: noticed on an ordinary look, yet the picture still works.
- 15-39, minor: found only on a close look.
- 1-14, negligible: hardly matters to anyone.
Decide by, in this order: how much it stands out; how much meaning it damages; how much of the picture it covers; \
whether it is on the main subject or in the background.

HOW TO ANSWER
First think inside <think> and </think>, in three steps of plain words without any coordinates:
Step 1, understanding: {understanding}
Step 2, spotting: go over the picture part by part, with an eye for hands, faces, limbs, text, edges, repeated and \
merged things, shadows. One line a defect: its label, the part, the evidence that you see.
Step 3, locating: one line a defect: what it is beside, image-left or image-right, top or bottom, its size, its shape.
Then give the list inside <answer> and </answer>: JSON, nothing else, one object a defect with exactly these fields:
{"box_2d": {order}, "label": {label}, "description": "...", "importance": N}
The description takes 18 to 45 words: it names the part and what is visibly wrong with it, with no coordinates and no \
vague words such as "strange" or "unnatural" left unexplained.

Example of the form (of another picture):
<think>
Step 1: a woman waves in front of a market stall.
Step 2: artifact: her raised right hand has six fingers, two of them fused.
Step 3: beside her face, image-right, above the middle; small, roughly square.
</think>
<answer>
[{"box_2d": {example_box}, "label": "artifact", "description": "The right hand of the woman has six fingers: an extra \
thin finger grows out beside the little finger, and two of the others are fused at their tips.", "importance": 78}]
</answer>
A picture without a defect ends in <answer>[]</answer>"""

_ARTIFACTS_IN_FULL = (
    '- "artifact": a visual flaw, wrong whatever the picture was meant to show. Anatomy: wrong number or shape of '
    "fingers, limbs, eyes, teeth; joints that bend the wrong way. Parts that are doubled, missing, cut off or grown "
    "together. Geometry: things that are warped, float, pass through each other or stand in impossible perspective. "
    "Texture: melted, smeared, plastic, noisy or repeated patches. Edges: torn, jagged or haloed outlines. Text: "
    "letters that are garbled or no letters. Light: shadows or reflections that do not fit."
)
_MISALIGNMENTS_IN_FULL = (
    '- "misalignment": the picture contradicts the caption. Something that it asks for is missing; there is more of '
    "something than it asks for; a colour, count, material, size or other attribute is wrong; a spatial relation is "
    "wrong; an action is wrong; the style is wrong. What the caption leaves open is free and no defect."
)


def _zero_shot(order: BoxOrder) -> Prompt:
    x_first = order == "xyxy"
    corners = "x0, y0, x1, y1" if x_first else "y0, x0, y1, x1"
    parts = {
        "grid": f"[{corners}], where x runs from the left edge (0) to the right edge (1000) and y from the top edge "
        f"(0) to the bottom edge (1000), x0 < x1 and y0 < y1. The order is {corners}, {'x' if x_first else 'y'} first.",
        "order": f"[{corners}]",
        "example_box": "[612, 540, 701, 655]" if x_first else "[540, 612, 655, 701]",
    }
    with_caption = _fill(
        _ZERO_SHOT,
        the_picture="the picture and at the caption that it was made from",
        kinds=f"{_ARTIFACTS_IN_FULL}\n{_MISALIGNMENTS_IN_FULL}",
        not_asked="things that the caption does not mention, ",
        missing_box="\n- For something that is missing, box the place where it would be, or what stands there instead.",
        understanding="what the caption asks for: objects, attributes, counts, relations, actions, style.",
        label='"artifact" or "misalignment"',
        **parts,
    )
    without = _fill(
        _ZERO_SHOT,
        the_picture="the picture (the caption that it was made from is not known)",
        kinds=_ARTIFACTS_IN_FULL,
        not_asked="",
        missing_box="",
        understanding="what the picture shows: objects, parts, style.",
        label='"artifact"',
        **parts,
    )
    return Prompt(f"{with_caption}\n\nCaption: {SLOT}", without, order)


def _fill(text: str, **parts: str) -> str:
    for name, value in parts.items():
        text = text.replace("{" + name + "}", value)
    return text


@dataclass(frozen=True)
class Prompt:
    """An instruction with a slot for the caption, and its variant for pictures without one.

    Args:
        template: the instruction; ``{caption}`` is where the caption goes. Other braces stay as they are.
        template_without_caption: the instruction for a picture whose caption is unknown; it asks for artifacts only.
        box_order: the order of coordinates that the instruction asks for.

    Raises:
        ValueError: where ``template`` has no slot, or ``template_without_caption`` has one.

    Example:
        >>> Prompt("What is wrong, given {caption}?", "What is wrong?").format("a {red} car")
        'What is wrong, given a {red} car?'
    """

    template: str
    template_without_caption: str
    box_order: BoxOrder = "xyxy"

    def __post_init__(self) -> None:
        if SLOT not in self.template:
            raise ValueError(f"template={self.template!r:.80} has no {SLOT}: the model would not see the caption")
        if SLOT in self.template_without_caption:
            raise ValueError(f"template_without_caption={self.template_without_caption!r:.80} must not hold {SLOT}")

    def format(self, caption: str | None) -> str:
        """The instruction for one picture.

        Args:
            caption: what the picture was made from; None or blank gives the variant without a caption. More than
                :data:`MAX_CAPTION` characters are cut with a warning.
        """
        caption = (caption or "").strip()
        if not caption:
            return self.template_without_caption
        if len(caption) > MAX_CAPTION:
            warnings.warn(
                f"caption of {len(caption)} characters: only the first {MAX_CAPTION} are given to the model",
                stacklevel=2,
            )
            caption = caption[:MAX_CAPTION]
        return self.template.replace(SLOT, caption)


DEFAULT = Prompt(
    template=_fill(
        _TASK,
        from_caption=" from a caption",
        kinds=f"{_ARTIFACT}\n{_MISALIGNMENT}",
        understanding="what the caption asks for: objects, attributes, counts, relations, style.",
        label='"artifact" or "misalignment"',
    )
    + f"\n\nCaption: {SLOT}",
    template_without_caption=_fill(
        _TASK,
        from_caption="; the caption is not known",
        kinds=_ARTIFACT,
        understanding="what the picture shows: objects, parts, style.",
        label='"artifact"',
    ),
)

PROMPTS: Mapping[str, Prompt] = {
    "default": DEFAULT,
    "zero-shot": _zero_shot("xyxy"),
    "zero-shot-yxyx": _zero_shot("yxyx"),
}
"""The instructions that ``prompt=`` knows by name. The zero-shot ones explain the task in full (§3.1, App. A) to models
that were not trained for it; one of them asks for boxes with y first, as Gemini writes them."""


def as_prompt(prompt: str | Prompt | Mapping[str, Any] | None) -> Prompt:
    """The prompt that ``prompt`` names.

    Args:
        prompt: a :class:`Prompt`, a name in :data:`PROMPTS`, a template text with ``{caption}`` (pictures without a
            caption then get the default variant), or a mapping with ``prompt`` and ``prompt_without_caption``, as a
            checkpoint's ``sdg_config.json`` holds them. None is the default.

    Raises:
        ValueError: for a text that is neither a name nor a template.
    """
    if prompt is None:
        return DEFAULT
    if isinstance(prompt, Prompt):
        return prompt
    if isinstance(prompt, Mapping):
        without = prompt.get("prompt_without_caption") or DEFAULT.template_without_caption
        return Prompt(prompt["prompt"], without) if prompt.get("prompt") else DEFAULT
    if prompt in PROMPTS:
        return PROMPTS[prompt]
    if SLOT not in prompt:
        raise ValueError(
            f"prompt={prompt!r:.80} is neither a name ({', '.join(PROMPTS)}) nor a template: a template holds {SLOT}"
        )
    return Prompt(prompt, DEFAULT.template_without_caption)
