"""One annotated picture, and the row that it becomes in a data set.

A :class:`Record` is what readers yield, the microworld draws and training consumes. :func:`features` declares the
columns, :func:`to_row` and :func:`from_row` convert, so that records survive parquet, streaming and the Hub.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from sdg.defects import DefectSet

if TYPE_CHECKING:
    from datasets import Dataset, Features


@dataclass(frozen=True)
class Record:
    """A generated picture, the caption it was made from, and its defects.

    Args:
        image: RGB picture.
        caption: the prompt; empty where none is known.
        defects: the true defects, boxes on the 0..1000 grid; ``defects.reasoning`` is the think text. A clean picture
            has an empty set; a picture that nobody looked at has no record.
        id: unique within the data set.
        generator: name of the model that made the picture.
        split: ``train``, ``validation`` or ``test``.
        kinds: finer name of each defect, aligned with ``defects`` (the microworld's ``smear`` and the like), or empty.
        objects: what the picture shows, back to front, as ``{"kind", "colour", "box"}``; known for drawn pictures only.
        clean_image: the same scene without artifacts; known for drawn pictures only.
        provenance: where the record comes from, JSON values.
    """

    image: Image.Image
    caption: str
    defects: DefectSet
    id: str = ""
    generator: str | None = None
    split: str | None = None
    kinds: tuple[str, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()
    clean_image: Image.Image | None = field(default=None, repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kinds and len(self.kinds) != len(self.defects):
            raise ValueError(
                f"kinds={self.kinds!r} names {len(self.kinds)} defects, the record has {len(self.defects)}"
            )


def features(with_clean_image: bool = False) -> Features:
    """The columns of a data set of records, as ``datasets.Features``."""
    from datasets import Features, Image, List, Value

    box = List(Value("int32"), length=4)
    defect = {
        "box": box,
        "type": Value("string"),
        "reason": Value("string"),
        "importance": Value("int32"),
        "subtype": Value("string"),
        "kind": Value("string"),
    }
    columns = {
        "id": Value("string"),
        "image": Image(),
        "caption": Value("string"),
        "defects": List(defect),
        "reasoning": Value("string"),
        "generator": Value("string"),
        "split": Value("string"),
        "objects": List({"kind": Value("string"), "colour": Value("string"), "box": box}),
        "provenance": Value("string"),
    }
    if with_clean_image:
        columns["clean_image"] = Image()
    return Features(columns)


def _png(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


def to_row(record: Record, with_clean_image: bool = False) -> dict[str, Any]:
    """The record as a row of :func:`features`; pictures as PNG bytes."""
    kinds = record.kinds or (None,) * len(record.defects)
    row = {
        "id": record.id,
        "image": _png(record.image),
        "caption": record.caption,
        "defects": [
            {
                "box": list(d.box),
                "type": d.type.value,
                "reason": d.reason,
                "importance": d.importance,
                "subtype": d.subtype,
                "kind": kind,
            }
            for d, kind in zip(record.defects, kinds, strict=True)
        ],
        "reasoning": record.defects.reasoning,
        "generator": record.generator,
        "split": record.split,
        "objects": [dict(o) for o in record.objects],
        "provenance": json.dumps(dict(record.provenance)) if record.provenance else None,
    }
    if with_clean_image:
        row["clean_image"] = None if record.clean_image is None else _png(record.clean_image)
    return row


def _image(value: Any) -> Image.Image:
    if isinstance(value, Mapping):
        value = io.BytesIO(value["bytes"]) if value.get("bytes") else value["path"]
    return (value if isinstance(value, Image.Image) else Image.open(value)).convert("RGB")


def from_row(row: Mapping[str, Any]) -> Record:
    """The record of a row of :func:`features`; the image may be decoded or still ``{"bytes", "path"}``.

    Raises:
        ValueError: naming the record, the defect (by index), the field and the value.
    """
    items = row.get("defects") or []
    try:
        defects = DefectSet.of(items)
    except ValueError as error:
        raise ValueError(f"record {row.get('id')!r}: {error}") from None
    kinds = tuple(item.get("kind") or "" for item in items)
    caption = row.get("caption") or ""
    return Record(
        image=_image(row["image"]),
        caption=caption,
        defects=DefectSet(defects.defects, caption=caption, reasoning=row.get("reasoning")),
        id=row.get("id") or "",
        generator=row.get("generator"),
        split=row.get("split"),
        kinds=kinds if any(kinds) else (),
        objects=tuple(row.get("objects") or ()),
        clean_image=_image(row["clean_image"]) if row.get("clean_image") else None,
        provenance=json.loads(row["provenance"]) if row.get("provenance") else {},
    )


def to_dataset(records: Iterable[Record], with_clean_image: bool = False) -> Dataset:
    """Records as a ``datasets.Dataset`` in memory."""
    from datasets import Dataset

    rows = [to_row(record, with_clean_image) for record in records]
    return Dataset.from_list(rows, features=features(with_clean_image))


def load_records(source: str | Path) -> Dataset:
    """A data set of record rows from a parquet file, or from a folder of them.

    Raises:
        FileNotFoundError: where there is no parquet file.
    """
    from datasets import load_dataset

    path = Path(source)
    files = sorted(str(f) for f in path.glob("*.parquet")) if path.is_dir() else [str(path)]
    if not files or not Path(files[0]).exists():
        raise FileNotFoundError(f"{path}: no parquet file of records there")
    data = load_dataset("parquet", data_files=files, split="train")
    return data.cast(features("clean_image" in data.column_names))
