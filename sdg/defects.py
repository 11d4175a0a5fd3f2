"""The defect tuple: where (box), what (type), why (reason), how much (importance)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from enum import Enum
from typing import Any, SupportsFloat, SupportsIndex, overload

from sdg import boxes
from sdg.boxes import GRID, BoxOrder

COORDINATES = ("x0", "y0", "x1", "y1")


class DefectType(str, Enum):
    """What is wrong: a visual flaw whatever the caption says, or a contradiction of the caption."""

    ARTIFACT = "artifact"
    MISALIGNMENT = "misalignment"

    def __str__(self) -> str:
        return self.value


TYPES = tuple(DefectType)

SUBTYPES: dict[DefectType, tuple[str, ...]] = {
    DefectType.ARTIFACT: (
        "distorted_anatomy",
        "duplicated_or_missing_part",
        "warped_geometry",
        "texture_fault",
        "unnatural_edge",
        "garbled_text",
        "inconsistent_lighting",
    ),
    DefectType.MISALIGNMENT: (
        "missing_object",
        "extra_object",
        "wrong_attribute",
        "wrong_relation",
        "wrong_action",
        "wrong_style",
    ),
}
"""The subtypes of App. A.2, by type."""

TIERS: dict[str, tuple[int, int]] = {
    "critical": (90, 100),
    "major": (70, 89),
    "moderate": (40, 69),
    "minor": (15, 39),
    "negligible": (1, 14),
}
"""Importance tiers, both ends included (§3.1)."""


def tier_of(importance: int) -> str:
    """Name of the tier of an importance in 1..100."""
    return next(name for name, (low, _) in TIERS.items() if importance >= low)


def _integer(name: str, value: Any, low: int, high: int, clip: bool, mended: list[str]) -> int:
    if type(value) is int and low <= value <= high:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsFloat | SupportsIndex):
        raise ValueError(f"{name}={value!r} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}={value!r} is not a finite number")
    if not clip:
        if number != int(number):
            raise ValueError(f"{name}={value!r} is not an integer (round it, or pass clip=True)")
        if not low <= number <= high:
            raise ValueError(f"{name}={value!r} is outside {low}..{high} (pass clip=True to mend it)")
        return int(number)
    repaired = min(max(math.floor(number + 0.5), low), high)
    if repaired != number:
        mended.append(f"{name} {value!r} -> {repaired}")
    return repaired


def _corners(box: Any, clip: bool, mended: list[str]) -> tuple[int, int, int, int]:
    if isinstance(box, str | bytes) or not hasattr(box, "__iter__") or len(values := tuple(box)) != 4:
        raise ValueError(f"box={box!r} is not four numbers x0, y0, x1, y1")
    x0, y0, x1, y1 = (
        _integer(f"box {name}", value, 0, GRID, clip, mended) for name, value in zip(COORDINATES, values, strict=True)
    )
    if clip and x1 < x0:
        mended.append(f"box x0, x1 {x0}, {x1} swapped")
        x0, x1 = x1, x0
    if clip and y1 < y0:
        mended.append(f"box y0, y1 {y0}, {y1} swapped")
        y0, y1 = y1, y0
    hint = '(order is x0, y0, x1, y1; readers take order="yxyx" for y-first boxes)'
    if x0 >= x1:
        raise ValueError(f"box x1={x1} is not right of x0={x0} {hint}")
    if y0 >= y1:
        raise ValueError(f"box y1={y1} is not below y0={y0} {hint}")
    return x0, y0, x1, y1


@dataclass(frozen=True)
class Defect:
    """One defect of a generated image. Equality is over box, type, reason and importance.

    Args:
        box: ``x0, y0, x1, y1``, integers on the 0..1000 grid, x right, y down.
        type: ``"artifact"`` or ``"misalignment"``.
        reason: why it is a defect, free text; empty where a data set gives none.
        importance: 1..100, or None where a data set has none.
        subtype: one of :data:`SUBTYPES` for this type, or None.
        confidence: probability in 0..1 that the defect is there, or None.
        clip: mend instead of refusing: round, clamp to the range, swap swapped corners. What was done is listed in
            ``mended``. A box without area and a value that is no number are refused all the same.

    Raises:
        ValueError: naming the field and the value.

    Example:
        >>> Defect((100, 200, 300, 400), "artifact", "the left hand has six fingers", 55).tier
        'moderate'
    """

    box: tuple[int, int, int, int]
    type: DefectType
    reason: str = ""
    importance: int | None = None
    subtype: str | None = field(default=None, compare=False)
    confidence: float | None = field(default=None, compare=False)
    mended: tuple[str, ...] = field(default=(), compare=False, repr=False)
    clip: InitVar[bool] = False

    def __post_init__(self, clip: bool) -> None:
        mended: list[str] = list(self.mended)
        put = object.__setattr__
        put(self, "box", _corners(self.box, clip, mended))
        try:
            put(self, "type", DefectType(self.type))
        except ValueError:
            raise ValueError(f"type={self.type!r} is neither 'artifact' nor 'misalignment'") from None
        if not isinstance(self.reason, str):
            raise ValueError(f"reason={self.reason!r} is not text")
        if self.importance is not None:
            put(self, "importance", _integer("importance", self.importance, 1, 100, clip, mended))
        if self.subtype is not None and self.subtype not in SUBTYPES[self.type]:
            raise ValueError(f"subtype={self.subtype!r} is none of the {self.type} subtypes {SUBTYPES[self.type]}")
        if self.confidence is not None:
            if isinstance(self.confidence, bool) or not isinstance(self.confidence, SupportsFloat):
                raise ValueError(f"confidence={self.confidence!r} is not a number")
            if not 0 <= float(self.confidence) <= 1:
                raise ValueError(f"confidence={self.confidence!r} is outside 0..1")
            put(self, "confidence", float(self.confidence))
        put(self, "mended", tuple(mended))

    @property
    def tier(self) -> str | None:
        """Importance tier: critical, major, moderate, minor or negligible; None without an importance."""
        return None if self.importance is None else tier_of(self.importance)

    def to_pixels(self, width: float, height: float) -> tuple[float, float, float, float]:
        """Corners ``x0, y0, x1, y1`` in pixels of an image of that size."""
        x0, y0, x1, y1 = boxes.to_pixels(self.box, width, height)[0].tolist()
        return x0, y0, x1, y1

    @classmethod
    def from_pixels(
        cls, box: Sequence[float], width: float, height: float, order: BoxOrder = "xyxy", **fields: Any
    ) -> Defect:
        """A defect whose box is given in pixels of an image of ``width`` x ``height``.

        Args:
            box: four numbers in pixels.
            width: image width in pixels.
            height: image height in pixels.
            order: order of ``box``: ``xyxy``, ``yxyx`` or ``xywh`` (COCO).
            **fields: the other fields of :class:`Defect`; ``clip=True`` mends boxes that leave the image.

        Raises:
            ValueError: as :class:`Defect`; a box thinner than one grid unit is widened to one, not refused.
        """
        if len(tuple(box)) != 4:
            raise ValueError(f"box={box!r} is not four numbers")
        corners = boxes.to_grid(boxes.reorder([box], order), width, height)[0]
        if not all(math.isfinite(c) for c in corners):
            raise ValueError(f"box={tuple(box)!r} holds a value that is not a finite number")
        x0, y0, x1, y1 = (math.floor(c + 0.5) for c in corners)
        if x0 == x1 and corners[0] < corners[2]:
            x0, x1 = (x0, x1 + 1) if x1 < GRID else (x0 - 1, x1)
        if y0 == y1 and corners[1] < corners[3]:
            y0, y1 = (y0, y1 + 1) if y1 < GRID else (y0 - 1, y1)
        return cls(box=(x0, y0, x1, y1), **fields)

    def to_json(self) -> dict[str, Any]:
        """The defect as plain JSON values: the tuple, its tier, and subtype and confidence where they are set."""
        out: dict[str, Any] = {
            "box": list(self.box),
            "type": self.type.value,
            "reason": self.reason,
            "importance": self.importance,
            "tier": self.tier,
        }
        for name in ("subtype", "confidence"):
            if getattr(self, name) is not None:
                out[name] = getattr(self, name)
        return out

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Defect:
        """The inverse of :meth:`to_json`; keys that a defect does not have are ignored.

        Raises:
            ValueError: as :class:`Defect`, and where ``box`` or ``type`` is absent.
        """
        for name in ("box", "type"):
            if name not in fields:
                raise ValueError(f"{name} is missing; a defect has box, type, reason, importance; got {sorted(fields)}")
        return cls(
            box=fields["box"],
            type=fields["type"],
            reason=fields.get("reason") or "",
            importance=fields.get("importance"),
            subtype=fields.get("subtype"),
            confidence=fields.get("confidence"),
        )


@dataclass(frozen=True, eq=False)
class DefectSet(Sequence[Defect]):
    """The defects of one image: an immutable sequence. Equality is over the defects, in order.

    Args:
        defects: any number of :class:`Defect`; none means that the image is clean, unless ``parse_error`` is set.
        caption: the prompt that the image was made from.
        reasoning: the think text of the model.
        parse_error: None, or why the model's text could not be read: such a set is a failure, never "no defect".
        raw: the model's text.
        info: model, seconds a stage, tokens and the like.
    """

    defects: tuple[Defect, ...] = ()
    caption: str | None = None
    reasoning: str | None = None
    parse_error: str | None = None
    raw: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        defects: Iterable[Any] = self.defects
        items = tuple(defects)
        for index, item in enumerate(items):
            if not isinstance(item, Defect):
                raise ValueError(f"defect {index}: {item!r} is not a Defect (use DefectSet.from_json for dictionaries)")
        object.__setattr__(self, "defects", items)

    def __len__(self) -> int:
        return len(self.defects)

    def __iter__(self) -> Iterator[Defect]:
        return iter(self.defects)

    @overload
    def __getitem__(self, index: int) -> Defect: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Defect, ...]: ...
    def __getitem__(self, index: int | slice) -> Defect | tuple[Defect, ...]:
        return self.defects[index]

    def __eq__(self, other: object) -> bool:
        return self.defects == other.defects if isinstance(other, DefectSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.defects)

    @property
    def artifacts(self) -> tuple[Defect, ...]:
        """The defects of type artifact, in order."""
        return self.of_type(DefectType.ARTIFACT)

    @property
    def misalignments(self) -> tuple[Defect, ...]:
        """The defects of type misalignment, in order."""
        return self.of_type(DefectType.MISALIGNMENT)

    def of_type(self, type: DefectType | str) -> tuple[Defect, ...]:
        """The defects of one type, in order."""
        wanted = DefectType(type)
        return tuple(d for d in self.defects if d.type is wanted)

    def by_importance(self) -> tuple[Defect, ...]:
        """The defects from the most important to the least; a missing importance counts as 100."""
        return tuple(sorted(self.defects, key=lambda d: -(100 if d.importance is None else d.importance)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: ``defects``, ``caption``, ``reasoning``, ``parse_error``, ``raw``, ``info``."""
        return {
            "defects": [d.to_json() for d in self.defects],
            "caption": self.caption,
            "reasoning": self.reasoning,
            "parse_error": self.parse_error,
            "raw": self.raw,
            "info": dict(self.info),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> DefectSet:
        """The inverse of :meth:`to_json`, from its dictionary or its JSON text.

        Raises:
            ValueError: naming the defect (by index), the field and the value.
        """
        record: Any = json.loads(data) if isinstance(data, str) else data
        if not isinstance(record, Mapping) or not isinstance(record.get("defects"), Sequence):
            raise ValueError('a defect set is an object with a list "defects"; a bare list goes through DefectSet.of')
        extra = {name: record.get(name) for name in ("caption", "reasoning", "parse_error", "raw")}
        return cls(cls.of(record["defects"]).defects, info=record.get("info") or {}, **extra)

    @classmethod
    def of(cls, defects: DefectSet | Iterable[Defect | Mapping[str, Any]]) -> DefectSet:
        """A set from whatever names defects: a DefectSet, or a list of Defect or of their dictionaries.

        Raises:
            ValueError: naming the defect (by index), the field and the value.
        """
        if isinstance(defects, DefectSet):
            return defects
        if isinstance(defects, str | Mapping) or not isinstance(defects, Iterable):
            raise ValueError(f"expected a list of defects, got {defects!r:.80}")
        made = []
        for index, item in enumerate(defects):
            if isinstance(item, Mapping):
                try:
                    item = Defect.from_json(item)
                except ValueError as error:
                    raise ValueError(f"defect {index}: {error}") from None
            made.append(item)
        return cls(tuple(made))
