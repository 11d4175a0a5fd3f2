"""What speaks for a defect: how sure the model was of each part of it while it wrote."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdg.boxes import BoxOrder
from sdg.defects import DefectSet, DefectType
from sdg.response import Place, locate
from sdg.response.nearly_json import NUMBER, Span

FEATURES = (
    "label",
    "box",
    "box_least",
    "description",
    "description_least",
    "opening",
    "reasoning",
    "reasoning_least",
    "importance",
    "count",
    "log_area",
    "artifact",
)
"""What a confidence is computed from, in the order of the columns of :func:`features`.

Log-probabilities: of the type's word; of a coordinate, mean and least of the four; of a description's token, mean and
least; of beginning this object at all; of a token of everything before the answer, mean and least. Then the importance,
how many defects the answer lists, the logarithm of the box's share of the picture, and whether it is an artifact.
"""

WRITTEN = slice(0, 8)
"""The features that are log-probabilities."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one answer beside its text.

    Args:
        logprobs: natural logarithm of the probability of each token of the answer.
        token_ends: characters of the text that are written once each token is; as many.
        picture: (d,) mean features of the picture in the model's vision tower, or None.
    """

    logprobs: tuple[float, ...] | None = None
    token_ends: tuple[int, ...] | None = None
    picture: tuple[float, ...] | None = None


def features(found: DefectSet, evidence: Evidence | None, order: BoxOrder = "xyxy") -> NDArray[np.float64]:
    """What speaks for each defect of an answer.

    Args:
        found: an answer's defects, with its text as ``raw``.
        evidence: what is known of the answer, or None.
        order: the order of coordinates that the model writes.

    Returns:
        (n, :data:`FEATURES`); NaN where something is not known.
    """
    table = np.full((len(found), len(FEATURES)), np.nan)
    for row, defect in zip(table, found, strict=True):
        x0, y0, x1, y1 = defect.box
        importance = np.nan if defect.importance is None else defect.importance
        row[8:] = importance, len(found), math.log((x1 - x0) * (y1 - y0) / 1e6), defect.type is DefectType.ARTIFACT
    tokens = _Tokens.of(evidence)
    text = found.raw
    if tokens is None or text is None or not len(found):
        return table
    places = locate(text, order)
    begin = min((place.object[0] for place in places.values()), default=0)
    before = tokens.within((0, max(begin - 1, 0)))
    end = max(begin - 1, 0)
    for row, defect in zip(table, found, strict=True):
        place = places.get(defect)
        if place is None:
            continue
        row[0] = _sum(tokens, place.label)
        row[1:3] = _mean_and_least([_sum(tokens, span) for span in _numbers(text, place.box)])
        row[3:5] = _mean_and_least(tokens.within(place.description))
        row[5] = _sum(tokens, _opening(place, end))
        row[6:8] = _mean_and_least(before)
        end = place.object[1]
    return table


@dataclass(frozen=True)
class _Tokens:
    logprobs: tuple[float, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, evidence: Evidence | None) -> _Tokens | None:
        if evidence is None or not evidence.logprobs or evidence.token_ends is None:
            return None
        return cls(evidence.logprobs, evidence.token_ends)

    def within(self, span: Span | None) -> Sequence[float]:
        """Log-probabilities of the tokens that write some of the characters of a span."""
        if span is None or span[0] >= span[1]:
            return ()
        first = bisect_right(self.ends, span[0])
        last = bisect_left(self.ends, span[1])
        return self.logprobs[first : last + 1]


def _opening(place: Place, end: int) -> Span | None:
    """From what stands before an object, the place where the list might have ended, to the value of its first key."""
    first = min((span[0] for span in place[1:] if span is not None), default=end)
    return (max(end - 1, 0), first) if end < first else None


def _numbers(text: str, box: Span | None) -> list[Span]:
    if box is None:
        return []
    return [(box[0] + m.start(), box[0] + m.end()) for m in NUMBER.finditer(text[slice(*box)])]


def _sum(tokens: _Tokens, span: Span | None) -> float:
    known = tokens.within(span)
    return sum(known) if known else math.nan


def _mean_and_least(values: Sequence[float]) -> tuple[float, float]:
    return (sum(values) / len(values), min(values)) if values else (math.nan, math.nan)
