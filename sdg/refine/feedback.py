"""What an editor is told of the defects: nothing, their reasons, their boxes, or both (paper, §5.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from PIL import Image

from sdg.defects import Defect, DefectSet, DefectType
from sdg.draw import overlay
from sdg.refine.editors import Task
from sdg.refine.regions import mask_of


class Feedback(str, Enum):
    """How much of what the detector found reaches the editor."""

    FIXED = "fixed"
    TEXT = "text"
    BOXES = "boxes"
    BOXES_AND_TEXT = "boxes+text"

    @property
    def boxes(self) -> bool:
        """Whether the editor sees where the defects are."""
        return self in (Feedback.BOXES, Feedback.BOXES_AND_TEXT)

    @property
    def text(self) -> bool:
        """Whether the editor reads why they are defects."""
        return self in (Feedback.TEXT, Feedback.BOXES_AND_TEXT)


def task_of(image: Image.Image, caption: str, defects: Sequence[Defect], feedback: Feedback, grow: float) -> Task:
    """What the editor is asked for.

    Args:
        image: RGB.
        caption: what the picture should show; may be empty.
        defects: what is to be repaired.
        feedback: what the editor is told of them.
        grow: room round each box where pixels may change, too, as a share of the picture's shorter side.

    Returns:
        A task with a mask and an overlay where boxes are told, and without where they are not.
    """
    found = DefectSet(tuple(defects), caption=caption)
    ranked = DefectSet(found.by_importance(), caption=caption) if feedback is not Feedback.FIXED else DefectSet()
    told = ranked if feedback.text else DefectSet()
    return Task(
        image=image,
        caption=caption,
        defects=ranked,
        mask=mask_of(defects, image.size, grow) if feedback.boxes else None,
        instruction=_instruction(caption, feedback, [_reason(defect) for defect in told]),
        prompt=". ".join(part for part in (caption, *_reasons(told, DefectType.MISALIGNMENT)) if part),
        avoid=". ".join(_reasons(told, DefectType.ARTIFACT)),
        overlay=overlay(image, ranked, min_side=1, tiers=False) if feedback.boxes else None,
    )


def _reason(defect: Defect) -> str:
    reason = " ".join(defect.reason.split()).rstrip(".")
    return reason or ("a visual flaw" if defect.type is DefectType.ARTIFACT else "not what the caption says")


def _reasons(defects: DefectSet, type: DefectType) -> list[str]:
    return [_reason(defect) for defect in defects if defect.type is type]


def _instruction(caption: str, feedback: Feedback, reasons: Sequence[str]) -> str:
    """Full sentences for a model that follows instructions."""
    parts = []
    if feedback is Feedback.FIXED:
        parts.append("Correct every visual flaw of this picture, and whatever contradicts its caption.")
    elif feedback is Feedback.BOXES:
        parts.append("Correct what is wrong inside the numbered frames.")
    else:
        where = " inside the numbered frames" if feedback.boxes else ""
        listed = " ".join(f"{number}. {reason}." for number, reason in enumerate(reasons, start=1))
        parts.append(f"Correct these faults{where}: {listed}")
    if feedback.boxes:
        parts.append("Do not draw the frames or their numbers.")
    if caption:
        parts.append(f'The picture should show: "{caption}".')
    if feedback is not Feedback.FIXED:
        parts.append("Leave everything else exactly as it is.")
    return " ".join(parts)
