"""Detect, edit, detect again: an edit is kept only where less is wrong after it and all else is as it was."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sdg.boxes import iou
from sdg.calibration import outside_sentence
from sdg.defects import Defect, DefectSet, DefectType
from sdg.engines.base import EndpointError
from sdg.engines.images import open_image
from sdg.refine.editors import EditError, Editor, Task, usable
from sdg.refine.feedback import Feedback, task_of
from sdg.refine.regions import groups
from sdg.refine.results import Candidate, Refinement, Step, load
from sdg.refine.similarity import similarity, spread

SMALLEST_GAIN = 0.01
"""A candidate is kept only if the load falls by more: less is the detector's own noise."""
SEEDS = 10_000
"""Seeds of a picture's candidates start at this multiple of its seed."""


class Detector(Protocol):
    """What finds defects; :class:`sdg.SDGDetector` is one."""

    def __call__(self, images: Any, captions: Any = None, *, batch_size: int = 8) -> Any: ...


@dataclass(frozen=True)
class Options:
    """How a refiner works; arguments of :class:`DefectRefiner`."""

    feedback: Feedback = Feedback.BOXES_AND_TEXT
    rounds: int = 2
    candidates: int = 4
    min_importance: int = 1
    min_confidence: float = 0.5
    grow: float = 0.04
    min_similarity: float = 0.8
    outside: bool = False
    types: tuple[DefectType, ...] = tuple(DefectType)
    max_spread: float | None = None
    min_gain: float | None = None
    min_better: float | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "feedback", Feedback(self.feedback))
        except ValueError:
            names = ", ".join(feedback.value for feedback in Feedback)
            raise ValueError(f"feedback={self.feedback!r} is none of {names}") from None
        try:
            object.__setattr__(self, "types", tuple(map(DefectType, self.types)))
        except ValueError:
            raise ValueError(f"types={self.types!r} are not types of defects: artifact, misalignment") from None
        for name in ("rounds", "candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1")
        if not 1 <= self.min_importance <= 100:
            raise ValueError(f"min_importance={self.min_importance!r} is outside 1..100")
        for name in ("min_confidence", "min_similarity", "max_spread", "min_gain", "min_better"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is outside 0..1")
        if not 0 <= self.grow < 1:
            raise ValueError(f"grow={self.grow!r} is not a share of the picture's side in 0..1")

    def to_repair(self, found: DefectSet) -> list[Defect]:
        """The defects that matter enough and are sure enough, the most important first."""
        return [
            d
            for d in found.by_importance()
            if d.type in self.types
            and (100 if d.importance is None else d.importance) >= self.min_importance
            and (1.0 if d.confidence is None else d.confidence) >= self.min_confidence
        ]


class DefectRefiner:
    """Repairs the defects of a picture and leaves everything else as it is.

    Each round looks for defects and takes those that overlap together, the most important first. The editor makes
    candidates, the detector looks at them, and the best one is kept, but only if the importance-weighted defect load
    falls and, outside the boxes, no pixel has changed (an editor that redraws the whole picture: if it stayed similar
    enough). Otherwise the picture stays as it was.

    Args:
        detector: an :class:`sdg.SDGDetector` or anything called like one; a name is loaded.
        editor: an :class:`~sdg.refine.editors.Editor`; ``"sdg-tiny-t2i"``, the embedded one for microworld pictures;
            or folder or Hub id of a diffusers pipeline, for inpainting or for editing by instruction.
        feedback: what the editor is told: ``"boxes+text"``, ``"boxes"``, ``"text"`` or ``"fixed"`` (the caption only).
        rounds: of detecting and editing; it ends early where nothing is left, or nothing helps.
        candidates: edits of a step, of which the best is kept.
        min_importance: less important defects are left alone, 1..100.
        min_confidence: less sure ones likewise, 0..1; a defect without a confidence counts as sure.
        grow: room round each box that may change, too, as a share of the picture's shorter side.
        min_similarity: least structural similarity (SSIM) outside the boxes of an edit that redraws the whole picture.
        types: of the defects that are repaired; None is what the editor can (the embedded one: artifacts).
        max_spread: in how much of what they do candidates may differ (:func:`~sdg.refine.similarity.spread`), 0..1: an
            editor that draws something else from every seed is guessing, and none of its candidates is kept. None is
            what the editor asks for (the embedded one does; others do not), 1 lets all pass. A single candidate has
            nothing to differ from.
        min_gain: by how much the defect load has to fall, as a share of the load of what was to be repaired, 0..1. None
            is what the editor asks for (the embedded one half; others only that it falls).
        min_better: share of a step's candidates that have to be better before the best of them is kept, 0..1. None is
            what the editor asks for (the embedded one all; others that one is).
        outside: also work on pictures that lie outside the detector's world, of which its answers mean little.

    Raises:
        ValueError: for an option out of range; for names, what their loaders raise.

    Example:
        >>> refiner = DefectRefiner()  # doctest: +SKIP
        >>> refinement = refiner("picture.png", "a red house beside a lake")  # doctest: +SKIP
        >>> refinement.image.save("mended.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        detector: Detector | str = "sdg-tiny",
        editor: Editor | str = "sdg-tiny-t2i",
        *,
        feedback: str | Feedback = Feedback.BOXES_AND_TEXT,
        rounds: int = 2,
        candidates: int = 4,
        min_importance: int = 1,
        min_confidence: float = 0.5,
        grow: float = 0.04,
        min_similarity: float = 0.8,
        types: Sequence[str | DefectType] | None = None,
        max_spread: float | None = None,
        min_gain: float | None = None,
        min_better: float | None = None,
        outside: bool = False,
    ) -> None:
        self.options = Options(
            feedback=feedback,  # type: ignore[arg-type]  # a name becomes one of them
            rounds=rounds,
            candidates=candidates,
            min_importance=min_importance,
            min_confidence=min_confidence,
            grow=grow,
            min_similarity=min_similarity,
            outside=outside,
            max_spread=max_spread,
            min_gain=min_gain,
            min_better=min_better,
            types=tuple(DefectType) if types is None else types,  # type: ignore[arg-type]
        )
        if isinstance(editor, str):
            from sdg.refine.loading import load_editor

            editor = load_editor(editor)
        if isinstance(detector, str):
            from sdg.detector import SDGDetector

            detector = SDGDetector.from_pretrained(detector)
        given = {"types": types, "max_spread": max_spread, "min_gain": min_gain, "min_better": min_better}
        asked = {name: getattr(editor, name) for name, v in given.items() if v is None and hasattr(editor, name)}
        self.options = replace(self.options, **asked)
        self.detector: Detector = detector
        self.editor: Editor = editor

    def __call__(self, image: Any, caption: str | None = None, *, seed: int = 0) -> Refinement:
        """Repair a picture.

        Args:
            image: PIL image, path, bytes of a file, or array.
            caption: what it should show; without one only artifacts are repaired.
            seed: of the candidates; the same seed gives the same picture.

        Returns:
            the picture and how it came about; where nothing could be improved, the picture that went in, and why.

        Raises:
            ImageError: for a picture that cannot be used.
            EndpointError: where an editor's server is not there or refuses the key.
        """
        *_, refinement = self.iter(image, caption, seed=seed)
        assert isinstance(refinement, Refinement)
        return refinement

    def iter(self, image: Any, caption: str | None = None, *, seed: int = 0) -> Iterator[DefectSet | Step | Refinement]:
        """Repair a picture and tell how it goes: first its defects, then each step, at the end the refinement.

        Args and raises: as of a call.
        """
        original, text = open_image(image), caption or ""
        before = found = self._look([original], text)[0]
        yield before
        steps: list[Step] = []
        current, stop = original, self._unusable(before)
        for number in range(1, self.options.rounds + 1):
            left = [] if stop else self.options.to_repair(found)
            if not left:
                break
            helped = False
            for group in self._steps(left, original.size):
                if not _still_there(group, found):
                    continue
                first = SEEDS * seed + self.options.candidates * len(steps)
                step = self._step(current, text, found, group, number, first)
                steps.append(step)
                yield step
                if step.kept is not None and step.kept.found is not None:
                    current, found, helped = step.after, step.kept.found, True
            # Where there is one group and nothing helped, another round has other seeds; a third one would be stubborn.
            if not helped and number > 1:
                break
        if current is not original and "icc_profile" in original.info:
            current = current.copy()  # the editor's own picture is not ours to write on
            current.info["icc_profile"] = original.info["icc_profile"]  # its pixels are in the same colours
        settings = {"editor": self.editor.name, "seed": seed, **vars(self.options)}
        settings |= {"editor_made_for": getattr(self.editor, "made_for", None)}
        settings |= {"feedback": self.options.feedback.value, "types": [t.value for t in self.options.types]}
        reason = stop or self._reason(before, found, steps)
        yield Refinement(original, text, current, before, found, tuple(steps), reason, settings)

    def _steps(self, left: Sequence[Defect], size: tuple[int, int]) -> list[tuple[Defect, ...]]:
        """What is repaired at a time: an editor that keeps to its mask does one place after another."""
        if self.editor.local and self.options.feedback.boxes:
            return groups(left, size, self.options.grow)
        return [tuple(left)]

    def _step(
        self, image: Image.Image, caption: str, found: DefectSet, group: tuple[Defect, ...], number: int, first: int
    ) -> Step:
        started = time.monotonic()
        task = task_of(image, caption, group, self.options.feedback, self.options.grow)
        candidates = self._candidates(task, range(first, first + self.options.candidates))
        alive = [i for i, candidate in enumerate(candidates) if candidate.refused is None]
        apart, guessed = self._guessed(image, [candidates[i].image for i in alive], task.mask)
        if guessed:
            candidates = [replace(c, refused=guessed) if c.refused is None else c for c in candidates]
            alive = []
        answers = self._look([candidates[i].image for i in alive], caption)
        for i, answer in zip(alive, answers, strict=True):
            candidates[i] = replace(candidates[i], found=answer, refused=self._verdict(group, found, answer))
        few = self._few([candidate.refused is None for candidate in candidates])
        if few:
            candidates = [replace(c, refused=few) if c.refused is None else c for c in candidates]
        chosen = self._best(image, candidates)
        return Step(
            number, group, task.mask, task.instruction, image, found, tuple(candidates), chosen,
            time.monotonic() - started, apart,
        )  # fmt: skip

    def _guessed(
        self, image: Image.Image, images: Sequence[Any], mask: Image.Image | None
    ) -> tuple[float | None, str | None]:
        """In how much of what they do candidates differ, and why that is too much; None where it is not."""
        if len(images) < 2:
            return None, None
        apart, most = spread(image, images, mask), self.options.max_spread
        if most is None or apart <= most:
            return apart, None
        return apart, f"the editor is guessing: its candidates differ (spread {apart:.2f}, at most {most:g})"

    def _candidates(self, task: Task, seeds: Sequence[int]) -> list[Candidate]:
        """What the editor makes of a task; whatever goes wrong there is a reason, not an end."""
        try:
            edits: list[Any] = list(self.editor(task, seeds))
        except Exception as error:  # a model, a driver, a server: anything may be raised
            for cause in (error, error.__cause__):
                if isinstance(cause, EndpointError):  # no server, or no right to ask it: so for every picture
                    raise cause from None
            sentence = (
                str(error) if isinstance(error, EditError) else f"the editor failed: {type(error).__name__}: {error}"
            )
            return [Candidate(seed, refused=sentence) for seed in seeds]
        edits += [EditError("the editor returned no picture")] * (len(seeds) - len(edits))
        return [self._candidate(task, seed, edit) for seed, edit in zip(seeds, edits, strict=False)]

    def _candidate(self, task: Task, seed: int, edit: Any) -> Candidate:
        if isinstance(edit, EditError):
            return Candidate(seed, refused=str(edit))
        try:
            image = usable(edit, task)
        except EditError as error:
            return Candidate(seed, refused=str(error))
        before, after = np.asarray(task.image), np.asarray(image)
        if np.array_equal(before, after):
            return Candidate(seed, image, refused="the editor changed nothing")
        if self.editor.local and task.mask is not None:
            if (before != after).any(axis=2)[np.asarray(task.mask) == 0].any():
                return Candidate(seed, image, refused="pixels outside the mask changed")
            return Candidate(seed, image)
        alike = similarity(task.image, image, task.mask)
        if alike < self.options.min_similarity:
            sentence = (
                f"the rest of the picture changed (similarity {alike:.2f}, at least {self.options.min_similarity:g})"
            )
            return Candidate(seed, image, refused=sentence, similarity=alike)
        return Candidate(seed, image, similarity=alike)

    def _verdict(self, group: Sequence[Defect], before: DefectSet, after: DefectSet) -> str | None:
        """Why a candidate with these defects is not better; None where it is."""
        if after.parse_error:
            return "the detector's answer on it could not be read"
        loads = f"defect load {load(after):.2f}, before {load(before):.2f}"
        if load(after) > load(before) - SMALLEST_GAIN:
            return f"not better: {loads}"
        least = (self.options.min_gain or 0.0) * load(group)
        if load(before) - load(after) < least - 1e-9:  # all of it is all of it, however sums are rounded
            return f"hardly better: {loads}; at least {least:.2f} had to go"
        return None

    def _few(self, better: Sequence[bool]) -> str | None:
        """Why too few candidates are better; None where enough are, and where none is, which has reasons of its own."""
        count, least = sum(better), math.ceil((self.options.min_better or 0.0) * len(better) - 1e-9)
        if not count or count >= least:
            return None
        return f"{count} of {len(better)} candidates better, at least {least} have to be"

    def _best(self, image: Image.Image, candidates: Sequence[Candidate]) -> int | None:
        """The candidate with the least load; of those that are equal to two digits, the one that changes least."""
        before = np.asarray(image, dtype=np.float32)

        def rank(i: int) -> tuple[float, float]:
            weight = candidates[i].load
            assert weight is not None
            return round(weight, 2), float(np.abs(np.asarray(candidates[i].image, dtype=np.float32) - before).mean())

        good = [i for i, candidate in enumerate(candidates) if candidate.refused is None]
        return min(good, key=rank, default=None)

    def _look(self, images: Sequence[Any], caption: str) -> list[DefectSet]:
        if not images:
            return []
        return list(self.detector(list(images), [caption or None] * len(images), batch_size=len(images)))

    def _unusable(self, found: DefectSet) -> str | None:
        """Why nothing can be done for a picture with this answer."""
        if found.parse_error:
            return f"unchanged: the detector's answer could not be read ({found.parse_error})"
        strange = outside_sentence(found)
        if strange and not self.options.outside:
            return f"unchanged: {strange}"
        return None

    def _reason(self, before: DefectSet, after: DefectSet, steps: Sequence[Step]) -> str:
        if not steps:
            if not before:
                return "unchanged: no defect found"
            o = self.options
            return (
                f"unchanged: none of {len(before)} defects is an {' or a '.join(o.types)} with importance "
                f"{o.min_importance} and confidence {o.min_confidence:g} or more"
            )
        kept = sum(step.chosen is not None for step in steps)
        if not kept:
            return f"unchanged after {len(steps)} attempts: {steps[-1].reason.removeprefix('nothing kept: ')}"
        return (
            f"{kept} of {len(steps)} attempts kept: the defect load fell from {load(before):.2f} to {load(after):.2f}"
        )


def _still_there(group: Sequence[Defect], found: DefectSet) -> bool:
    """Whether the detector still sees something of a group, which an edit of another one may have removed."""
    return any(iou([defect.box], [other.box])[0, 0] > 0 for defect in group for other in found)
