"""SDG-Eval (section 3.2, App. C): how well predicted defects agree with the true ones, each type for itself.

Every metric is a ratio of sums over images. So the images are reduced to a table of counts first; a metric, or its
spread over resampled images, is then arithmetic on sums of the table's rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sdg.boxes import GRID
from sdg.defects import TYPES, Defect, DefectSet
from sdg.embedding import Embedder, EmbedderNotFound, embed_unique, load_embedder
from sdg.matching import Method, check_method, match_groups
from sdg.response import ResponseFormatError, parse_response

TEXT_IOU = 0.1
"""Pairs from this IoU on are compared in reason and importance (App. C)."""

RESAMPLES = 1000
"""Bootstrap resamples behind an interval; their seed is fixed, so that a result can be repeated."""

_SEED = 0
_BLOCK = 2_000_000

Reference: TypeAlias = "DefectSet | Sequence[Defect | Mapping[str, Any]]"
Prediction: TypeAlias = "Reference | str"
_SCORED = ("box", "type", "reason", "importance")
_CODES = {kind.value: code for code, kind in enumerate(TYPES)}
_Row = tuple[int, tuple[int, ...], int, str]
"""One defect: index of its type in TYPES, box, importance (0 where it has none), reason."""


class _Side(NamedTuple):
    """All predictions, or all references, image after image: a group is an image and a type."""

    group: NDArray[np.int64]
    box: NDArray[np.float64]
    importance: NDArray[np.int64]
    reason: list[str]


def _plain_row(defect: dict[str, Any]) -> _Row | None:
    """A dictionary's row where its values are good as they stand; building a Defect costs more than scoring it."""
    get = defect.get
    box, kind, reason, importance = get("box"), get("type"), get("reason") or "", get("importance")
    if not (isinstance(box, (list, tuple)) and len(box) == 4 and isinstance(kind, str) and isinstance(reason, str)):
        return None
    x0, y0, x1, y1 = box
    if not type(x0) is type(y0) is type(x1) is type(y1) is int or not (0 <= x0 < x1 <= GRID and 0 <= y0 < y1 <= GRID):
        return None
    if kind not in _CODES or not (importance is None or (type(importance) is int and 1 <= importance <= 100)):
        return None
    return _CODES[kind], (x0, y0, x1, y1), importance or 0, reason


def _row(defect: Any) -> _Row:
    """The scored fields of a defect; what is not plain goes through Defect, which converts it or names the fault."""
    if type(defect) is dict and (row := _plain_row(defect)) is not None:
        return row
    if not isinstance(defect, Defect):
        if not isinstance(defect, Mapping):
            raise ValueError(f"{defect!r:.80} is neither a Defect nor a dictionary of {', '.join(_SCORED)}")
        defect = Defect.from_json({name: defect[name] for name in _SCORED if name in defect})
    return TYPES.index(defect.type), defect.box, defect.importance or 0, defect.reason


def _rows(defects: Any, where: str) -> list[_Row]:
    if not isinstance(defects, (DefectSet, list, tuple)) and (
        isinstance(defects, str | bytes | Mapping | Defect) or not isinstance(defects, Iterable)
    ):
        raise ValueError(f"{where}={defects!r:.80} is neither a DefectSet nor a list of defects")
    rows: list[_Row] = []
    try:
        rows.extend(map(_row, defects))
    except ValueError as error:
        raise ValueError(f"{where}: defect {len(rows)}: {error}") from None
    return rows


def _passes_gate(text: str) -> bool:
    try:
        parse_response(text, strict=True)
    except ResponseFormatError:
        return False
    return True


def _read_prediction(prediction: Any, where: str) -> tuple[list[_Row], bool, bool]:
    """Rows of a prediction, whether it could be read, and whether it passes the strict gate."""
    if isinstance(prediction, str):
        try:
            return _rows(parse_response(prediction), where), True, _passes_gate(prediction)
        except ResponseFormatError:
            return [], False, False
    if isinstance(prediction, DefectSet):
        readable = prediction.parse_error is None
        strict = readable if prediction.raw is None else _passes_gate(prediction.raw)
        return _rows(prediction, where) if readable else [], readable, strict
    return _rows(prediction, where), True, True


def _read_reference(reference: Any, where: str) -> list[_Row]:
    if isinstance(reference, DefectSet) and reference.parse_error is not None:
        raise ValueError(f"{where} could not be read ({reference.parse_error}): that is not the same as no defect")
    return _rows(reference, where)


