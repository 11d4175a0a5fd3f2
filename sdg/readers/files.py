"""Files that layouts share: lines of JSON with their numbers, and pictures by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sdg.readers.raw import Broken
from sdg.records import ImageFile

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]] | Broken]:
    """The objects of a file of JSON lines with the name of file and line; what is none is :class:`Broken`."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path.name}, line {number}"
            try:
                fields = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                yield Broken(where, f"no JSON ({error})")
                continue
            if isinstance(fields, dict):
                yield where, fields
            else:
                yield Broken(where, f"{type(fields).__name__} where an object is expected")


def first_keys(path: Path, objects: int = 20) -> set[str]:
    """The keys of the first objects of a file of JSON lines."""
    items = (item for item in json_lines(path) if not isinstance(item, Broken))
    return {key for _, fields in islice(items, objects) for key in fields}


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ValueError: naming it.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from None


def split_of(path: Path) -> str | None:
    """The split that a file or folder is called after, as in ``train.jsonl`` and ``train-00000-of-00002.parquet``."""
    called = re.fullmatch(r"([a-z]+)(-\d+.*)?", path.stem.lower())
    return _SPLIT_NAMES.get(called[1]) if called else None


class Pictures:
    """Finds pictures that annotations name.

    Args:
        roots: folders that names may be relative to, in the order in which they are tried.
    """

    def __init__(self, *roots: str | Path | None) -> None:
        self._roots: Sequence[Path] = [Path(root) for root in roots if root is not None]

    def find(self, name: str) -> ImageFile:
        """The first file there is; a name with a folder that is not here is looked for without it.

        A name that leads nowhere stays as it would be in the first folder: its record will be told of.
        """
        tried = [root / name for root in self._roots]
        tried += [root / Path(name).name for root in self._roots]
        return ImageFile(str(next((path for path in tried if path.is_file()), tried[0])))
