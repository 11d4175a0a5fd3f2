"""A folder of pictures with captions and no annotation: to detect on, never to train on.

Captions stand in ``captions.csv``, ``captions.jsonl`` or ``metadata.jsonl``, or each in a ``.txt`` beside its picture.
Nobody looked at these pictures for defects: the set of such a record has a ``parse_error`` that says so, which keeps it
from being taken for a clean picture.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdg.readers.files import PICTURES, Pictures, json_lines, split_of
from sdg.readers.raw import Broken, Layout, RawRecord, Raws

TABLES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
IMAGE_COLUMNS = ("file_name", "image", "filename", "filepath", "image_path", "path")
CAPTION_COLUMNS = ("caption", "prompt", "text")


def _table(path: Path) -> Path | None:
    return next((path / name for name in TABLES if (path / name).is_file()), None)


def _pictures(path: Path) -> list[Path]:
    found = (p for p in path.rglob("*") if p.suffix.lower() in PICTURES)
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))


def _recognise(path: Path) -> bool:
    return path.is_dir() and (_table(path) is not None or bool(_pictures(path)))


def _open(path: Path, split: str | None = None) -> Raws:
    """Open a folder of pictures; it takes no options."""
    del split
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder of pictures")
    table = _table(path)

    def raws(annotations_alone: bool) -> Iterator[RawRecord | Broken]:
        rows = _beside(path) if table is None else _listed(table)
        pictures = Pictures(path, path / "images")
        for item in rows:
            yield item if isinstance(item, Broken) else _raw(*item, split_of(path), pictures)

    return raws


def _beside(path: Path) -> Iterator[tuple[str, dict[str, Any]] | Broken]:
    for picture in _pictures(path):
        name = picture.relative_to(path).as_posix()
        text = picture.with_suffix(".txt")
        try:
            caption = text.read_text(encoding="utf-8-sig").strip() if text.is_file() else ""
        except UnicodeDecodeError as error:
            yield Broken(text.name, f"no text in UTF-8 ({error.reason})")
            continue
        yield name, {"file_name": name, "caption": caption}


def _listed(table: Path) -> Iterator[tuple[str, Mapping[str, Any]] | Broken]:
    if table.suffix == ".jsonl":
        yield from json_lines(table)
        return
    with table.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            where = f"{table.name}, line {reader.line_num}"
            yield Broken(where, "more fields than columns") if None in row else (where, row)


def _raw(where: str, row: Mapping[str, Any], split: str | None, pictures: Pictures) -> RawRecord:
    name = next((row[key] for key in IMAGE_COLUMNS if isinstance(row.get(key), str) and row[key]), None)
    caption = next((row[key] for key in CAPTION_COLUMNS if isinstance(row.get(key), str)), "")
    return RawRecord(
        where=where,
        image=None if name is None else pictures.find(name),
        defects=(),
        unseen="nobody looked at this picture for defects",
        id=str(row.get("id") or name or where),
        caption=caption,
        order="xyxy",
        generator=row.get("generator") or None,
        split=row.get("split") or split,
        extra={"provenance": {"layout": "folder", "file": name}},
    )


FOLDER = Layout(
    name="folder",
    title="a folder with captions",
    looks_like="a folder of pictures, with captions.csv, captions.jsonl, metadata.jsonl or a .txt beside each picture",
    recognise=_recognise,
    open=_open,
)
