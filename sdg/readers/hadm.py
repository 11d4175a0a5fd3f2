"""HADM (the Human Artifact Dataset): a folder of pictures, and a folder with one JSON file a picture.

A file has ``image`` with height and width; ``annotation``, the local faults of body parts; and ``human``, people with
tags for what they miss or have too much of. Boxes are xyxy in pixels. Either pair of corners may come first, which the
authors' own loader sorts, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdg.readers.convert import numbers
from sdg.readers.files import PICTURES, Pictures, read_json, split_of
from sdg.readers.raw import UNUSABLE, Broken, Layout, RawDefect, RawRecord, Raws

PARTS = ("face", "torso", "arm", "leg", "hand", "feet")
"""Body parts with a fault of their own: anatomy that is distorted."""
TAGS = tuple(f"human {how} {part}" for how in ("missing", "with extra") for part in sorted(PARTS))
"""What is said of a person as a whole: a part that is missing or there too often."""
_FOLDERS = ("annotations", "annotation", "jsons", "json", "labels")


def _annotations(path: Path) -> Path:
    """The folder of JSON files of a data set."""
    return next((path / name for name in _FOLDERS if any((path / name).glob("*.json"))), path)


def _recognise(path: Path) -> bool:
    if not path.is_dir():
        return False
    first = min(_annotations(path).glob("*.json"), default=None)
    if first is None:
        return False
    try:
        content = read_json(first)
    except ValueError:
        return False
    return (
        isinstance(content, dict)
        and isinstance(content.get("image"), dict)
        and bool({"annotation", "human"} & set(content))
    )


def _open(
    path: Path,
    split: str | None = None,
    *,
    image_folder: str | Path | None = None,
    levels: Sequence[str] | None = None,
) -> Raws:
    """Open a folder of annotations.

    Args:
        path: the folder of JSON files, or one that has it as ``annotations/``.
        split: of a folder that is named after it.
        image_folder: where the pictures are, if not beside the JSON files or in ``images/``.
        levels: keep local faults of these levels only, ``("severe",)`` say; all of them otherwise.
    """
    del split
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder; HADM has a folder with one JSON file a picture")
    folder = _annotations(path)
    files = sorted(folder.glob("*.json"))
    roots = [root for root in (image_folder, path / "images", path, folder) if root is not None]
    pictures = Pictures(*roots)

    def raws(annotations_alone: bool) -> Iterator[RawRecord | Broken]:
        for file in files:
            try:
                yield _raw(file, read_json(file), _picture(file.stem, roots), pictures, levels, split_of(path))
            except UNUSABLE as error:
                yield Broken(file.name, f"annotation ({error})")

    return raws


def _picture(stem: str, roots: Sequence[str | Path]) -> str:
    """Name of the picture that a JSON file is about: it differs in its ending only."""
    candidates = (stem + suffix for root in roots for suffix in PICTURES if (Path(root) / (stem + suffix)).is_file())
    return next(candidates, stem + PICTURES[0])


def _raw(
    file: Path,
    content: Mapping[str, Any],
    name: str,
    pictures: Pictures,
    levels: Sequence[str] | None,
    split: str | None,
) -> RawRecord:
    about = content.get("image") if isinstance(content.get("image"), Mapping) else {}
    assert isinstance(about, Mapping)
    width, height = about.get("width"), about.get("height")
    known = isinstance(width, int | float) and isinstance(height, int | float)
    return RawRecord(
        where=file.name,
        image=pictures.find(name),
        defects=_defects(content, levels),
        id=file.stem,
        caption=about["prompt"] if isinstance(about.get("prompt"), str) else "",
        order="xyxy",
        space="pixels",
        size=(int(width), int(height)) if known else None,  # type: ignore[arg-type]
        split=split,
        extra={"provenance": {"layout": "HADM", "file": name}},
    )


def _defects(content: Mapping[str, Any], levels: Sequence[str] | None) -> list[RawDefect] | None:
    local, people = content.get("annotation"), content.get("human")
    if local is None and people is None:
        return None
    found = []
    for item in local or ():
        if levels is None or item.get("level") in levels:
            found.append(_defect(item, str(item.get("body_parts")), PARTS, "distorted_anatomy"))
    for item in people or ():
        tags = item.get("tag") or ()
        for tag in [tags] if isinstance(tags, str) else tags:
            found.append(_defect(item, str(tag), TAGS, "duplicated_or_missing_part"))
    return found


def _defect(item: Mapping[str, Any], name: str, known: Sequence[str], subtype: str) -> RawDefect:
    box = item.get("bbox")
    four = numbers(box)
    if four is not None:
        x0, y0, x1, y1 = four
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    label = "artifact" if name in known else name
    return RawDefect(box, label, subtype=subtype if name in known else None, kind=name)


HADM = Layout(
    name="hadm",
    title="HADM",
    looks_like="a folder (or one with annotations/) of JSON files, one a picture, with image and annotation or human",
    recognise=_recognise,
    open=_open,
)
