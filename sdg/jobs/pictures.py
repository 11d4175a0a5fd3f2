"""Which pictures a job is about, and the caption of each: files, folders, tables of captions, data sets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdg.jobs.run import Picture
from sdg.readers.files import PICTURES

IMAGE_COLUMNS = ("image", "file_name", "filename", "filepath", "image_path", "path")
CAPTION_COLUMNS = ("caption", "prompt", "text")
"""Names of columns in a table of captions, in the order in which they are looked for."""

TABLES = (".jsonl", ".csv", ".tsv")


def picture_files(places: Iterable[str | Path]) -> list[str]:
    """The picture files that places name: a file itself, a folder all that it and its folders hold, sorted.

    A file that does not exist is kept: it will fail when its turn comes.

    Raises:
        ValueError: for a folder without pictures.
    """
    files: list[str] = []
    for place in map(Path, places):
        if not place.is_dir():
            files.append(str(place))
            continue
        found = [p for p in place.rglob("*") if p.suffix.lower() in PICTURES and not _hidden(p.relative_to(place))]
        if not found:
            raise ValueError(f"{place} holds no picture ({', '.join(PICTURES)})")
        files += map(str, sorted(found))
    return files


def captioned(files: Sequence[str], captions: str | Path) -> list[Picture]:
    """Pictures with the lines of a text file as captions, in the same order.

    Args:
        files: paths of pictures.
        captions: a text file with one caption a line; an empty line says that none is known.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it has another number of lines than there are pictures.
    """
    lines = _text(captions).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) != len(files):
        raise ValueError(
            f"{captions} has {len(lines)} lines for {len(files)} pictures; it needs one line a picture, in their order "
            f"(the first picture is {files[0]}, the last {files[-1]})"
        )
    return [Picture(file, file, line.strip() or None) for file, line in zip(files, lines, strict=True)]


def from_table(table: str | Path, folder: str | Path | None = None) -> list[Picture]:
    """Pictures and captions that a table lists.

    Args:
        table: JSON lines, CSV or TSV, with an image (see :data:`IMAGE_COLUMNS`) and a caption
            (:data:`CAPTION_COLUMNS`) in each row, and an ``id`` and ``generator`` where there are any.
        folder: what image paths are relative to; None is the table's own folder.

    Returns:
        One picture a row, named as the row names it.

    Raises:
        OSError: where it cannot be read.
        ValueError: naming file, line, column and value.
    """
    table = Path(table)
    root = table.parent if folder is None else Path(folder)
    pictures = []
    for where, row in _rows(table):
        name = _column(where, row, IMAGE_COLUMNS)
        caption, id, generator = (_text_of(where, row, key) for key in (CAPTION_COLUMNS, ("id",), ("generator",)))
        pictures.append(Picture(name, root / name, caption, id, generator))
    if not pictures:
        raise ValueError(f"{table} lists no picture")
    return pictures


def from_data_set(source: str | Path, layout: str | None = None, split: str | None = None) -> Iterator[Picture]:
    """The pictures and captions of a data set; what it says about defects is not looked at.

    Args:
        source: a file or folder in one of :data:`sdg.readers.LAYOUTS`, or the id of a data set on the Hub.
        layout: its name; None recognises it.
        split: one of its splits; None takes all.

    Yields:
        One picture a record, named by its path within the data set. A record without a picture, and a line that
        cannot be read, are pictures with an ``error``.

    Raises:
        OSError, ValueError: where it is not there, in no known layout, or has no record of that split.
    """
    from sdg.readers.layouts import LAYOUTS, locate, recognise

    path = locate(source)
    name = recognise(path) if layout is None else layout
    if name not in LAYOUTS:
        raise ValueError(f"layout={name!r} is none of {', '.join(LAYOUTS)}")
    raws = LAYOUTS[name].open(path, split)
    return _unlabelled(raws(False), path if path.is_dir() else path.parent, split, source)


def _unlabelled(raws: Iterable[Any], root: Path, split: str | None, source: str | Path) -> Iterator[Picture]:
    from sdg.readers.raw import Broken

    others: set[str] = set()
    met = False
    for raw in raws:
        if isinstance(raw, Broken):
            yield Picture(raw.where, error=raw.why)
            continue
        if split is not None and raw.split != split:
            others.add(raw.split or "none named")
            continue
        met = True
        file = raw.image
        told = {"caption": raw.caption or None, "generator": raw.generator}
        if file is None:
            yield Picture(raw.where, id=raw.id or None, error="no picture named", **told)
            continue
        place = Path(file.path) if file.path else None
        name = raw.where if place is None else str(place.relative_to(root) if place.is_relative_to(root) else place)
        id = None if raw.id in ("", file.path) else raw.id  # the picture's path is no name that anybody gave it
        yield Picture(name, file.path if file.data is None else file.data, id=id, **told)
    if others and not met:
        raise ValueError(f"{source} has no record of split {split!r}; there are {', '.join(sorted(others))}")


def _rows(table: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each row stands, and its fields."""
    text, kind = _text(table), table.suffix.lower()
    if kind == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                where = f"{table}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{where}: {error}; a line holds one JSON object") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{where}: a {type(row).__name__}; a line holds one JSON object")
                yield where, row
        return
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if kind == ".tsv" else ",", strict=True)
    try:
        for row in reader:
            where = f"{table}, line {reader.line_num}"
            if None in row:
                raise ValueError(
                    f"{where}: more fields than the first line has columns; a caption with commas is quoted"
                )
            yield where, row
    except csv.Error as error:
        raise ValueError(f"{table}, after line {reader.line_num}: {error}") from None


def _column(where: str, row: Mapping[str, Any], names: Sequence[str]) -> str:
    name = next((name for name in names if row.get(name) not in (None, "")), None)
    if name is None:
        columns = ", ".join(map(str, row))
        raise ValueError(f"{where}: no picture; one of the columns {', '.join(names)} is needed, there are {columns}")
    if not isinstance(row[name], str):
        raise ValueError(f"{where}: {name}={row[name]!r:.60} is not the path of a picture")
    return str(row[name])


def _text_of(where: str, row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    name = next((name for name in names if row.get(name) not in (None, "")), None)
    if name is None:
        return None
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{where}: {name}={value!r:.60} is not text")
    return str(value)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})") from None


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
