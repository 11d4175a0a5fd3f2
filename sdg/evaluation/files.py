"""Predictions and references in JSON lines: reading them, and finding out which belong together.

A line is an object. References have ``defects``, a list of ``box`` (x0, y0, x1, y1 on the 0..1000 grid), ``type``,
``reason`` and ``importance``. Predictions have the same, or the model's text as ``response``, ``raw_response`` or
``raw``, or are what ``sdg detect --json`` prints. ``id`` or ``image`` says which picture it is of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sdg.defects import Defect, DefectSet
from sdg.evaluation.reading import Reference
from sdg.response import ResponseFormatError, parse_response

Order = Literal["xyxy", "yxyx"]

TEXTS = ("response", "raw_response", "raw")
"""Fields that hold a model's text, in the order in which they are looked for."""

KEYS = ("id", "image")
"""Fields that say which picture a line is of, in the order in which they are looked for."""

_PLACES: dict[str, tuple[int, int, int, int]] = {"xyxy": (0, 1, 2, 3), "yxyx": (1, 0, 3, 2)}
_SHOWN = 5


@dataclass(frozen=True)
class PredictionLine:
    """A line of predictions.

    Args:
        where: file and line, for errors.
        fields: all that the line says.
        defects: what it predicts; with a ``parse_error`` where that could not be read.
    """

    where: str
    fields: Mapping[str, Any]
    defects: DefectSet


@dataclass(frozen=True)
class ReferenceLine:
    """A line of references.

    Args:
        where: file and line, for errors.
        fields: all that the line says.
        defects: its defects.
    """

    where: str
    fields: Mapping[str, Any]
    defects: Reference


def load_predictions(path: str | Path, order: Order = "xyxy") -> list[PredictionLine]:
    """Read a file of predictions.

    A line with an ``error`` and no defects, an empty text and a text that cannot be read are predictions that could
    not be read: empty for the metrics, and counted.

    Args:
        path: the file.
        order: the order of coordinates in its boxes and texts. Lines of ``sdg detect --json`` declare theirs, which is
            xyxy whatever is said here.

    Raises:
        OSError: where the file cannot be opened.
        ValueError: naming file, line, defect, field and value.
    """
    return [
        PredictionLine(where, fields, _located(where, _predicted, fields, order)) for where, fields in _objects(path)
    ]


def load_references(path: str | Path) -> list[ReferenceLine]:
    """Read a file of references; boxes are xyxy.

    Raises:
        OSError: where the file cannot be opened.
        ValueError: naming file, line, defect, field and value; for a line without defects, too: a clean picture has an
            empty list.
    """
    return [ReferenceLine(where, fields, _located(where, _true, fields)) for where, fields in _objects(path)]


def align(predictions: Sequence[PredictionLine], references: Sequence[ReferenceLine]) -> list[PredictionLine]:
    """The predictions in the order of the references.

    They belong together by ``id`` where both files have ids, else by ``image`` where both have that, else by line.

    Raises:
        ValueError: for lines without an id among lines that have one, ids that occur twice, ids that only one of the
            two has, and, by line, for files of unequal length.
    """
    both = [key for key in KEYS if all(any(key in line.fields for line in side) for side in (predictions, references))]
    if not both:
        if len(predictions) != len(references):
            raise ValueError(
                f"{len(predictions)} predictions and {len(references)} references, and no id in both that tells which "
                "belong together: give every line of both files an id, or every picture one line in each"
            )
        return list(predictions)
    key = both[0]
    answers, wanted = _by_key(predictions, key), _by_key(references, key)
    lacking, unknown = [k for k in wanted if k not in answers], [k for k in answers if k not in wanted]
    if lacking or unknown:
        said = [f"no prediction has the {key} {_some(lacking)} of the references"] if lacking else []
        said += [f"no reference has the {key} {_some(unknown)} of the predictions"] if unknown else []
        hint = ' (a picture without an answer is a line with its id and an "error")' if lacking else ""
        raise ValueError("; ".join(said) + hint)
    return [answers[k] for k in wanted]


