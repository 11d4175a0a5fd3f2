"""What a checkpoint brings along so that its answers can be trusted or doubted, and what it says of an answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdg.boxes import BoxOrder
from sdg.calibration.confidence import CALIBRATION_FILE, Calibration
from sdg.calibration.evidence import Evidence, features
from sdg.calibration.world import WORLD_FILE, World
from sdg.defects import DefectSet


@dataclass(frozen=True)
class Trust:
    """A calibration and a world; either may be absent.

    Args:
        calibration: gives each defect its confidence.
        world: tells a picture that the checkpoint was not made for.
    """

    calibration: Calibration | None = None
    world: World | None = None

    @classmethod
    def load(cls, find: Callable[[str], Path | None]) -> Trust:
        """Read what there is.

        Args:
            find: from the name of a file of the checkpoint to where it lies; None where the checkpoint has none.

        Raises:
            ValueError: for a file that is there and cannot be read.
        """
        calibration, world = find(CALIBRATION_FILE), find(WORLD_FILE)
        return cls(Calibration.load(calibration) if calibration else None, World.load(world) if world else None)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write what there is into a folder."""
        return [part.save(folder) for part in (self.calibration, self.world) if part is not None]

    def info(self, evidence: Evidence | None) -> dict[str, Any]:
        """What results say of themselves: ``calibrated``, and ``out_of_world`` where the picture can be judged."""
        found: dict[str, Any] = {"calibrated": self.calibration is not None}
        if self.world is not None and evidence is not None and evidence.picture is not None:
            found["out_of_world"] = self.world.judge(evidence.picture)
        return found

    def weigh(self, found: DefectSet, evidence: Evidence | None, order: BoxOrder) -> DefectSet:
        """The set with a confidence for each defect; without a calibration, as it is.

        Args:
            found: an answer's defects, with its text as ``raw``.
            evidence: what is known of the answer.
            order: the order of coordinates that the model writes.
        """
        if self.calibration is None or not found:
            return found
        confidences = self.calibration.confidence(features(found, evidence, order))
        # Digits beyond the fourth say nothing, and depend on which answers shared a batch.
        rounded = (None if c is None else round(c, 4) for c in confidences)
        weighed = (replace(defect, confidence=c) for defect, c in zip(found, rounded, strict=True))
        return replace(found, defects=tuple(weighed))


def at_least(found: DefectSet, confidence: float) -> DefectSet:
    """The set without the defects below a confidence; ``info`` says how many they were. One of None stays."""
    kept = tuple(d for d in found if d.confidence is None or d.confidence >= confidence)
    if len(kept) == len(found):
        return found
    return replace(found, defects=kept, info={**found.info, "dropped_below_confidence": len(found) - len(kept)})
