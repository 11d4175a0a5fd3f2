"""A detector's answers on annotated pictures, as calibration needs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from PIL import Image

from sdg.calibration.evidence import features
from sdg.calibration.fitting import Answers
from sdg.defects import DefectSet
from sdg.detector import SDGDetector
from sdg.engines.flow import answered
from sdg.engines.images import fit, open_image
from sdg.records import Record


def observe(detector: SDGDetector, records: Sequence[Record], *, batch_size: int = 32) -> Answers:
    """Let a detector answer annotated pictures, greedily, and keep what speaks for each defect.

    Args:
        detector: on an engine that hands out log-probabilities: a local checkpoint.
        records: pictures with captions and true defects.
        batch_size: pictures that the model answers at a time.

    Raises:
        ValueError: where the engine does not know how sure it was, and for a picture that cannot be used.
    """
    pictures = [(record.image, record.caption) for record in records]
    found: list[DefectSet] = []
    tables, seen = [], []
    for image, caption, answer in answered(detector.engine, pictures, detector.prompt.format, batch_size, True):
        if answer is None or not isinstance(image, Image.Image):
            raise ValueError(f"picture {len(found)} cannot be used: {image}")
        if answer.evidence is None:
            raise ValueError(
                f"{detector.engine.name} does not say how sure it was of its tokens: a local checkpoint does"
            )
        read = detector.read(answer, image, caption)
        found.append(read)
        tables.append(features(read, answer.evidence, detector.box_order))
        seen.append(answer.evidence.picture)
    return Answers(found, [record.defects for record in records], tables, seen)


def look_at(detector: SDGDetector, images: Iterable[Any], *, batch_size: int = 64) -> list[tuple[float, ...] | None]:
    """What the detector's vision tower makes of pictures, without answers: (d,) features each, or None.

    Raises:
        ValueError: where the model is not in this process, and for a picture that cannot be used.
    """
    look = getattr(detector.engine, "picture_features", None)
    if look is None:
        raise ValueError(f"{detector.engine.name} is not in this process: its vision tower cannot be asked")
    waiting, seen = iter(images), []
    while batch := [fit(open_image(image)) for image in islice(waiting, batch_size)]:
        seen += look(batch)
    return seen
