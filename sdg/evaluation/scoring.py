"""From files to a report: the way that the shell and the page share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdg.evaluation import files
from sdg.evaluation.counts import ImageCounts
from sdg.evaluation.files import Order, PredictionLine, ReferenceLine
from sdg.evaluation.order import look_transposed, transposed_pairs
from sdg.evaluation.report import BY_SUBTYPE, BY_TIER, Report
from sdg.evaluation.sdg_eval import SDGEval

FEW = 12
"""A field with more values than this is no break-down that anyone reads, unless it is asked for."""

_NO_COLUMNS = {*files.KEYS, *files.TEXTS, "defects", "caption", "error", "parse_error", BY_TIER, BY_SUBTYPE}


@dataclass(frozen=True)
class Lines:
    """References, and one or two sets of predictions in their order.

    Args:
        references: one line an image.
        predictions: by key, ``predictions`` and perhaps ``against``, one line an image in the references' order.
    """

    references: list[ReferenceLine]
    predictions: Mapping[str, list[PredictionLine]]

    def columns(self) -> list[str]:
        """Break-downs that these lines offer: fields of few values, and the references' own tier and subtype."""
        defects = [defect for line in self.references for defect in line.defects]
        found = [name for name in dict.fromkeys(f for line in self.references for f in line.fields) if self._few(name)]
        for own, field in ((BY_TIER, "importance"), (BY_SUBTYPE, "subtype")):
            found += [own] if any(isinstance(d, Mapping) and d.get(field) for d in defects) else []
        return found

    def _few(self, name: str) -> bool:
        values = [line.fields.get(name) for line in self.references]
        if name in _NO_COLUMNS or not all(value is None or isinstance(value, str | int) for value in values):
            return False
        return 1 < len(set(values)) <= min(FEW, len(values) // 2)


@dataclass(frozen=True)
class Scored:
    """What was found.

    Args:
        report: all that is said of it.
        tables: by key, the counts by image behind it.
        transposed: by key, where the coordinates look exchanged, how many boxes fit as they are and how many exchanged.
    """

    report: Report
    tables: Mapping[str, ImageCounts]
    transposed: Mapping[str, tuple[int, int]]


def read_lines(predictions: Mapping[str, Path], references: Path, order: Order = "xyxy") -> Lines:
    """Read files and bring their lines together.

    Args:
        predictions: files by key, ``predictions`` and perhaps ``against``.
        references: the file of references.
        order: of the coordinates in the predictions.

    Raises:
        OSError: where a file cannot be opened.
        ValueError: as :mod:`sdg.evaluation.files`.
    """
    truth = files.load_references(references)
    aligned = {}
    for key, path in predictions.items():
        lines = files.load_predictions(path, order)
        try:
            aligned[key] = files.align(lines, truth)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return Lines(truth, aligned)


def score_lines(lines: Lines, metric: SDGEval, names: Mapping[str, str], by: Iterable[str] = ()) -> Scored:
    """Score what was read.

    Args:
        lines: from :func:`read_lines`.
        metric: how; its ``ci`` is the level of all intervals.
        names: what people call each set of predictions, by key.
        by: fields to break down by; ``tier`` and ``subtype`` are those of the references.

    Raises:
        ValueError: where no line has such a field, and as :meth:`sdg.SDGEval.compute`.
        EmbedderNotFound: where the embedder cannot be loaded.
    """
    columns: dict[str, list[Any] | None] = {
        name: None
        if name in (BY_TIER, BY_SUBTYPE)
        else files.column(name, lines.references, lines.predictions["predictions"])
        for name in by
    }
    true = [line.defects for line in lines.references]
    sets = {key: [line.defects for line in found] for key, found in lines.predictions.items()}
    tables = metric.count_each(sets, true)
    pairs = {key: transposed_pairs(found, true) for key, found in sets.items()}
    transposed = {key: pair for key, pair in pairs.items() if look_transposed(*pair)}
    return Scored(Report.of(tables, names, columns, metric.ci), tables, transposed)
