"""What an editor is: one picture and what is wrong with it in, candidates for a repaired one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sdg.defects import DefectSet
from sdg.refine.regions import mixed

ASPECT_TOLERANCE = 0.05
"""An edited picture of another size is scaled back, unless its ratio of sides differs by more than this share."""


SECOND_PICTURE = (
    "There are two pictures. The second one is the first with a numbered frame around each fault: it only shows where "
    "they are. Edit the first picture, and draw no frames and no numbers."
)
RIGHT_HALF = (
    "The input shows one picture twice, side by side. The right half has a numbered frame around each fault: it only "
    "shows where they are. Give back the left half alone, edited, without frames and numbers."
)
"""What a model is told about the overlay, by how it gets to see it; an instruction need not say it."""


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

    An editor that has ``types``, ``max_spread``, ``min_gain`` or ``min_better`` sets the default of that option of
    :class:`~sdg.DefectRefiner`. One that knows a single world of pictures names it in ``made_for``.
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


def usable(edited: Any, task: Task) -> Image.Image:
    """An editor's picture in the mode and size of the task's.

    Args:
        edited: what came back.
        task: what was asked for.

    Raises:
        EditError: for nothing, for what is no picture or cannot be read, for a picture of another shape, and for the
            black one that a safety filter puts in place of a picture.
    """
    if edited is None:
        raise EditError("the editor returned no picture")
    if not isinstance(edited, Image.Image):
        raise EditError(f"the editor returned {type(edited).__name__} in place of a PIL picture")
    (width, height), (w, h) = edited.size, task.image.size
    if not width or not height:
        raise EditError("the editor returned a picture without pixels")
    try:
        edited = edited.convert("RGB")
    except Exception as error:  # a file that is read only now, and is not whole
        raise EditError(f"the editor's picture could not be read ({error})") from error
    if (width, height) != (w, h):
        if abs((width * h) / (height * w) - 1) > ASPECT_TOLERANCE:
            raise EditError(f"the editor returned {width} x {height} pixels for a picture of {w} x {h}")
        edited = edited.resize((w, h), Image.Resampling.LANCZOS)
    check_not_black(edited, task.image)
    return edited


def check_not_black(edited: Image.Image, image: Image.Image) -> None:
    """Refuse the black picture that a safety filter puts in place of one; ``image`` is what was to be edited.

    Raises:
        EditError: where all is black that was not.
    """
    if np.asarray(edited).max() == 0 and np.asarray(image).max() > 0:
        raise EditError("the editor returned a black picture, as safety filters do")


def paste(image: Image.Image, edited: Image.Image, mask: Image.Image) -> Image.Image:
    """The edited picture inside the mask, the picture outside it.

    Args:
        image: the picture, RGB.
        edited: of the same size, RGB.
        mask: mode L, of the same size. Where it is 0 the result is ``image`` bit by bit, where it is 255 it is
            ``edited``, and between them it is the mean that the mask weighs.

    Raises:
        ValueError: for sizes that differ, and for a mask of another mode.
    """
    if mask.mode != "L":
        raise ValueError(f"mask has mode {mask.mode!r}, not 'L' (0..255): convert it")
    if not image.size == edited.size == mask.size:
        raise ValueError(f"image, edited and mask differ in size: {image.size}, {edited.size}, {mask.size}")
    return mixed(image, edited, np.asarray(mask, dtype=np.float32) / 255)


def candidate(edited: Image.Image | None, task: Task, local: bool) -> Image.Image:
    """What an editor that draws whole pictures gives back for one of them.

    Args:
        edited: what it drew.
        task: what was asked for.
        local: keep only what lies in the mask.

    Raises:
        EditError: where the picture is not :func:`usable`.
    """
    edited = usable(edited, task)
    return paste(task.image, edited, task.mask) if local and task.mask is not None else edited
