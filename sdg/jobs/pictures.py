"""Which pictures a job is about, and the caption of each: files, folders, tables of captions, data sets."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdg.jobs.run import Picture
from sdg.readers.files import PICTURES
from sdg.readers.folder import CAPTION_COLUMNS, IMAGE_COLUMNS
from sdg.readers.raw import Broken, RawRecord

TABLES = (".jsonl", ".csv", ".tsv")


def in_places(places: Sequence[str | Path], caption: str | None = None) -> list[Picture]:
    """The pictures that places name: a file itself, a folder all that it and its folders hold, sorted.

    A file that does not exist is kept: it will fail when its turn comes. Pictures are named by their path; where all
    are of one folder, by their path in it, as in a data set.

    Args:
        places: files and folders.
        caption: of all of them.

    Raises:
        ValueError: for a folder without pictures.
    """
    pictures: list[Picture] = []
    for place in map(Path, places):
        if not place.is_dir():
            pictures.append(Picture(str(place), str(place), caption))
            continue
        found = [p for p in place.rglob("*") if p.suffix.lower() in PICTURES and not _hidden(p.relative_to(place))]
        if not found:
            raise ValueError(f"{place} holds no picture ({', '.join(PICTURES)})")
        for path in sorted(found):
            name = path.relative_to(place).as_posix() if len(places) == 1 else str(path)
            pictures.append(Picture(name, str(path), caption))
    return pictures


class Names:
    """A PNG file for each picture in a folder, named after it; pictures of the same name get numbers, in their order.

    Args:
        folder: where the files go.
        taken: names of files there that belong to pictures which are done.
        replaced: names of files that may be written over where they are there; None: all but ``taken``.
    """

    def __init__(self, folder: Path, taken: Iterable[str] = (), replaced: Collection[str] | None = None) -> None:
        self.folder = folder
        self._taken = set(taken)
        self._replaced = replaced
        self._same: Counter[str] = Counter()

    def take(self, picture: Picture) -> Path:
        """The file of the next picture; never the picture itself."""
        stem = Path(picture.name).stem or "picture"
        name = f"{stem}.png"
        while name in self._taken or self._is_anothers(self.folder / name, picture.source):
            self._same[stem] += 1
            name = f"{stem}-{self._same[stem] + 1}.png"
        self._taken.add(name)
        return self.folder / name

    def _is_anothers(self, file: Path, source: Any) -> bool:
        if not file.exists():
            return False
        if self._replaced is not None and file.name not in self._replaced:
            return True
        return isinstance(source, str | Path) and Path(source).exists() and file.samefile(source)


def captioned(pictures: Sequence[Picture], captions: str | Path) -> list[Picture]:
    """Pictures with the lines of a text file as captions, in the same order.

    Args:
        pictures: as :func:`in_places` finds them.
        captions: a text file with one caption a line; an empty line says that none is known.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it has another number of lines than there are pictures.
    """
    lines = _text(captions).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) != len(pictures):
        raise ValueError(
            f"{captions} has {len(lines)} lines for {len(pictures)} pictures; it needs one line a picture, in their "
            f"order (the first picture is {pictures[0].name}, the last {pictures[-1].name})"
        )
    return [replace(picture, caption=line.strip() or None) for picture, line in zip(pictures, lines, strict=True)]


def from_table(table: str | Path, folder: str | Path | None = None) -> list[Picture]:
    """Pictures and captions that a table lists.

    Args:
        table: JSON lines, CSV or TSV, with an image (see :data:`~sdg.readers.folder.IMAGE_COLUMNS`)
            and a caption (``CAPTION_COLUMNS``) in each row, and an ``id`` and ``generator`` where there are any.
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


def from_data_set(
    source: str | Path, layout: str | None = None, split: str | None = None
) -> tuple[Iterator[Picture], int | None]:
    """The pictures and captions of a data set; what it says about defects is not looked at.

    A picture is named by its path within the data set. A record without a picture, and a line that cannot be read, are
    pictures with an ``error``.

    Args:
        source: a file or folder in one of :data:`sdg.readers.LAYOUTS`, or the id of a data set on the Hub.
        layout: its name; None recognises it.
        split: one of its splits; None takes all.

    Returns:
        The pictures, read as they are asked for, and how many there are, where it is cheap to know.

    Raises:
        OSError, ValueError: where it is not there, in no known layout, or has no record of that split.
    """
    from sdg.readers.layouts import LAYOUTS, locate, recognise

    path = locate(source)
    name = recognise(path, source) if layout is None else layout
    if name not in LAYOUTS:
        raise ValueError(f"layout={name!r} is none of {', '.join(LAYOUTS)}")
    raws = LAYOUTS[name].open(path, split)
    total = None
    if LAYOUTS[name].cheap:
        total = sum(1 for raw in raws(True) if _is_of(raw, split))
        if not total:
            there = sorted({raw.split or "records of none" for raw in raws(True) if not isinstance(raw, Broken)})
            raise ValueError(
                f"{source} has no record{f' of split {split!r}; there are ' if there else ''}{', '.join(there)}"
            )
    root = path if path.is_dir() else path.parent
    return (_unlabelled(raw, root) for raw in raws(False) if _is_of(raw, split)), total


def _is_of(raw: RawRecord | Broken, split: str | None) -> bool:
    return isinstance(raw, Broken) or split is None or raw.split == split


def _unlabelled(raw: RawRecord | Broken, root: Path) -> Picture:
    if isinstance(raw, Broken):
        return Picture(raw.where, error=raw.why)
    file, caption = raw.image, raw.caption or None
    if file is None:
        return Picture(raw.where, None, caption, raw.id or None, raw.generator, error="no picture named")
    name = raw.where
    if file.path:
        place = Path(file.path)
        name = place.relative_to(root).as_posix() if place.is_relative_to(root) else str(place)
    # Where nobody gave it an id, readers take its path or place.
    id = None if raw.id in ("", name, file.path, raw.where) else raw.id
    return Picture(name, file.path if file.data is None else file.data, caption, id, raw.generator)


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
