"""The table of counts by image: all that the metrics, their intervals, comparisons and break-downs need to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdg.defects import TYPES
from sdg.embedding import Embedder, embed_unique
from sdg.evaluation.reading import Answers, Row
from sdg.matching import Method, match_groups

TEXT_IOU = 0.1
"""Pairs from this IoU on are compared in reason and importance (App. C)."""


@dataclass(frozen=True)
class TrueDefects:
    """All references, image after image, and how well each was met: the table's finer half.

    Args:
        image: (m,) index of the image, rising.
        kind: (m,) index of the type in TYPES.
        iou: (m,) IoU with the prediction that it is matched with, 0 without one.
        importance: (m,) 1..100, 0 where it has none.
        subtype: m names, empty where it has none.
    """

    image: NDArray[np.int64]
    kind: NDArray[np.int64]
    iou: NDArray[np.float64]
    importance: NDArray[np.int64]
    subtype: tuple[str, ...]


@dataclass(frozen=True)
class ImageCounts:
    """Counts and sums by image.

    Args:
        columns: name to (n_images,). For t in artifact, misalignment: ``t/predicted`` and ``t/true`` boxes;
            ``t/matched@tau`` pairs; ``t/images_predicted``, ``images_true``, ``images_both``, ``images_clean``,
            ``images_clean_kept``, 0 or 1; ``t/described`` pairs with two reasons and the sum ``t/cosine`` over them;
            ``t/weighed`` pairs with two importances and the sum ``t/importance_kept`` of 100 - their difference.
            ``readable``, ``strict`` and ``images``, 0 or 1.
        true: the references one by one.
        iou_thresholds: the taus of ``t/matched@tau``.
        matching: how predictions were matched with references.
        embedder: name of what compared the reasons, or None.
        embedder_note: why there is none.
    """

    columns: Mapping[str, NDArray[np.float64]]
    true: TrueDefects
    iou_thresholds: tuple[float, ...]
    matching: Method
    embedder: str | None = None
    embedder_note: str | None = None

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.columns["images"])

    def rows(self) -> NDArray[np.float64]:
        """(n_images, n_columns), columns in the order of ``columns``."""
        return np.stack(list(self.columns.values()), axis=1)

    def take(self, images: ArrayLike) -> ImageCounts:
        """The table of some of the images, in the same order.

        Args:
            images: (n_images,) booleans.
        """
        kept = np.asarray(images, dtype=bool)
        if kept.shape != (len(self),):
            raise ValueError(f"images has shape {kept.shape}, not one boolean for each of {len(self)} images")
        place, here = np.cumsum(kept) - 1, kept[self.true.image]
        true = TrueDefects(
            image=place[self.true.image[here]],
            kind=self.true.kind[here],
            iou=self.true.iou[here],
            importance=self.true.importance[here],
            subtype=tuple(name for name, keep in zip(self.true.subtype, here.tolist(), strict=True) if keep),
        )
        columns = {name: column[kept] for name, column in self.columns.items()}
        return ImageCounts(columns, true, self.iou_thresholds, self.matching, self.embedder, self.embedder_note)


class _Side(NamedTuple):
    """All predictions, or all references, image after image: a group is an image and a type."""

    group: NDArray[np.int64]
    box: NDArray[np.float64]
    importance: NDArray[np.int64]
    reason: Sequence[str]
    subtype: Sequence[str]


def _side(images: Sequence[Sequence[Row]], method: Method) -> _Side:
    """Rows of all images as columns, sorted by image and type.

    Where several matchings are optimal the order of rows decides. So Hungarian matching gets them sorted by content,
    and the order in which a model lists its defects changes nothing; greedy matching is defined on the given order.
    """
    key = itemgetter(0) if method == "greedy" else None
    rows = [row for image in images for row in sorted(image, key=key)]
    image = np.repeat(np.arange(len(images)), [len(image) for image in images])
    kind, box, importance, reason, subtype = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return _Side(
        group=image * len(TYPES) + np.array(kind, dtype=np.int64),
        box=np.fromiter(chain.from_iterable(box), np.float64, 4 * len(rows)).reshape(-1, 4),
        importance=np.array(importance, dtype=np.int64),
        reason=reason,
        subtype=subtype,
    )


def count_images(
    answers: Mapping[str, Answers],
    references: Sequence[Sequence[Row]],
    iou_thresholds: tuple[float, ...],
    matching: Method,
    embedder: Embedder | None,
    embedder_note: str | None = None,
) -> dict[str, ImageCounts]:
    """Match the predictions of each image with its references and count, for one or more sets of predictions.

    All sets go through together, so that each distinct reason is embedded once.

    Args:
        answers: sets of predictions by name, each as long as ``references``.
        references: rows of each image.
        iou_thresholds: IoU from which on a pair counts as matched.
        matching: see :func:`sdg.matching.assign`.
        embedder: what compares reasons, or None.
        embedder_note: why there is none.

    Returns:
        A table for each set.

    Raises:
        ValueError: for more pairs of one type in one image than :data:`sdg.matching.MAX_CELLS`, naming the image, and
            for an embedder that returns another shape than (n, d) or numbers that are not finite.
    """
    names, images = list(answers), len(references)
    p = _side([rows for a in answers.values() for rows in a.rows], matching)
    g = _side(list(references) * len(names), matching)
    shape = (images * len(names), len(TYPES))

    def per_image(group: NDArray[np.int64], weights: NDArray[Any] | None = None) -> NDArray[np.float64]:
        return np.bincount(group, weights, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    predicted, true = per_image(p.group), per_image(g.group)
    columns = {
        "predicted": predicted,
        "true": true,
        "images_predicted": predicted > 0,
        "images_true": true > 0,
        "images_both": (predicted > 0) & (true > 0),
        "images_clean": true == 0,
        "images_clean_kept": (true == 0) & (predicted == 0),
    }
    try:
        i, j, iou = match_groups(p.box, p.group, g.box, g.group, matching)
    except ValueError as error:
        owner, fullest = divmod(int(np.argmax(predicted * true)) // len(TYPES), images)
        raise ValueError(f"{names[owner]}[{fullest}]: {error}") from None
    # On the grid an IoU is a ratio of whole numbers below 2e6 that is rounded once, as the threshold is: the
    # comparison is exact, 0.1 included.
    for tau in iou_thresholds:
        columns[f"matched@{tau:g}"] = per_image(p.group[i[iou >= tau]])
    met = np.zeros(len(g.group))
    met[j] = iou
    i, j = i[iou >= TEXT_IOU], j[iou >= TEXT_IOU]

    weighed = (p.importance[i] > 0) & (g.importance[j] > 0)
    group, gap = p.group[i[weighed]], np.abs(p.importance[i] - g.importance[j])[weighed]
    columns |= {"weighed": per_image(group), "importance_kept": per_image(group, 100 - gap)}

    texts = [(k, p.reason[a], g.reason[b]) for k, (a, b) in enumerate(zip(i, j, strict=True)) if embedder]
    texts = [(k, said, meant) for k, said, meant in texts if said.strip() and meant.strip()]
    group = p.group[i[[k for k, _, _ in texts]]]
    unit = embed_unique([said for _, said, _ in texts] + [meant for _, _, meant in texts], embedder)
    cosine = np.sum(unit[: len(texts)] * unit[len(texts) :], axis=1)
    columns |= {"described": per_image(group), "cosine": per_image(group, cosine)}

    table = {f"{t}/{name}": column[:, k] * 1.0 for name, column in columns.items() for k, t in enumerate(TYPES)}
    table["readable"] = np.array([ok for a in answers.values() for ok in a.readable], dtype=np.float64)
    table["strict"] = np.array([ok for a in answers.values() for ok in a.strict], dtype=np.float64)
    table["images"] = np.ones(shape[0])
    image, kind = np.divmod(g.group, len(TYPES))
    true_defects = TrueDefects(image, kind, met, g.importance, tuple(g.subtype))
    name = embedder.name if embedder else None
    counts = ImageCounts(table, true_defects, iou_thresholds, matching, name, embedder_note)
    owners = np.repeat(np.arange(len(names)), images)
    return {names[k]: counts.take(owners == k) for k in range(len(names))}