def column(name: str, references: Sequence[ReferenceLine], predictions: Sequence[PredictionLine]) -> list[Any]:
    """The values of a field, one an image: the references' where they have it, else the predictions'.

    Args:
        name: the field.
        references: lines.
        predictions: lines, aligned with them.

    Raises:
        ValueError: where no line has it, naming those that there are.
    """
    for lines in (references, predictions):
        if any(name in line.fields for line in lines):
            return [line.fields.get(name) for line in lines]
    known = sorted({field for lines in (references, predictions) for line in lines for field in line.fields})
    raise ValueError(f"no line has a field {name!r} to break down by; there are {', '.join(known)}")


def _objects(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line stands, and its object; blank lines are passed over."""
    empty = True
    with Path(path).open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(_decoded(lines, path), start=1):
            if not line.strip():
                continue
            where, empty = f"{path}, line {number}", False
            try:
                fields = json.loads(line.rstrip())
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{where}: {error.msg} at column {error.colno}; a line holds one JSON object"
                ) from None
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}: {error}; a line holds one JSON object") from None
            if not isinstance(fields, dict):
                raise ValueError(f"{where}: a {type(fields).__name__}; a line holds one JSON object")
            yield where, fields
    if empty:
        raise ValueError(f"{path} holds no line")


def _decoded(lines: Iterable[str], path: str | Path) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})") from None


def _located(where: str, read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _items(fields: Mapping[str, Any]) -> list[Any]:
    items = fields["defects"]
    if not isinstance(items, list):
        raise ValueError(f"defects={items!r:.80} is not a list; no defect is an empty list")
    return items


def _defect(index: int, item: Any, order: Order) -> Defect:
    try:
        if not isinstance(item, Mapping):
            raise ValueError(f"{item!r:.80} is not an object with box, type, reason and importance")
        scored = {name: value for name, value in item.items() if name not in ("subtype", "confidence")}
        box = scored.get("box")
        if isinstance(box, list) and len(box) == 4:
            scored["box"] = [box[place] for place in _PLACES[order]]
        return Defect.from_json(scored)
    except ValueError as error:
        raise ValueError(f"defect {index}: {error}") from None


def _predicted(fields: Mapping[str, Any], order: Order) -> DefectSet:
    if fields.get("defects") is not None:
        failure, raw = fields.get("parse_error"), fields.get("raw")
        order = "xyxy" if "parse_error" in fields else order
        defects = tuple(_defect(index, item, order) for index, item in enumerate(_items(fields)))
        return DefectSet(
            defects, raw=raw if isinstance(raw, str) else None, parse_error=None if failure is None else str(failure)
        )
    if fields.get("error") is not None:
        return DefectSet(parse_error=str(fields["error"]))
    name = next((name for name in TEXTS if name in fields), None)
    if name is None:
        raise ValueError(f"no prediction: neither defects nor {', '.join(TEXTS)} nor an error; got {sorted(fields)}")
    text = fields[name]
    if text is None:
        return DefectSet(parse_error=f"{name} is null")
    if not isinstance(text, str):
        raise ValueError(f"{name}={text!r:.80} is not text; a list of defects is called defects")
    try:
        return parse_response(text, order=order)
    except ResponseFormatError as error:
        return DefectSet(raw=text, parse_error=str(error))


def _true(fields: Mapping[str, Any]) -> Reference:
    if fields.get("parse_error") is not None:
        raise ValueError(f"a reference that could not be read ({fields['parse_error']}) is not a reference")
    if fields.get("defects") is None:
        raise ValueError(
            f"no defects; a clean picture has an empty list, and a model's text is no reference; got {sorted(fields)}"
        )
    items = _items(fields)
    defects = [_defect(index, item, "xyxy") for index, item in enumerate(items)]
    # Not every set has the paper's subtypes, and a break-down by subtype takes any name.
    return [
        {
            "box": list(d.box),
            "type": d.type.value,
            "reason": d.reason,
            "importance": d.importance,
            "subtype": i.get("subtype"),
        }
        for d, i in zip(defects, items, strict=True)
    ]


def _by_key(lines: Sequence[Any], key: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines:
        value = line.fields.get(key)
        if value is None:
            raise ValueError(f"{line.where}: no {key}, though other lines have one")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{line.where}: {key}={value!r:.80} is neither text nor a whole number")
        if str(value) in found:
            raise ValueError(f"{line.where}: the {key} {value!r} is that of {found[str(value)].where} already")
        found[str(value)] = line
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
