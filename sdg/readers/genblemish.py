"""GenBlemish-27K: regions with a mask, a category and a description in pictures with a prompt.

The form of the published files could not be confirmed. What is read is a table of pictures (JSON lines or one JSON
list), each with ``image``, ``prompt`` and ``regions``, each of these with ``mask``, ``category`` and ``description``.
A mask is a picture file that is nonzero inside, polygons, or COCO's uncompressed run lengths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdg.readers.categories import Category, category_map, named_after
from sdg.readers.files import Pictures, first_keys, json_lines, read_json, split_of
from sdg.readers.masks import box_of, decoded
from sdg.readers.raw import UNUSABLE, Broken, Layout, RawDefect, RawRecord, Raws
from sdg.records import ImageFile

_IMAGES = ("image", "file_name", "filename", "image_path")
_CAPTIONS = ("prompt", "caption")
_SUBTYPES: tuple[tuple[str, str], ...] = (
    (r"extra|missing|duplicat|redundan|number of", "duplicated_or_missing_part"),
    (r"text|letter|word|writing", "garbled_text"),
    (r"hand|finger|face|facial|limb|arm|leg|foot|feet|body|anatom|eye|head", "distorted_anatomy"),
    (r"light|shadow|reflect", "inconsistent_lighting"),
    (r"texture|blur|smooth|smear", "texture_fault"),
    (r"edge|contour|boundar", "unnatural_edge"),
    (r"shape|structur|geometr|perspective|deform|object|physic", "warped_geometry"),
)
"""Words in the name of a category, and the subtype that they tell of; the first that is found counts."""


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((f for name in ("annotations", "metadata") for f in sorted(path.glob(f"{name}.json*"))), None)


def _recognise(path: Path) -> bool:
    file = _file(path)
    if file is None or file.suffix not in (".jsonl", ".json"):
        return False
    try:
        return "regions" in (first_keys(file) if file.suffix == ".jsonl" else _rows_of(file)[0])
    except (ValueError, IndexError, TypeError):
        return False


def _open(
    path: Path,
    split: str | None = None,
    *,
    categories: Mapping[str, Any] | None = None,
    image_folder: str | Path | None = None,
) -> Raws:
    """Open a table of pictures.

    Args:
        path: the file, or the folder with ``annotations.jsonl``.
        split: by a field ``split``, or the name of the file.
        categories: name of a category to a type, a subtype or a pair of both; others are artifacts, with a subtype
            where words in their names tell of one.
        image_folder: where pictures and masks are, if not beside the table.
    """
    del split
    file = _file(path)
    if file is None:
        raise FileNotFoundError(f"{path}: no annotations.jsonl or annotations.json there")
    known = category_map(categories)
    pictures = Pictures(image_folder, file.parent, file.parent / "images", file.parent / "masks")

    def raws(annotations_alone: bool) -> Iterator[RawRecord | Broken]:
        rows = json_lines(file) if file.suffix == ".jsonl" else _numbered(file)
        for item in rows:
            if isinstance(item, Broken):
                yield item
                continue
            try:
                yield _raw(*item, split_of(file), pictures, known)
            except UNUSABLE as error:
                yield Broken(item[0], f"regions ({error})")

    return raws


def _rows_of(file: Path) -> list[Any]:
    content = read_json(file)
    rows = content.get("images") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ValueError(f"{file} is not a list of pictures")
    return rows


def _numbered(file: Path) -> Iterator[tuple[str, dict[str, Any]] | Broken]:
    for number, row in enumerate(_rows_of(file)):
        where = f"{file.name}, picture {number}"
        yield (where, row) if isinstance(row, dict) else Broken(where, "no object")


def _raw(
    where: str, row: Mapping[str, Any], split: str | None, pictures: Pictures, known: Mapping[str, Category]
) -> RawRecord:
    name = next((str(row[key]) for key in _IMAGES if row.get(key)), None)
    image = None if name is None else pictures.find(name)
    regions = row.get("regions")
    defects, sizes = None, set()
    if isinstance(regions, list):
        defects = []
        for region in regions:
            mask = _mask(region.get("mask"), row, image, pictures)
            sizes.add((mask.shape[1], mask.shape[0]))
            category = str(region.get("category") or "artifact")
            label, subtype = known.get(category) or named_after(category) or ("artifact", _subtype(category))
            defects.append(RawDefect(box_of(mask), label, region.get("description"), None, subtype, kind=category))
    if len(sizes) > 1:
        raise ValueError(f"masks of one picture are of sizes {sorted(sizes)}")
    return RawRecord(
        where=where,
        image=image,
        defects=defects,
        id=str(row.get("id") or name or where),
        caption=next((str(row[key]) for key in _CAPTIONS if row.get(key)), ""),
        order="xyxy",
        space="pixels",
        size=next(iter(sizes), None),
        generator=row.get("generator"),
        split=row.get("split") or split,
        extra={"provenance": {"layout": "GenBlemish-27K", "file": name}},
    )


def _mask(value: Any, row: Mapping[str, Any], image: ImageFile | None, pictures: Pictures) -> Any:
    if isinstance(value, str):
        with Image.open(pictures.find(value).path or "") as mask:
            return np.asarray(mask.convert("L")) != 0
    if value is None:
        raise ValueError("a region has no mask")
    if isinstance(value, Mapping):
        return decoded(value, (0, 0))
    size = (row.get("width"), row.get("height"))
    if not all(isinstance(side, int) for side in size):
        if image is None:
            raise ValueError("polygons, and neither a picture nor width and height")
        size = image.size()
    return decoded(value, size)  # type: ignore[arg-type]


def _subtype(category: str) -> str | None:
    return next((subtype for words, subtype in _SUBTYPES if re.search(words, category, re.IGNORECASE)), None)


GENBLEMISH_27K = Layout(
    name="genblemish-27k",
    title="GenBlemish-27K",
    looks_like="annotations.jsonl or annotations.json of pictures with a list regions",
    recognise=_recognise,
    open=_open,
    gives_reason=True,
    cheap=False,
)
