"""Several looks at a picture: slower, and a second opinion on every defect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image, ImageOps

from sdg.calibration.agreement import agreement, mirrored, mirrored_caption
from sdg.defects import DefectSet
from sdg.detector import SDGDetector
from sdg.engines.flow import answered
from sdg.engines.images import open_image


@dataclass(frozen=True)
class SeveralLooks:
    """Asks a detector several times about each picture and reports in how many looks each defect was seen.

    The first look is the detector's own answer, and only its defects are reported: further looks support or doubt them.
    ``info["agreement"]`` holds the share of looks for each defect; ``info["looks"]`` how many there were.

    Args:
        detector: what looks.
        samples: further looks whose answers are drawn; needs a local checkpoint.
        temperature: of the drawing, above 0.
        mirror: one further look at the mirrored picture, with left and right changing places in the caption. A picture
            with writing looks wrong in a mirror, and captions that mean another thing by left or right are misread.
        min_agreement: defects seen in a smaller share of the looks are left out; 0 keeps all.
        confidence: what a defect's ``confidence`` becomes: ``"agreement"``, its mean with the calibrated one
            (``"mean"``), or the calibrated one alone (``"calibrated"``).
        seed: of the drawing.
    """

    detector: SDGDetector
    samples: int = 4
    temperature: float = 1.0
    mirror: bool = False
    min_agreement: float = 0.0
    confidence: Literal["agreement", "mean", "calibrated"] = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0 or self.samples + self.mirror < 1:
            raise ValueError(
                f"samples={self.samples} and mirror={self.mirror} leave one look: there is nothing to compare"
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0, or all looks see the same")
        if not 0 <= self.min_agreement <= 1:
            raise ValueError(f"min_agreement={self.min_agreement} is outside 0..1")
        if self.confidence not in ("agreement", "mean", "calibrated"):
            raise ValueError(f"confidence={self.confidence!r} is neither 'agreement' nor 'mean' nor 'calibrated'")
        if self.samples and not hasattr(self.detector.engine, "picture_features"):
            raise ValueError(f"samples={self.samples} needs a local checkpoint; {self.detector.engine.name} is none")

    def __call__(
        self, images: Sequence[Any], captions: Sequence[str | None], *, batch_size: int = 8
    ) -> list[DefectSet]:
        """Look at a list of pictures; arguments and results as those of :class:`~sdg.detector.SDGDetector`."""
        pictures = [open_image(image) for image in images]
        first = self.detector(pictures, list(captions), batch_size=batch_size)
        looks = [self._drawn(pictures, captions, k, batch_size) for k in range(self.samples)]
        if self.mirror:
            looks.append(self._mirrored(pictures, captions, batch_size))
        return [self._weighed(found, [look[i] for look in looks]) for i, found in enumerate(first)]

    def _drawn(
        self, pictures: list[Image.Image], captions: Sequence[str | None], number: int, batch_size: int
    ) -> list[DefectSet]:
        pairs = zip(pictures, captions, strict=True)
        drawing: Any = _Drawing(self.detector.engine, self.temperature, self.seed + number)
        answers = answered(drawing, pairs, self.detector.prompt.format, batch_size, True)
        return [self.detector.read(answer, image, caption) for image, caption, answer in answers]  # type: ignore[arg-type]

    def _mirrored(
        self, pictures: list[Image.Image], captions: Sequence[str | None], batch_size: int
    ) -> list[DefectSet]:
        turned = [ImageOps.mirror(picture) for picture in pictures]
        words = [None if caption is None else mirrored_caption(caption) for caption in captions]
        return [mirrored(found) for found in self.detector(turned, words, batch_size=batch_size)]

    def _weighed(self, found: DefectSet, others: list[DefectSet]) -> DefectSet:
        shares = agreement(found, others)
        defects = []
        for defect, share in zip(found, shares, strict=True):
            if self.confidence == "agreement" or (self.confidence == "mean" and defect.confidence is None):
                defect = replace(defect, confidence=share)
            elif self.confidence == "mean" and defect.confidence is not None:
                defect = replace(defect, confidence=(defect.confidence + share) / 2)
            defects.append(defect)
        kept = [i for i, share in enumerate(shares) if share >= self.min_agreement]
        info = {**found.info, "looks": 1 + len(others), "agreement": [round(shares[i], 4) for i in kept]}
        if len(kept) < len(found):
            info["dropped_below_agreement"] = len(found) - len(kept)
        return replace(found, defects=tuple(defects[i] for i in kept), info=info)


class _Drawing:
    """The engine, but its answers are drawn."""

    def __init__(self, engine: Any, temperature: float, seed: int) -> None:
        self.engine, self.temperature, self.seed, self.batch = engine, temperature, seed, 0

    def generate(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Any:
        self.batch += 1
        return self.engine.generate(images, prompts, temperature=self.temperature, seed=1000 * self.batch + self.seed)
