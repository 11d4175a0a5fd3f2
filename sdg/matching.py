"""Which predicted defect answers which reference: one-to-one, never across types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from sdg import boxes
from sdg.defects import TYPES, Defect, DefectSet

Score = Literal["iou", "diou"]
Method = Literal["hungarian", "greedy"]

MAX_CELLS = 25_000_000
"""Largest score matrix of one image and type: 200 MB of float64, some seconds of assignment."""

_CELLS = 1_000_000
"""Pairs scored at once, whatever the size of the data set."""


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(choices)}")


def check_method(method: str) -> None:
    """Raise ValueError unless ``method`` names a way of matching."""
    _one_of("matching", method, get_args(Method))


def _check_cells(n: int, m: int) -> None:
    if n * m > MAX_CELLS:
        raise ValueError(
            f"{n:,} predictions against {m:,} references of one type in one image make a matrix of {n * m:,} cells, "
            f"more than {MAX_CELLS:,}: keep fewer predictions of that image"
        )


def _greedy(rows: NDArray[np.intp], columns: NDArray[np.intp], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which of the candidate pairs a greedy matching takes, best first."""
    order = np.lexsort((rows, columns, scores))[::-1]
    taken: list[int] = []
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for k, row, column in zip(order.tolist(), rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            taken.append(k)
    return np.array(taken, dtype=np.intp)


def assign(scores: ArrayLike, method: Method = "hungarian") -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One-to-one assignment of rows (predictions) to columns (references).

    Args:
        scores: (n, m), higher is better.
        method: ``hungarian`` maximises the total score (SDG-Eval, App. C). ``greedy`` takes pairs by falling score; of
            equal scores the one with the higher column first, then the higher row, as the paper's released evaluation
            code does, so its result depends on the order of rows and columns.

    Returns:
        Row and column indices of the min(n, m) pairs.
    """
    s = np.asarray(scores, dtype=np.float64)
    if method == "hungarian":
        return linear_sum_assignment(s, maximize=True)
    rows, columns = (index.ravel() for index in np.indices(s.shape))
    taken = _greedy(rows, columns, s.ravel())
    return rows[taken], columns[taken]


def _content(defect: Defect) -> tuple[Any, ...]:
    return defect.box, defect.importance or 0, defect.reason


def match(
    predictions: DefectSet | Iterable[Defect | Mapping[str, Any]],
    references: DefectSet | Iterable[Defect | Mapping[str, Any]],
    by: Score = "iou",
    method: Method = "hungarian",
) -> list[tuple[int, int, float]]:
    """Match the predicted defects of one image with its references, each type for itself.

    Of several Hungarian optima the one is taken that the defects' content decides, not their order in the list.

    Args:
        predictions: the predicted defects.
        references: the true defects.
        by: ``iou`` (SDG-Eval, App. C) leaves out pairs that do not overlap, which no threshold would count;
            ``diou`` (the detector's reward, App. D) keeps all, since apart can still be near.
        method: ``hungarian`` or ``greedy``, see :func:`assign`.

    Returns:
        ``(index in predictions, index in references, score)`` by rising prediction index; no threshold is applied.

    Raises:
        ValueError: for an unknown ``by`` or ``method``, or more than :data:`MAX_CELLS` pairs of one type.

    Example:
        >>> p = [Defect((0, 0, 10, 5), "artifact"), Defect((0, 0, 10, 10), "misalignment")]
        >>> match(p, [Defect((0, 0, 10, 10), "artifact")])
        [(0, 0, 0.5)]
    """
    _one_of("by", by, get_args(Score))
    check_method(method)
    p, g = DefectSet.of(predictions), DefectSet.of(references)
    pairs: list[tuple[int, int, float]] = []
    for kind in TYPES:
        rows = [i for i, d in enumerate(p) if d.type is kind]
        columns = [j for j, d in enumerate(g) if d.type is kind]
        if not rows or not columns:
            continue
        _check_cells(len(rows), len(columns))
        if method == "hungarian":
            rows.sort(key=lambda i: _content(p[i]))
            columns.sort(key=lambda j: _content(g[j]))
        scores = getattr(boxes, by)([p[i].box for i in rows], [g[j].box for j in columns])
        pairs += [
            (rows[r], columns[c], float(scores[r, c]))
            for r, c in zip(*assign(scores, method), strict=True)
            if by == "diou" or scores[r, c] > 0
        ]
    return sorted(pairs)


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last + 1 index of each run of one value (all >= 0)."""
    return list(pairwise(np.flatnonzero(np.diff(values, prepend=-1, append=-1)).tolist()))


def _overlaps(
    p: NDArray[np.float64], g: NDArray[np.float64], start: NDArray[np.intp], stop: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The pairs of a row i and a column in start[i] .. stop[i] that overlap, by rising i, then j, and their IoU."""
    width = stop - start
    before = np.cumsum(width) - width
    found = [(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))]
    for low, high in _runs(before // _CELLS):
        i = np.repeat(np.arange(low, high), width[low:high])
        j = start[i] + before[low] + np.arange(len(i)) - before[i]
        common = boxes.area(np.hstack([np.maximum(p[i, :2], g[j, :2]), np.minimum(p[i, 2:], g[j, 2:])]))
        i, j, common = i[common > 0], j[common > 0], common[common > 0]
        found.append((i, j, common / (boxes.area(p[i]) + boxes.area(g[j]) - common)))
    i, j, iou = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return i, j, iou


def match_groups(
    predictions: ArrayLike,
    prediction_groups: ArrayLike,
    references: ArrayLike,
    reference_groups: ArrayLike,
    method: Method = "hungarian",
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Match on IoU within many groups (an image and a type) at once; what :func:`match` does, for a whole data set.

    Args:
        predictions: (n, 4) boxes on the 0..1000 grid.
        prediction_groups: (n,) group of each, whole numbers in rising order.
        references: (m, 4) boxes on the 0..1000 grid.
        reference_groups: (m,) group of each, in rising order.
        method: ``hungarian`` or ``greedy``, see :func:`assign`.

    Returns:
        Indices into ``predictions`` and ``references`` and the IoU of the pairs that overlap, three arrays (k,).

    Raises:
        ValueError: for an unknown ``method``, or more than :data:`MAX_CELLS` pairs in a group.
    """
    check_method(method)
    p, g = boxes.as_boxes(predictions), boxes.as_boxes(references)
    p_group, g_group = np.asarray(prediction_groups, dtype=np.int64), np.asarray(reference_groups, dtype=np.int64)
    # Rows i of one group are first[i] .. last[i], the columns that they may take start[i] .. stop[i].
    first, last = (np.searchsorted(p_group, p_group, side) for side in ("left", "right"))
    start, stop = (np.searchsorted(g_group, p_group, side) for side in ("left", "right"))
    if len(p):
        fullest = int(np.argmax((last - first) * (stop - start)))
        _check_cells(int(last[fullest] - first[fullest]), int(stop[fullest] - start[fullest]))
    i, j, score = _overlaps(p, g, start, stop)

    if method == "greedy":  # the groups share neither rows nor columns: they may be walked through as one
        taken = _greedy(i, j, score)
        return i[taken], j[taken], score[taken]

    # Two boxes that overlap nothing but each other are a pair in every optimum; only the other groups need solving.
    contested = (np.bincount(i, minlength=len(p))[i] > 1) | (np.bincount(j, minlength=len(g))[j] > 1)
    unsolved = np.isin(first[i], first[i[contested]])
    solved = [np.flatnonzero(~unsolved)]
    overlaps = np.flatnonzero(unsolved)
    for low, high in _runs(first[i[overlaps]]):
        here = overlaps[low:high]
        head = i[here[0]]
        row, column = i[here] - first[head], j[here] - start[head]
        matrix = np.zeros((last[head] - first[head], stop[head] - start[head]))
        matrix[row, column] = score[here]
        assigned = np.zeros_like(matrix, dtype=bool)
        assigned[linear_sum_assignment(matrix, maximize=True)] = True
        solved.append(here[assigned[row, column]])
    kept = np.concatenate(solved)
    return i[kept], j[kept], score[kept]
