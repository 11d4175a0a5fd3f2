"""This library's own records: parquet, an image folder with metadata, JSON lines, a saved ``datasets`` folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdg.readers.files import Pictures, first_keys, json_lines, split_of
from sdg.readers.raw import UNUSABLE, Broken, Layout, RawDefect, RawRecord, Raws
from sdg.records import EMBEDDED, IMAGE_NAMES, ImageFile

_ROWS = 64
"""Rows of a parquet file that are in memory at once."""
_PICTURES = ("image", "clean_image")


def _files(path: Path) -> list[Path]:
    """The files that hold rows: parquet first, then JSON lines."""
    if path.is_file():
        return [path]
    for pattern in ("*.parquet", "*.jsonl"):
        if found := sorted(p for p in path.rglob(pattern) if not any(part.startswith(".") for part in p.parts)):
            return found
    return []


def _saved(path: Path) -> bool:
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _recognise(path: Path) -> bool:
    if path.is_dir() and _saved(path):
        return True
    for file in _files(path)[:1]:
        if file.suffix == ".parquet":
            from pyarrow import ArrowInvalid
            from pyarrow.parquet import read_schema

            try:
                names = set(read_schema(file).names)
            except (ArrowInvalid, OSError):
                return False
        elif file.suffix == ".jsonl":
            names = first_keys(file)
        else:
            return False
        return "defects" in names and bool(names & {"image", *IMAGE_NAMES})
    return False


def _open(path: Path, split: str | None = None, *, image_folder: str | Path | None = None) -> Raws:
    """Options: ``image_folder`` for images that are not beside the rows."""
    del split  # a column, or the name of a file
    if not (path.is_dir() and _saved(path)) and not _files(path):
        raise FileNotFoundError(f"{path}: no parquet file and no JSON lines of records there")

    def raws(annotations_alone: bool) -> Iterator[RawRecord | Broken]:
        if path.is_dir() and _saved(path):
            yield from _of_dataset(path, annotations_alone)
            return
        for file in _files(path):
            pictures = Pictures(image_folder, file.parent)
            rows = _of_parquet(file, annotations_alone) if file.suffix == ".parquet" else json_lines(file)
            split = split_of(file) or split_of(file.parent)
            for item in rows:
                yield item if isinstance(item, Broken) else _raw_or_broken(*item, split, pictures)

    return raws


def _of_parquet(file: Path, annotations_alone: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as table:
        names = [n for n in table.schema_arrow.names if not (annotations_alone and n in _PICTURES)]
        number = 0
        for batch in table.iter_batches(batch_size=_ROWS, columns=names):
            for row in batch.to_pylist():
                yield f"{file.name}, row {number}", row
                number += 1


def _of_dataset(path: Path, annotations_alone: bool) -> Iterator[RawRecord | Broken]:
    import datasets

    loaded = datasets.load_from_disk(str(path))
    parts = loaded.items() if isinstance(loaded, datasets.DatasetDict) else [(None, loaded)]
    for name, data in parts:
        for column in _PICTURES:
            if column in data.column_names:
                undecoded = data.cast_column(column, datasets.Image(decode=False))
                data = data.remove_columns(column) if annotations_alone else undecoded
        for number, row in enumerate(data):
            where = f"{path.name}{'' if name is None else f'/{name}'}, row {number}"
            yield _raw_or_broken(where, row, None if name is None else str(name), Pictures(path))


def _raw_or_broken(where: str, row: Mapping[str, Any], split: str | None, pictures: Pictures) -> RawRecord | Broken:
    try:
        return _raw(where, row, split, pictures)
    except UNUSABLE as error:
        return Broken(where, f"fields ({error})")


def _raw(where: str, row: Mapping[str, Any], split: str | None, pictures: Pictures) -> RawRecord:
    items = row.get("defects")
    defects = None
    if isinstance(items, list) and all(isinstance(item, Mapping) for item in items):
        defects = [
            RawDefect(
                box=item.get("box"),
                label=item.get("type"),
                reason=item.get("reason") or "",
                importance=item.get("importance"),
                subtype=item.get("subtype"),
                kind=item.get("kind"),
            )
            for item in items
        ]
    provenance = row.get("provenance")
    extra: dict[str, Any] = {"provenance": json.loads(provenance) if isinstance(provenance, str) else provenance or {}}
    if row.get("objects"):
        extra["objects"] = tuple(row["objects"])
    if row.get("clean_image"):
        extra["clean_image"] = _image(row["clean_image"], pictures).open()
    named = next((row[name] for name in ("image", *IMAGE_NAMES) if row.get(name)), None)
    image = None if named is None else _image(named, pictures)
    return RawRecord(
        where=where,
        image=image,
        defects=defects,
        id=str(row.get("id") or (image.path if image is not None else None) or where),
        caption=str(row.get("caption") or ""),
        order="xyxy",
        generator=row.get("generator"),
        split=row.get("split") or split,
        reasoning=row.get("reasoning"),
        extra=extra,
    )


def _image(value: Any, pictures: Pictures) -> ImageFile:
    if isinstance(value, Mapping):
        if value.get("bytes"):
            return ImageFile(value.get("path"), value["bytes"])
        value = value.get("path") or ""
    text = str(value)
    if text.startswith(EMBEDDED):
        return ImageFile(None, base64.b64decode(text[len(EMBEDDED) :]))
    return pictures.find(text)


RECORDS = Layout(
    name="records",
    title="records of this library",
    looks_like="parquet, metadata.jsonl, metadata.parquet or JSON lines with the columns image (or file_name) and "
    "defects, or a folder that datasets saved",
    recognise=_recognise,
    open=_open,
)
