"""Do the data contradict the order of box coordinates that they are read in?

A box read in the wrong order is mostly still a valid box, so three things are looked at: boxes that leave the picture
in the declared order and fit into it in another one; boxes that a record states twice; and words like "image-left"
in reasons and think text against the place of the box.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdg.boxes import GRID, BoxOrder, reorder

MOST_CONTRADICTING = 0.005
"""Share of boxes that may fit in another order only."""
ENOUGH_BOXES = 200
"""Boxes that are seen before a share of them counts, as long as there are more to come."""
FEWEST_CONTRADICTING = 2
"""One box is a slip, whatever its share."""
SLOPPY = 0.02 * GRID
"""How far a box may reach out of the picture and be a slip, not a sign of another order."""
CHANCE = 1e-3
"""Words contradict boxes when chance alone would do it less often than this; it takes at least ten boxes."""
SAME = 2.0
"""Grid units by which two statements of one box may differ."""

TRANSPOSED = "x and y exchanged"
_WHOLE = r"(?:image|picture|frame|photo|photograph|scene|canvas|composition)"
_PLACES = re.compile(
    rf"\b{_WHOLE}[- ](?P<a>left|right|top|bottom)\b"
    rf"|\b(?P<b>top|bottom|upper|lower)[- ](?P<c>left|right)\b"
    rf"|\b(?P<d>left|right|top|bottom|upper|lower)(?:most)?[- ](?:side|half|edge|corner|part|portion|third|area|region)"
    rf"(?: of the {_WHOLE}\b|(?! of\b))"
    rf"|\b(?:on|at|to|in|near|along|towards?|from) the (?:far |very |extreme )?(?P<e>left|right|top|bottom)"
    rf"(?= of the {_WHOLE}\b|\s*[.,;:)]|\s*$)",
    re.IGNORECASE,
)
_LOW = {"left": 0, "right": 0, "top": 1, "upper": 1, "bottom": 1, "lower": 1}
_FIRST_HALF = frozenset({"left", "top", "upper"})


class OrderError(ValueError):
    """The data contradict the order that their boxes are read in."""


class OrderCheck:
    """Evidence about the order of boxes; :meth:`add` takes a record, :meth:`verdict` says what it amounts to.

    Args:
        source: how errors name the data.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._boxes = 0
        self._fit_only_as: Counter[str] = Counter()
        self._stated: Counter[bool] = Counter()
        self._told: Counter[bool] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(
        self,
        where: str,
        boxes: NDArray[np.float64],
        order: BoxOrder,
        scale: tuple[float, float],
        texts: Sequence[str],
        again: Sequence[Sequence[float]] = (),
    ) -> None:
        """Take a record.

        Args:
            where: file and line.
            boxes: (n, 4) finite numbers as the file states them.
            order: the order that they are read in.
            scale: what coordinates are multiplied with, in x and y, to come to the grid.
            texts: what is said of each box, n strings.
            again: xyxy boxes on the grid that the record states a second time, any number.
        """
        if not len(boxes):
            return
        corners = _on_grid(reorder(boxes, order), scale)
        self._boxes += len(boxes)
        self._fits(where, boxes, order, corners, scale)
        exchanged = corners[:, [1, 0, 3, 2]]
        for other in again:
            straight = bool(np.any(np.all(np.abs(corners - other) <= SAME, axis=1)))
            crossed = bool(np.any(np.all(np.abs(exchanged - other) <= SAME, axis=1)))
            if straight != crossed:
                self._stated[straight] += 1
                if crossed:
                    self._example("twice", f"{where}: {_said(corners)} beside {[round(v) for v in other]}")
        for corner, text in zip(corners, texts, strict=True):
            vote = _vote(corner, text)
            if vote:
                self._told[vote > 0] += 1
                if vote < 0:
                    self._example("words", f'{where}: box {_said(corner)}, "{text.strip():.90}"')

    def exchanged_size(self, where: str, stated: tuple[int, int], picture: tuple[int, int], boxes: int) -> None:
        """Take a record whose width and height are exchanged against its picture."""
        self._boxes += boxes
        self._fit_only_as[TRANSPOSED] += max(boxes, 1)
        self._example(TRANSPOSED, f"{where}: {stated[0]} x {stated[1]} for a picture of {picture[0]} x {picture[1]}")

    def verdict(self, complete: bool) -> None:
        """Stop where the evidence is against the order.

        Args:
            complete: whether there is nothing more to come.

        Raises:
            OrderError: saying what was found, with examples.
        """
        if complete or self._boxes >= ENOUGH_BOXES:
            for other, count in self._fit_only_as.most_common(1):
                if count >= FEWEST_CONTRADICTING and count > MOST_CONTRADICTING * self._boxes:
                    said = (
                        f"{count} of {self._boxes} boxes do not fit into their picture as declared, but do as {other}"
                    )
                    raise self._error(said, other)
        crossed, straight = self._stated[False], self._stated[True]
        if crossed and crossed > MOST_CONTRADICTING * (crossed + straight):
            said = (
                f"{crossed} boxes that are stated twice agree only with x and y exchanged (text_order= says in which "
                "order a model's text has its boxes)"
            )
            raise self._error(said, "twice")
        against, tried = self._told[False], self._told.total()
        if 2 * against > tried and _at_least(against, tried) < CHANCE:
            said = f"of {tried} boxes whose text says where they are, {against} agree only with x and y exchanged"
            raise self._error(said, "words")

    def _fits(
        self,
        where: str,
        boxes: NDArray[np.float64],
        order: BoxOrder,
        corners: NDArray[np.float64],
        scale: tuple[float, float],
    ) -> None:
        wrong = ~_valid(corners, SLOPPY)
        if not wrong.any():
            return
        others = {TRANSPOSED: reorder(boxes, order)[:, [1, 0, 3, 2]]}
        if order == "xywh":
            others["xyxy"] = boxes
        else:
            others["xywh"] = reorder(boxes, "xywh")
        for other, read in others.items():
            good = wrong & _valid(_on_grid(read, scale), 0)
            self._fit_only_as[other] += int(good.sum())
            for box in boxes[good][:1]:
                self._example(other, f"{where}: {[round(float(v), 3) for v in box]}")

    def _example(self, kind: str, text: str) -> None:
        examples = self._examples.setdefault(kind, [])
        if len(examples) < 3:
            examples.append(text)

    def _error(self, said: str, kind: str) -> OrderError:
        examples = "".join(f"\n  {example}" for example in self._examples.get(kind, ()))
        return OrderError(
            f"{self._source}: the order of box coordinates is contradicted by the data: {said}. Declare the order that "
            f"they are in (order=, where the layout leaves it open), or pass check_order=False if you know better."
            f"{examples}"
        )


