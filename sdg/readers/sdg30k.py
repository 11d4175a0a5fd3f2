"""SDG-30K: JSON lines beside a folder of images, in the four field layouts of its released files.

``ann_translated_bboxes`` and ``artifact_bboxes`` + ``misalignment_bboxes`` are xyxy, ``gemini_*`` are yxyx; of ``gt_*``
nothing is said, so that the order is asked for.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdg.boxes import BoxOrder, reorder
from sdg.readers.convert import numbers
from sdg.readers.files import Pictures, first_keys, json_lines, split_of
from sdg.readers.raw import Broken, Layout, RawDefect, RawRecord, Raws
from sdg.response import ResponseFormatError, parse_response

IMAGE_FIELDS = ("filepath", "filename", "image_path")
TEXT_FIELDS = ("raw_response", "response")
BOX_FIELDS = ("box_2d", "bbox_2d")
TOGETHER = "ann_translated_bboxes"

GROUPS: dict[str, tuple[tuple[tuple[str, str | None], ...], BoxOrder | None]] = {
    "ann": (((TOGETHER, None),), "xyxy"),
    "plain": ((("artifact_bboxes", "artifact"), ("misalignment_bboxes", "misalignment")), "xyxy"),
    "gt": ((("gt_artifact_bboxes", "artifact"), ("gt_misalignment_bboxes", "misalignment")), None),
    "gemini": ((("gemini_artifact_bboxes", "artifact"), ("gemini_misalignment_bboxes", "misalignment")), "yxyx"),
}
"""Names of the field layouts: fields, the label that each of them stands for, and the order of their boxes."""


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted((path / "annotations").glob("*.jsonl")) or sorted(path.glob("*.jsonl"))


def _group(fields: Container[str]) -> str | None:
    return next((name for name, (keys, _) in GROUPS.items() if any(key in fields for key, _ in keys)), None)


def _recognise(path: Path) -> bool:
    if path.is_file() and path.suffix != ".jsonl":
        return False
    return any(_group(first_keys(file)) is not None for file in _files(path)[:1])


def _open(
    path: Path,
    split: str | None = None,
    *,
    image_folder: str | Path | None = None,
    fields: str | None = None,
    text_order: BoxOrder = "xyxy",
) -> Raws:
    """Open a snapshot, one of its annotation files, or the like of one.

    Args:
        path: the folder with ``annotations/``, or a file of JSON lines.
        split: ``train`` or ``test``.
        image_folder: where the images are, if not beside the annotations.
        fields: one of :data:`GROUPS`, where a record has several; the first of them otherwise.
        text_order: order of boxes in the model's text, which only the check of the order looks at.
    """
    if fields is not None and fields not in GROUPS:
        raise ValueError(f"fields={fields!r} is none of {', '.join(GROUPS)}")
    reorder([], text_order)
    files = _files(path)
    if split is not None and path.is_dir() and not any(split_of(file) == split for file in files):
        found = ", ".join(file.name for file in files) or "nothing"
        raise FileNotFoundError(
            f"{path / 'annotations' / f'{split}.jsonl'} is missing; SDG-30K has ROOT/annotations/{{train,test}}.jsonl, "
            f"there is {found}"
        )
    root = path if path.is_dir() else path.parent
    pictures = Pictures(image_folder, root, root / "images", root.parent if root.name == "annotations" else None)

    def raws(annotations_alone: bool) -> Iterator[RawRecord | Broken]:
        for file in files:
            if split is None or path.is_file() or split_of(file) == split:
                for item in json_lines(file):
                    yield (
                        item if isinstance(item, Broken) else _raw(*item, split_of(file), pictures, fields, text_order)
                    )

    return raws


def _raw(
    where: str, row: Mapping[str, Any], split: str | None, pictures: Pictures, wanted: str | None, text_order: BoxOrder
) -> RawRecord | Broken:
    name = next((row[key] for key in IMAGE_FIELDS if isinstance(row.get(key), str) and row[key]), None)
    group = wanted or _group(row)
    try:
        defects = None if group is None else _defects(row, group)
        again = [box for other in GROUPS if other != group for box in _converted(row, other)]
    except TypeError as error:
        return Broken(where, str(error))
    text = next((row[key] for key in TEXT_FIELDS if isinstance(row.get(key), str) and row[key]), None)
    reasoning = None
    if text is not None:
        try:
            told = parse_response(text, order=text_order)
            reasoning = told.reasoning
            again += [[float(v) for v in d.box] for d in told]
        except ResponseFormatError:
            pass  # the text is beside the annotation, which stands
    return RawRecord(
        where=where,
        image=None if name is None else pictures.find(name),
        defects=defects,
        id=str(row.get("id") or name or ""),
        caption=row["caption"] if isinstance(row.get("caption"), str) else "",
        order=GROUPS[group][1] if group is not None else None,
        again=again,
        generator=next((str(row[key]) for key in ("generator", "model") if row.get(key)), None),
        split=split,
        reasoning=reasoning,
        extra={"provenance": {"layout": "SDG-30K", "file": name, "fields": group}},
    )


def _defects(row: Mapping[str, Any], group: str) -> list[RawDefect] | None:
    """The defects of a field layout; None where one of its fields is missing."""
    found = []
    for key, label in GROUPS[group][0]:
        items = row.get(key)
        if items is None:
            return None
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            raise TypeError(f"{key}={items!r:.60} is not a list of objects")
        for item in items:
            box = next((item[name] for name in BOX_FIELDS if name in item), None)
            reason = next((item[name] for name in ("description", "desc") if item.get(name) is not None), None)
            stated = item.get("label", label)
            found.append(RawDefect(box, stated, reason, item.get("importance"), item.get("subtype")))
    return found


def _converted(row: Mapping[str, Any], group: str) -> list[list[float]]:
    """Boxes of another field layout of the same record, where their order is declared."""
    order = GROUPS[group][1]
    if order is None or not any(key in row for key, _ in GROUPS[group][0]):
        return []
    boxes = [box for item in _defects(row, group) or () if (box := numbers(item.box)) is not None]
    found: list[list[float]] = reorder(boxes, order).tolist()
    return found


SDG_30K = Layout(
    name="sdg-30k",
    title="SDG-30K",
    looks_like="JSON lines (or a folder with annotations/train.jsonl) with ann_translated_bboxes, artifact_bboxes, "
    "gemini_artifact_bboxes or gt_artifact_bboxes",
    recognise=_recognise,
    open=_open,
    order=None,
    gives_reason=True,
    gives_importance=True,
)
