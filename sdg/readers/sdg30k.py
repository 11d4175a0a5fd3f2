"""SDG-30K's main layout: an image folder beside ``annotations/train.jsonl`` and ``annotations/test.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from sdg.boxes import BoxOrder, reorder
from sdg.defects import Defect, DefectSet
from sdg.records import Record
from sdg.response import ResponseFormatError, parse_response

IMAGE_FIELDS = ("filepath", "filename", "image_path")
TEXT_FIELDS = ("raw_response", "response")


def read_sdg30k(root: str | Path, split: str = "train", *, order: BoxOrder) -> Iterator[Record]:
    """Records of a local snapshot, one a line of ``annotations/SPLIT.jsonl``, read as they are asked for.

    Args:
        root: folder that holds the images and ``annotations/``.
        split: ``train`` or ``test``.
        order: order of ``box_2d`` in ``ann_translated_bboxes``; the released file says ``xyxy``.

    Raises:
        FileNotFoundError: for a missing annotation file or image, naming it.
        ValueError: naming file, line, defect, field and value.
    """
    root = Path(root)
    path = root / "annotations" / f"{split}.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; expected SDG-30K's layout, ROOT/annotations/{{train,test}}.jsonl")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield _record(json.loads(line), root, split, order)
                except (ValueError, KeyError) as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error


def _record(fields: dict[str, Any], root: Path, split: str, order: BoxOrder) -> Record:
    name = next((fields[key] for key in IMAGE_FIELDS if fields.get(key)), None)
    if name is None:
        raise ValueError(f"no image: none of {', '.join(IMAGE_FIELDS)} is set")
    if "ann_translated_bboxes" not in fields:
        raise ValueError("ann_translated_bboxes is missing; a clean image has an empty list")
    defects = []
    for index, item in enumerate(fields["ann_translated_bboxes"]):
        try:
            box = reorder([item["box_2d"]], order)[0].tolist()
            reason = item.get("description") or item.get("desc") or ""
            defects.append(Defect(box, item["label"], reason, item.get("importance")))
        except (KeyError, ValueError) as error:
            raise ValueError(f"defect {index}: {error}") from error
    caption = fields.get("caption") or ""
    with Image.open(root / name) as image:
        picture = image.convert("RGB")
    return Record(
        image=picture,
        caption=caption,
        defects=DefectSet(tuple(defects), caption=caption, reasoning=_reasoning(fields)),
        id=str(fields.get("id") or name),
        generator=fields.get("generator") or fields.get("model"),
        split=split,
        provenance={"layout": "SDG-30K", "file": name},
    )


def _reasoning(fields: dict[str, Any]) -> str | None:
    text = next((fields[key] for key in TEXT_FIELDS if fields.get(key)), None)
    if text is None:
        return None
    try:
        return parse_response(text).reasoning
    except ResponseFormatError:
        return None
