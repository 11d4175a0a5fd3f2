"""Confidence: how sure a checkpoint is of a defect, how far that holds, and which pictures it does not know."""

from sdg.calibration.agreement import agreement, mirrored, mirrored_caption
from sdg.calibration.confidence import CALIBRATION_FILE, Calibration, is_right
from sdg.calibration.curves import Judged, auroc
from sdg.calibration.evidence import FEATURES, Evidence, features
from sdg.calibration.trust import Trust, at_least
from sdg.calibration.world import WORLD_FILE, World, outside_sentence

__all__ = [
    "CALIBRATION_FILE",
    "FEATURES",
    "WORLD_FILE",
    "Calibration",
    "Evidence",
    "Judged",
    "Trust",
    "World",
    "agreement",
    "at_least",
    "auroc",
    "features",
    "is_right",
    "mirrored",
    "mirrored_caption",
    "outside_sentence",
]
