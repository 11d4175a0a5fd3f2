"""Predictions and references in any accepted form, as plain rows, one list of them an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sdg.boxes import GRID
from sdg.defects import TYPES, Defect, DefectSet
from sdg.response import ResponseFormatError, parse_response

Reference: TypeAlias = "DefectSet | Sequence[Defect | Mapping[str, Any]]"
Prediction: TypeAlias = "Reference | str"

_SCORED = ("box", "type", "reason", "importance")
_CODES = {kind.value: code for code, kind in enumerate(TYPES)}


Row: TypeAlias = "tuple[int, tuple[int, ...], int, str, str]"
"""One defect, in an order that sorts by content: index of its type in TYPES, box, importance (0 where it has none),
reason, subtype (empty where it has none; any text will do). A plain tuple, because there are many."""


class Answers(NamedTuple):
    """A set of predictions, read."""

    rows: list[list[Row]]
    readable: list[bool]
    """Per image, whether the prediction could be read."""
    strict: list[bool]
    """Per image, whether it passes the reward's format gate."""


def _plain_row(defect: dict[str, Any]) -> Row | None:
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
    return _CODES[kind], (x0, y0, x1, y1), importance or 0, reason, str(get("subtype") or "")


def _row(defect: Any) -> Row:
    """The scored fields of a defect; what is not plain goes through Defect, which converts it or names the fault."""
    if type(defect) is dict and (row := _plain_row(defect)) is not None:
        return row
    if isinstance(defect, Defect):
        subtype = defect.subtype
    elif isinstance(defect, Mapping):
        subtype = defect.get("subtype")
        defect = Defect.from_json({name: defect[name] for name in _SCORED if name in defect})
    else:
        raise ValueError(f"{defect!r:.80} is neither a Defect nor a dictionary of {', '.join(_SCORED)}")
    return TYPES.index(defect.type), defect.box, defect.importance or 0, defect.reason, str(subtype or "")


def _rows(defects: Any, where: str) -> list[Row]:
    if not isinstance(defects, (DefectSet, list, tuple)) and (
        isinstance(defects, str | bytes | Mapping | Defect) or not isinstance(defects, Iterable)
    ):
        raise ValueError(f"{where}={defects!r:.80} is neither a DefectSet nor a list of defects")
    rows: list[Row] = []
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


def _read_prediction(prediction: Any, where: str) -> tuple[list[Row], bool, bool]:
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


def _read_reference(reference: Any, where: str) -> list[Row]:
    if isinstance(reference, DefectSet) and reference.parse_error is not None:
        raise ValueError(f"{where} could not be read ({reference.parse_error}): that is not the same as no defect")
    return _rows(reference, where)


def _entries(values: Any, name: str) -> list[Any]:
    if isinstance(values, str | bytes | Mapping | DefectSet) or not isinstance(values, Iterable):
        raise ValueError(f"{name} is a {type(values).__name__}, not a list with one entry an image")
    return list(values)


def read_predictions(predictions: Iterable[Prediction], name: str) -> Answers:
    """Read one prediction an image; a response that cannot be read, and a set with a parse_error, has no rows.

    Args:
        predictions: see :meth:`sdg.SDGEval.compute`.
        name: what errors call them.

    Raises:
        ValueError: naming the image, the defect, the field and the value.
    """
    read = [_read_prediction(p, f"{name}[{k}]") for k, p in enumerate(_entries(predictions, name))]
    return Answers([r[0] for r in read], [r[1] for r in read], [r[2] for r in read])


def read_references(references: Iterable[Reference], name: str = "references") -> list[list[Row]]:
    """Read one reference an image.

    Raises:
        ValueError: as :func:`read_predictions`, and for a reference with a parse_error.
    """
    return [_read_reference(r, f"{name}[{k}]") for k, r in enumerate(_entries(references, name))]
