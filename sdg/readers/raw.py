"""What a layout yields: a record as its file states it, boxes unconverted, nothing checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sdg.boxes import BoxOrder
from sdg.records import ImageFile

Space = Literal["grid", "pixels", "fractions"]
"""What coordinates count: 0..1000 of the picture's sides, pixels, or 0..1 of the sides."""


@dataclass(frozen=True)
class RawDefect:
    """One defect as the file states it.

    Args:
        box: hopefully four numbers, in the order and space of its record.
        label: hopefully ``artifact`` or ``misalignment``; a layout with other categories maps the known ones.
        reason: None where the file gives none.
        importance: None where the file gives none.
        subtype: one of the library's, or None.
        kind: the file's own name of the category, or None.
    """

    box: Any
    label: Any
    reason: Any = None
    importance: Any = None
    subtype: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class RawRecord:
    """One picture as the file states it.

    Args:
        where: file and line (or the like), for errors.
        image: the picture, unopened; None where the file names none.
        defects: None where the field is missing, which is not the same as an empty list.
        id: hopefully unique.
        caption: the prompt, or empty.
        order: the order of the boxes, where the layout declares it; None leaves it to the user.
        space: what coordinates count.
        size: width and height of the picture that boxes in pixels refer to; None asks the picture.
        stretched: whether ``size`` may differ in aspect from the picture (a square heatmap over it).
        again: the same boxes stated a second time, as xyxy on the grid, where the file does that.
        generator: name of the model that made the picture.
        split: ``train``, ``validation`` or ``test``.
        reasoning: think text.
        unseen: why there are no defects that would make the picture a clean one; None for an annotated picture.
        extra: further fields of a record, and ``provenance``.
    """

    where: str
    image: ImageFile | None
    defects: Sequence[RawDefect] | None
    id: str
    caption: str = ""
    order: BoxOrder | None = None
    space: Space = "grid"
    size: tuple[int, int] | None = None
    stretched: bool = False
    again: Sequence[Sequence[float]] = ()
    generator: str | None = None
    split: str | None = None
    reasoning: str | None = None
    unseen: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Broken:
    """A place of the file that holds no record at all: where, and what is wrong with it."""

    where: str
    why: str


UNUSABLE = (ValueError, TypeError, AttributeError, KeyError, OSError)
"""What goes wrong in a record whose fields are of other kinds than they should be; it is :class:`Broken` then."""

Raws = Callable[[bool], Iterator[RawRecord | Broken]]
"""Starts the file from its beginning. ``True`` asks for annotations alone: the picture may be left out."""


@dataclass(frozen=True)
class Layout:
    """A released layout.

    Args:
        name: what ``layout=`` calls it.
        title: what people call it.
        looks_like: what it is recognised by, as a sentence for errors.
        recognise: whether a path holds it; looks at names and first lines only.
        open: path, split and options to :data:`Raws`. Raises ValueError for options that it cannot use.
        order: the order of box coordinates that the layout declares; None where files of it differ.
        gives_reason: whether every defect should have a reason.
        gives_importance: whether every defect should have an importance.
        cheap: whether a first pass over the annotations alone costs little, so that the order is checked beforehand.
    """

    name: str
    title: str
    looks_like: str
    recognise: Callable[[Path], bool]
    open: Callable[..., Raws]
    order: BoxOrder | None = "xyxy"
    gives_reason: bool = False
    gives_importance: bool = False
    cheap: bool = True
