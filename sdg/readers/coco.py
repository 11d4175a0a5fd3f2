"""COCO detection: one JSON file with images, annotations and categories; boxes are xywh in pixels.

The file is held in memory whole, as its annotations come in any order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdg.readers.categories import Category, category_map, named_after
from sdg.readers.files import Pictures, read_json, split_of
from sdg.readers.raw import UNUSABLE, Broken, Layout, RawDefect, RawRecord, Raws

_KEYS = ("images", "annotations", "categories")
_CAPTIONS = ("caption", "prompt")
_REASONS = ("reason", "description", "caption")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted((path / "annotations").glob("*.json")) or sorted(path.glob("*.json"))


def _recognise(path: Path) -> bool:
    return any(file.suffix == ".json" and _is_coco(file) for file in _files(path)[:1])


def _is_coco(file: Path) -> bool:
    try:
        content = read_json(file)
    except ValueError:
        return False
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS)


def _open(
    path: Path,
    split: str | None = None,
    *,
    categories: Mapping[str, Any] | None = None,
    image_folder: str | Path | None = None,
) -> Raws:
    """Open a file of annotations, or a folder of them.

    Args:
        path: the file, or a folder that holds it or has it in ``annotations/``.
        split: tells files called ``train.json`` and the like apart.
        categories: name of a category to a type, a subtype or a pair of both; categories that are called after a type
            or subtype need none.
        image_folder: where the images are, if not beside the annotations or in ``images/``.
    """
    del split
    known = category_map(categories)
    files = _files(path)
    contents: dict[Path, Any] = {}

    def raws(annotations_alone: bool) -> Iterator[RawRecord | Broken]:
        for file in files:
            root = file.parent
            above = root.parent if root.name == "annotations" else None
            folders = (image_folder, root, root / "images", above, above and above / "images")
            if file not in contents:
                contents[file] = read_json(file)
            yield from _records(file, contents[file], known, Pictures(*folders))

    return raws


def _records(
    file: Path, content: Any, known: Mapping[str, Category], pictures: Pictures
) -> Iterator[RawRecord | Broken]:
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise ValueError(f"{file} has not the lists {', '.join(_KEYS)} of a COCO detection file")
    names = {c.get("id"): str(c.get("name")) for c in content["categories"] if isinstance(c, Mapping)}
    of_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for number, annotation in enumerate(content["annotations"]):
        if isinstance(annotation, Mapping):
            of_image[annotation.get("image_id")].append(annotation)
        else:
            yield Broken(f"{file.name}, annotation {number}", "no object")
    for number, image in enumerate(content["images"]):
        try:
            yield _raw(file, number, image, of_image, names, known, pictures)
        except UNUSABLE as error:
            yield Broken(f"{file.name}, image {number}", f"fields ({error})")
    for id, left in of_image.items():
        yield Broken(f"{file.name}, image {id}", f"{len(left)} annotations of an image that is not listed")


def _raw(
    file: Path,
    number: int,
    image: Mapping[str, Any],
    of_image: dict[Any, list[Mapping[str, Any]]],
    names: Mapping[Any, str],
    known: Mapping[str, Category],
    pictures: Pictures,
) -> RawRecord:
    name = image.get("file_name")
    width, height = image.get("width"), image.get("height")
    known_size = isinstance(width, int | float) and isinstance(height, int | float)
    return RawRecord(
        where=f"{file.name}, image {image.get('id', number)}",
        image=pictures.find(name) if isinstance(name, str) and name else None,
        defects=[_defect(a, names, known) for a in of_image.pop(image.get("id"), [])],
        id=str(name or image.get("id")),
        caption=next((image[key] for key in _CAPTIONS if isinstance(image.get(key), str)), ""),
        order="xywh",
        space="pixels",
        size=(int(image["width"]), int(image["height"])) if known_size else None,
        generator=image.get("generator"),
        split=split_of(file),
        extra={"provenance": {"layout": "COCO", "file": name}},
    )


def _defect(annotation: Mapping[str, Any], names: Mapping[Any, str], known: Mapping[str, Category]) -> RawDefect:
    name = names.get(annotation.get("category_id"), f"category {annotation.get('category_id')!r}")
    label, subtype = known.get(name) or named_after(name) or (name, None)
    reason = next((annotation[key] for key in _REASONS if isinstance(annotation.get(key), str)), None)
    return RawDefect(annotation.get("bbox"), label, reason, annotation.get("importance"), subtype, kind=name)


COCO = Layout(
    name="coco",
    title="COCO",
    looks_like="a JSON file (or a folder with annotations/*.json) with the lists images, annotations and categories",
    recognise=_recognise,
    open=_open,
    order="xywh",
)
