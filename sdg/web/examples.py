"""Pictures to try, made by the microworld when the page starts, so that no file of them is kept."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from sdg.microworld import generate
from sdg.records import Record


@dataclass(frozen=True)
class Example:
    """A picture file and the caption that belongs to it."""

    path: Path
    caption: str


def microworld_examples(n: int = 6, seed: int = 0) -> list[Example]:
    """Draw ``n`` pictures of the test split, which no training has seen, into a temporary folder.

    Args:
        n: how many. The kinds of answer take turns: artifacts, misalignments, both, none.
        seed: of the microworld.
    """
    folder = Path(tempfile.mkdtemp(prefix="sdg-examples-"))
    shelves: dict[tuple[bool, bool], list[Record]] = {
        (True, False): [],
        (False, True): [],
        (True, True): [],
        (False, False): [],
    }
    for record in generate(6 * n, seed, "test"):
        shelves[bool(record.defects.artifacts), bool(record.defects.misalignments)].append(record)
    turns = [record for turn in zip_longest(*shelves.values()) for record in turn if record is not None]
    examples = []
    for index, record in enumerate(turns[:n], start=1):
        path = folder / f"example-{index}.png"
        record.image.save(path)
        examples.append(Example(path, record.caption))
    return examples