def _on_grid(corners: NDArray[np.float64], scale: tuple[float, float]) -> NDArray[np.float64]:
    return corners * np.array([*scale, *scale])


def _valid(corners: NDArray[np.float64], slack: float) -> NDArray[np.bool_]:
    sides = np.all(corners[:, 2:] > corners[:, :2], axis=1)
    inside = np.all((corners >= -0.5 - slack) & (corners <= GRID + 0.5 + slack), axis=1)
    return np.asarray(sides & inside, dtype=np.bool_)


def _vote(corner: NDArray[np.float64], text: str) -> int:
    """+1 where the words of a text agree with the box as it is only, -1 with x and y exchanged only, else 0."""
    words = [w.lower() for match in _PLACES.finditer(text) for w in match.groups() if w]
    x, y = (corner[:2] + corner[2:]) / 2
    total = 0
    for word in words:
        middles = (x, y) if _LOW[word] == 0 else (y, x)
        straight, crossed = ((m < GRID / 2) == (word in _FIRST_HALF) for m in middles)
        total += int(straight) - int(crossed)
    return (total > 0) - (total < 0)


def _at_least(successes: int, trials: int) -> float:
    """Chance of at least so many heads: a one-sided sign test."""
    return sum(math.comb(trials, k) for k in range(successes, trials + 1)) / 2**trials


def _said(corners: NDArray[np.float64]) -> list[int] | list[list[int]]:
    rounded: list[int] | list[list[int]] = np.round(corners).astype(int).tolist()
    return rounded
