"""An oracle that is no model: it measures a microworld picture against its caption by classical image analysis.

It knows how the world is drawn (its backdrops, paints, kinds and the faults that they can have) and has no learnt
weights. It judges what a generator made, before and after alignment, and is **never used in training**: neither
``sdg.training`` nor ``sdg.boxflow`` imports it, and a test holds that.

A picture goes through four rooms: :mod:`.seeing` fits the backdrop and how well each pixel fits each paint,
:mod:`.recognising` cuts out things and lays every kind, colour and fault over them, :mod:`.asking` reads the caption,
:mod:`.judging` names what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from sdg.defects import DefectSet, DefectType
from sdg.microworld.oracle.asking import read_caption
from sdg.microworld.oracle.judging import Thing, artifacts, misalignments, name
from sdg.microworld.oracle.recognising import recognise
from sdg.microworld.oracle.seeing import look

__all__ = ["Measurement", "Thing", "measure", "read_caption"]


@dataclass(frozen=True)
class Measurement:
    """What the oracle finds.

    Args:
        defects: misalignments in the caption's order, then artifacts from left to right.
        kinds: finer name of each defect: those of the microworld, and ``irregular`` for what no drawing explains.
        things: the objects seen, from left to right.
        sky: of the backdrop that fits best.
        ground: of the backdrop that fits best.
    """

    defects: DefectSet
    kinds: tuple[str, ...]
    things: tuple[Thing, ...]
    sky: str
    ground: str

    def load(self, type: DefectType | str) -> float:
        """Defect load of one type: the sum of importance / 100; 0 is faultless."""
        return sum(d.importance or 100 for d in self.defects.of_type(type)) / 100


def measure(image: Image.Image, caption: str) -> Measurement:
    """Measure a picture against the caption that it was made from.

    Args:
        image: a microworld picture, drawn or generated; measured at 128 x 128 pixels.
        caption: in the words of the microworld; empty: artifacts only.

    Raises:
        ValueError: where the caption cannot be read as one of the microworld's.

    Example:
        >>> from sdg import microworld
        >>> record = next(microworld.generate(1, seed=0, split="test", clean=True))
        >>> measure(record.image, record.caption).load("misalignment")
        0.0
    """
    plan = read_caption(caption)
    view = look(image)
    seen = recognise(view)
    things = [name(s) for s in seen]
    wrong, kinds = misalignments(plan, things) if plan is not None else ([], [])
    flaws, flaw_kinds = artifacts(view, seen)
    return Measurement(
        DefectSet((*wrong, *flaws), caption=caption),
        (*kinds, *flaw_kinds),
        tuple(things),
        view.sky,
        view.ground,
    )
