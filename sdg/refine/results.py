"""What a refinement did: every candidate of every step, why it was kept or not, and the picture that came out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from sdg.defects import Defect, DefectSet


def load(found: Iterable[Defect]) -> float:
    """Importance-weighted defect load: the sum of importance / 100, each weighed by the defect's confidence.

    A missing importance counts as 100, a missing confidence as certainty. 0 is faultless.
    """
    return sum(
        (100 if d.importance is None else d.importance) / 100 * (1.0 if d.confidence is None else d.confidence)
        for d in found
    )


def load_of(found: DefectSet | None) -> float | None:
    """The :func:`load` of an answer; None where there is none, or it could not be read: that is not faultless."""
    return None if found is None or found.parse_error is not None else load(found)


@dataclass(frozen=True)
class Candidate:
    """One edited picture.

    Args:
        seed: that it was drawn with.
        image: RGB; None where the editor gave none.
        found: its defects; None where it was not looked at.
        refused: why it cannot be kept; None where it could be.
        similarity: to the input outside the boxes, 1 is equal; None where pixels are equal there by construction.
    """

    seed: int
    image: Image.Image | None = None
    found: DefectSet | None = None
    refused: str | None = None
    similarity: float | None = None

    @property
    def load(self) -> float | None:
        """Its defect load; None where it was not looked at, or the answer could not be read."""
        return load_of(self.found)

    def to_json(self) -> dict[str, Any]:
        """Everything but the picture."""
        unread = None if self.found is None else self.found.parse_error
        looked_at = self.found is not None and unread is None
        return {
            "seed": self.seed,
            "load": self.load,
            "similarity": self.similarity,
            "refused": self.refused,
            "defects": [defect.to_json() for defect in self.found or ()] if looked_at else None,
            "parse_error": unread,
        }


@dataclass(frozen=True)
class Step:
    """One attempt at a group of defects.

    Args:
        round: number of the round, from 1.
        defects: what was to be repaired.
        mask: mode L, 255 where pixels could change; None where all could.
        instruction: what the editor was told.
        before: the picture that went in.
        found: its defects.
        candidates: what the editor made of it.
        chosen: index of the one that was kept; None where none was.
        seconds: that it took.
        spread: of the candidates (:func:`sdg.refine.similarity.spread`), 0..1; None for fewer than two.
    """

    round: int
    defects: tuple[Defect, ...]
    mask: Image.Image | None
    instruction: str
    before: Image.Image
    found: DefectSet
    candidates: tuple[Candidate, ...]
    chosen: int | None
    seconds: float = 0.0
    spread: float | None = None

    @property
    def kept(self) -> Candidate | None:
        """The candidate that was kept."""
        return None if self.chosen is None else self.candidates[self.chosen]

    @property
    def after(self) -> Image.Image:
        """The picture that came out: the kept candidate's, or the one that went in."""
        kept = self.kept
        return self.before if kept is None or kept.image is None else kept.image

    @property
    def reason(self) -> str:
        """What became of it, in a sentence."""
        kept = self.kept
        if kept is not None and kept.load is not None:
            return f"kept: the defect load fell from {load(self.found):.2f} to {kept.load:.2f}"
        said = dict.fromkeys(candidate.refused or "not better" for candidate in self.candidates)
        return f"nothing kept: {'; '.join(said) or 'the editor made no candidate'}"

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "round": self.round,
            "defects": [defect.to_json() for defect in self.defects],
            "instruction": self.instruction,
            "load": load(self.found),
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "spread": self.spread,
            "chosen": self.chosen,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Refinement:
    """The picture that came out, and how.

    Args:
        original: the picture that went in, RGB.
        caption: of the picture.
        image: the picture that came out; ``original`` itself where nothing was changed.
        before: the defects of ``original``.
        after: the defects of ``image``.
        steps: in order.
        reason: what happened, in a sentence; where nothing was changed, why.
        settings: editor, seed and options, as JSON values.
    """

    original: Image.Image
    caption: str
    image: Image.Image
    before: DefectSet
    after: DefectSet
    steps: Sequence[Step] = ()
    reason: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the picture is another one than before."""
        return self.image is not self.original

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures: what changed and why, the load and the defects before and after, the steps."""
        return {
            "caption": self.caption,
            "changed": self.changed,
            "reason": self.reason,
            "load": {"before": load_of(self.before), "after": load_of(self.after)},
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "steps": [step.to_json() for step in self.steps],
            "settings": dict(self.settings),
        }
