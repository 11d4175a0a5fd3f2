"""What an editor is: one picture and what is wrong with it in, candidates for a repaired one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from sdg.defects import DefectSet

ASPECT_TOLERANCE = 0.05
"""An edited picture of another size is scaled back, unless its ratio of sides differs by more than this share."""


class EditError(RuntimeError):
    """An editor gave no usable picture; the message says why, in a sentence."""


@dataclass(frozen=True)
class Task:
    """What an editor is asked for.

    Args:
        image: the picture, RGB.
        caption: what it should show; may be empty.
        defects: what is to be repaired, the most important first; empty where the feedback names nothing ("fixed").
        mask: mode L, of the picture's size; 255 where pixels may change. None: all of them may.
        instruction: what a model that reads instructions is told, in full sentences.
        prompt: what a model that reads descriptions is told: the caption, and with text feedback how the picture
            misses it.
        avoid: what such a model is told to avoid: with text feedback the flaws, which as a prompt it would draw.
        overlay: the picture with the defects' boxes drawn, of the picture's size; None where boxes are not shown.
    """

    image: Image.Image
    caption: str
    defects: DefectSet
    mask: Image.Image | None
    instruction: str
    prompt: str
    avoid: str = ""
    overlay: Image.Image | None = None


class Editor(Protocol):
    """Where repaired pictures come from. Any object with these two attributes and this call is one.

    A candidate that could not be made is an :class:`EditError` in its place; one raised means that none could.
    """

    @property
    def name(self) -> str:
        """How results name it."""
        ...

    @property
    def local(self) -> bool:
        """Whether it leaves pixels outside the mask as they are; otherwise it draws the whole picture anew."""
        ...

    def __call__(self, task: Task, seeds: Sequence[int]) -> list[Image.Image | EditError]:
        """A candidate for each seed, in order.

        Raises:
            EditError: where the editor as a whole failed.
        """
        ...


def usable(edited: Image.Image | None, task: Task) -> Image.Image:
    """An editor's picture in the mode and size of the task's.

    Args:
        edited: what came back.
        task: what was asked for.

    Raises:
        EditError: for nothing, for a picture of another shape, and for one without any content, such as the black one
            that a safety filter puts in place of a picture.
    """
    if edited is None:
        raise EditError("the editor returned no picture")
    edited = edited.convert("RGB")
    (width, height), (w, h) = edited.size, task.image.size
    if (width, height) != (w, h):
        if abs((width * h) / (height * w) - 1) > ASPECT_TOLERANCE:
            raise EditError(f"the editor returned {width} x {height} pixels for a picture of {w} x {h}")
        edited = edited.resize((w, h), Image.Resampling.LANCZOS)
    if np.asarray(edited).max() == 0 and np.asarray(task.image).max() > 0:
        raise EditError("the editor returned a black picture, as safety filters do")
    return edited
