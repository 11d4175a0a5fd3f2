"""The instruction that a detector is given with a picture, and how a caption gets into it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def _fill(**parts: str) -> str:
    text = _TASK
    for name, value in parts.items():
        text = text.replace("{" + name + "}", value)
    return text


@dataclass(frozen=True)
class Prompt:
    """An instruction with a slot for the caption, and its variant for pictures without one.

    Args:
        template: the instruction; ``{caption}`` is where the caption goes. Other braces stay as they are.
        template_without_caption: the instruction for a picture whose caption is unknown; it asks for artifacts only.

    Raises:
        ValueError: where ``template`` has no slot, or ``template_without_caption`` has one.

    Example:
        >>> Prompt("What is wrong, given {caption}?", "What is wrong?").format("a {red} car")
        'What is wrong, given a {red} car?'
    """

    template: str
    template_without_caption: str

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
        from_caption=" from a caption",
        kinds=f"{_ARTIFACT}\n{_MISALIGNMENT}",
        understanding="what the caption asks for: objects, attributes, counts, relations, style.",
        label='"artifact" or "misalignment"',
    )
    + f"\n\nCaption: {SLOT}",
    template_without_caption=_fill(
        from_caption="; the caption is not known",
        kinds=_ARTIFACT,
        understanding="what the picture shows: objects, parts, style.",
        label='"artifact"',
    ),
)

PROMPTS: Mapping[str, Prompt] = {"default": DEFAULT}
"""The instructions that ``prompt=`` knows by name."""


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