def _side(images: list[list[_Row]], method: Method) -> _Side:
    """Rows of all images as columns, sorted by image and type.

    Where several matchings are optimal the order of rows decides. So Hungarian matching gets them sorted by content,
    and the order in which a model lists its defects changes nothing; greedy matching is defined on the given order.
    """
    key = itemgetter(0) if method == "greedy" else None
    rows = [row for image in images for row in sorted(image, key=key)]
    image = np.repeat(np.arange(len(images)), [len(image) for image in images])
    kind, box, importance, reason = zip(*rows, strict=True) if rows else ((), (), (), ())
    return _Side(
        group=image * len(TYPES) + np.array(kind, dtype=np.int64),
        box=np.fromiter(chain.from_iterable(box), np.float64, 4 * len(rows)).reshape(-1, 4),
        importance=np.array(importance, dtype=np.int64),
        reason=list(reason),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _metrics(s: Mapping[str, NDArray[np.float64]], thresholds: Iterable[float]) -> dict[str, NDArray[np.float64]]:
    """Metrics from the table's column sums, each (b,) for b samples of images; NaN where the denominator is 0."""
    out = {}
    for t in TYPES:
        predicted, true = s[f"{t}/predicted"], s[f"{t}/true"]
        out[f"{t}/det_type_f1"] = _ratio(2 * s[f"{t}/images_both"], s[f"{t}/images_predicted"] + s[f"{t}/images_true"])
        out[f"{t}/cln_acc"] = _ratio(s[f"{t}/images_clean_kept"], s[f"{t}/images_clean"])
        for tau in thresholds:
            matched = s[f"{t}/matched@{tau:g}"]
            out[f"{t}/box_precision@{tau:g}"] = _ratio(matched, predicted)
            out[f"{t}/box_recall@{tau:g}"] = _ratio(matched, true)
            out[f"{t}/box_f1@{tau:g}"] = _ratio(2 * matched, predicted + true)
        out[f"{t}/desc_cos@{TEXT_IOU:g}"] = _ratio(s[f"{t}/cosine"], s[f"{t}/described"])
        out[f"{t}/imp_acc@{TEXT_IOU:g}"] = _ratio(s[f"{t}/importance_kept"], 100 * s[f"{t}/weighed"])
    out["parse_rate"] = _ratio(s["readable"], s["images"])
    out["strict_rate"] = _ratio(s["strict"], s["images"])
    return out


class SDGEval:
    """SDG-Eval: detection, clean accuracy, boxes, reasons and importances of predicted defects.

    Predictions and references are matched one to one, per image and type, so that the total IoU is largest. That is
    the paper's definition; it can match fewer pairs above a threshold than matching for that threshold would.

    Args:
        embedder: what turns reasons into vectors, see :func:`sdg.embedding.load_embedder`: a name, a function, an
            object with ``.encode``, ``auto``, or None for no DescCos. Cosines of different embedders cannot be
            compared; the paper's numbers are of Qwen/Qwen3-Embedding-0.6B, mean-pooled.
        matching: ``hungarian`` (the paper) or ``greedy`` (its released evaluation code; depends on the order of boxes).
        ci: None, or the level of percentile bootstrap intervals over images, such as 0.95.
        iou_thresholds: IoU from which on a matched pair counts, for the box metrics.

    Raises:
        ValueError: naming the argument and its value.

    Example:
        >>> truth = [{"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}]
        >>> result = SDGEval(embedder=None).compute(predictions=[truth, []], references=[truth, truth])
        >>> result["artifact/box_precision@0.5"], result["artifact/box_recall@0.5"]
        (1.0, 0.5)
    """

    def __init__(
        self,
        embedder: Any = "auto",
        matching: Method = "hungarian",
        ci: float | None = None,
        iou_thresholds: Sequence[float] = (0.1, 0.5),
    ) -> None:
        check_method(matching)
        if ci is not None and not 0 < ci < 1:
            raise ValueError(f"ci={ci!r} is not a level between 0 and 1, such as 0.95")
        if not all(0 < tau <= 1 for tau in iou_thresholds):
            raise ValueError(f"iou_thresholds={tuple(iou_thresholds)!r} must lie above 0 and not above 1")
        self.matching: Method = matching
        self.ci = ci
        self.iou_thresholds = tuple(iou_thresholds)
        self.embedder: Embedder | None = None
        self._no_embedder = "no embedder was asked for (embedder=None)"
        try:
            self.embedder = None if embedder is None else load_embedder(embedder)
        except EmbedderNotFound as error:
            self._no_embedder = str(error)

    def compute(self, *, predictions: Iterable[Prediction], references: Iterable[Reference]) -> dict[str, Any]:
        """Score predictions against references, one of each per image, in the same order.

        Args:
            predictions: per image a DefectSet, a list of defects or of their dictionaries (``box, type, reason,
                importance``), or a model's response. A response that cannot be read, and a set with a ``parse_error``,
                is an empty prediction that lowers ``parse_rate``.
            references: per image a DefectSet or a list, as above.

        Returns:
            For t in ``artifact``, ``misalignment``: ``t/det_type_f1``, ``t/cln_acc``, ``t/box_precision@tau``,
            ``t/box_recall@tau``, ``t/box_f1@tau``, ``t/desc_cos@0.1`` (in -1..1, over matched pairs where both sides
            have a reason), ``t/imp_acc@0.1`` (over matched pairs where both have an importance). ``parse_rate``, the
            share that can be read, and ``strict_rate``, the share that passes the reward's format gate (a set without
            its ``raw`` text passes when it could be read). All in 0..1; NaN where the denominator is empty.
            ``n_images``; ``embedder``, its name, or None and then ``desc_cos_note`` says why. With ``ci``,
            ``KEY/ci`` = [low, high] for each metric, over the resamples on which it is defined.

        Raises:
            ValueError: naming the image, the defect, the field and the value; for lists of unequal length.
        """
        for name, value in (("predictions", predictions), ("references", references)):
            if isinstance(value, str | bytes | Mapping | DefectSet) or not isinstance(value, Iterable):
                raise ValueError(f"{name} is a {type(value).__name__}, not a list with one entry an image")
        predictions, references = list(predictions), list(references)
        if len(predictions) != len(references):
            raise ValueError(
                f"{len(predictions)} predictions and {len(references)} references: one of each per image is needed "
                "(an empty list where there is no defect)"
            )
        read = [_read_prediction(p, f"predictions[{k}]") for k, p in enumerate(predictions)]
        true = [_read_reference(r, f"references[{k}]") for k, r in enumerate(references)]
        table = self._table(_side([r[0] for r in read], self.matching), _side(true, self.matching), len(read))
        table |= {
            "readable": np.array([r[1] for r in read], dtype=np.float64),
            "strict": np.array([r[2] for r in read], dtype=np.float64),
            "images": np.ones(len(read)),
        }
        sums = {name: column.sum(keepdims=True) for name, column in table.items()}
        result: dict[str, Any] = {key: float(value[0]) for key, value in _metrics(sums, self.iou_thresholds).items()}
        result |= {"n_images": len(read), "embedder": self.embedder.name if self.embedder else None}
        if self.embedder is None:
            result["desc_cos_note"] = self._no_embedder
        return result | (self._intervals(table, self.ci) if self.ci else {})

    def _table(self, p: _Side, g: _Side, images: int) -> dict[str, NDArray[np.float64]]:
        """Counts and sums by image, (images,) each: all that the metrics need to know."""
        shape = (images, len(TYPES))

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
        i, j, iou = match_groups(p.box, p.group, g.box, g.group, self.matching)
        # On the grid an IoU is a ratio of whole numbers below 2e6 that is rounded once, as the threshold is: the
        # comparison is exact, 0.1 included.
        for tau in self.iou_thresholds:
            columns[f"matched@{tau:g}"] = per_image(p.group[i[iou >= tau]])
        i, j = i[iou >= TEXT_IOU], j[iou >= TEXT_IOU]

        weighed = (p.importance[i] > 0) & (g.importance[j] > 0)
        group, gap = p.group[i[weighed]], np.abs(p.importance[i] - g.importance[j])[weighed]
        columns |= {"weighed": per_image(group), "importance_kept": per_image(group, 100 - gap)}

        texts = [(k, p.reason[a], g.reason[b]) for k, (a, b) in enumerate(zip(i, j, strict=True)) if self.embedder]
        texts = [(k, said, meant) for k, said, meant in texts if said.strip() and meant.strip()]
        group = p.group[i[[k for k, _, _ in texts]]]
        unit = embed_unique([said for _, said, _ in texts] + [meant for _, _, meant in texts], self.embedder)
        cosine = np.sum(unit[: len(texts)] * unit[len(texts) :], axis=1)
        columns |= {"described": per_image(group), "cosine": per_image(group, cosine)}
        return {f"{t}/{name}": column[:, k] * 1.0 for name, column in columns.items() for k, t in enumerate(TYPES)}

    def _intervals(self, table: Mapping[str, NDArray[np.float64]], level: float) -> dict[str, list[float]]:
        """Percentile intervals of the metrics over images drawn with replacement."""
        rows = np.stack(list(table.values()), axis=1)
        images, random = len(rows), np.random.default_rng(_SEED)
        block = max(1, _BLOCK // max(images, 1))
        weights = (
            random.multinomial(images, np.full(images, 1 / images), size=min(block, RESAMPLES - done))
            for done in range(0, RESAMPLES if images else 0, block)
        )
        sums = np.concatenate([np.zeros((0, rows.shape[1])), *(w @ rows for w in weights)])
        metrics = _metrics(dict(zip(table, sums.T, strict=True)), self.iou_thresholds)
        tails = (0.5 - level / 2, 0.5 + level / 2)
        intervals = {}
        for key, values in metrics.items():
            defined = values[~np.isnan(values)]
            intervals[f"{key}/ci"] = np.quantile(defined, tails).tolist() if defined.size else [np.nan, np.nan]
        return intervals
