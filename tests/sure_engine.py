"""An engine that sees what is there most of the time, and is less sure of what it invents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from sdg.calibration.evidence import Evidence
from sdg.defects import Defect, DefectSet
from sdg.engines.base import Generation
from sdg.records import Record
from sdg.response import render_response

PLACES = [(0, 0, 200, 200), (300, 300, 600, 600), (700, 100, 900, 400)]


def scene(index: int) -> Record:
    """A picture whose only pixel value tells its number, with 0 to 2 true defects."""
    true = tuple(Defect(box, "artifact", "a smear", 50) for box in PLACES[: index % 3])
    shade = (index % 256, index // 256, 0)
    return Record(Image.new("RGB", (16, 16), shade), f"picture {index}", DefectSet(true), id=str(index))


class SureEngine:
    """Answers scenes; every third picture gets a defect that is not there, written with little certainty.

    Args:
        spread: how far the certainty of right and wrong answers overlaps.
        evidence: whether it says how sure it was.
    """

    name = "sure"

    def __init__(self, spread: float = 0.3, evidence: bool = True) -> None:
        self.spread, self.evidence = spread, evidence

    def generate(self, images: Sequence[Image.Image], prompts: Sequence[str], **options: Any) -> list[Generation]:
        return [self._answer(image, **options) for image in images]

    def picture_features(self, images: Sequence[Image.Image]) -> list[tuple[float, ...] | None]:
        return [features_of(image) for image in images]

    def _answer(self, image: Image.Image, temperature: float = 0.0, seed: int = 0) -> Generation:
        red, green, _ = image.getpixel((0, 0))
        index = red + 256 * green
        rng = np.random.default_rng([index, seed])
        found = list(scene(index).defects)
        wrong = index % 3 == 0 and not (temperature and rng.random() < 0.7)
        if wrong:
            found.append(Defect((10, 800, 300, 990), "artifact", "an invention", 40))
        text = render_response(DefectSet(tuple(found), reasoning="let me see"))
        sure = rng.normal(-1.0 if wrong else -0.2, self.spread)
        evidence = None
        if self.evidence:
            ends = tuple(range(1, len(text) + 1))
            evidence = Evidence((min(sure, -0.001),) * len(text), ends, features_of(image))
        return Generation(text, 9, len(text), 0.1, True, evidence=evidence)


def features_of(image: Image.Image) -> tuple[float, ...]:
    """Eight numbers that are random but the picture's own."""
    red, green, blue = image.getpixel((0, 0))
    return tuple(np.random.default_rng([red, green]).normal(size=8) + 20.0 * (blue > 0))
