"""Pictures to try, made by the microworld when the page starts, so that no file of them is kept."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Generic, TypeVar

from sdg.defects import DefectType
from sdg.microworld import generate
from sdg.records import Record


@dataclass(frozen=True)
class Example:
    """A picture file and the caption that belongs to it.

    Args:
        path: the file.
        caption: what the picture should show.
        types: of the defects that it has; None where nobody knows.
    """

    path: Path
    caption: str
    types: frozenset[DefectType] | None = None


REPAIRED = (138, 50, 101, 106, 97)
"""Numbers of pictures of the split test, seed :data:`REPAIRED_SEED`, that the embedded editor makes better: a shade too
many, a third wheel, a missing leg, a missing trunk, a missing door."""
REPAIRED_SEED = 60_000


def repair_examples() -> list[Example]:
    """Pictures that the embedded editor can mend, which it cannot always, and a faultless one."""
    broken = [record for i in REPAIRED for record in generate(1, REPAIRED_SEED, "test", start=i)]
    faultless = next(record for record in generate(60, REPAIRED_SEED, "test") if not record.defects)
    return _written([*broken, faultless])


def microworld_examples(n: int = 8, seed: int = 0) -> list[Example]:
    """Draw ``n`` pictures of the test split, which no training has seen, into a temporary folder.

    Args:
        n: how many. The kinds of answer take turns: artifacts, misalignments, both, none.
        seed: of the microworld.
    """
    shelves: dict[tuple[bool, bool], list[Record]] = {
        (True, False): [],
        (False, True): [],
        (True, True): [],
        (False, False): [],
    }
    for record in generate(6 * n, seed, "test"):
        shelves[bool(record.defects.artifacts), bool(record.defects.misalignments)].append(record)
    turns = [record for turn in zip_longest(*shelves.values()) for record in turn if record is not None]
    return _written(turns[:n])


def _written(records: Sequence[Record]) -> list[Example]:
    folder = Path(tempfile.mkdtemp(prefix="sdg-examples-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    examples = []
    for index, record in enumerate(records, start=1):
        path = folder / f"example-{index}.png"
        record.image.save(path)
        examples.append(Example(path, record.caption, frozenset(defect.type for defect in record.defects)))
    return examples


T = TypeVar("T")


class Kept(Generic[T]):
    """Answers on examples, kept once they were given: a model says the same of the same picture every time.

    Args:
        examples: whose answers are kept; those on other pictures are not.
    """

    def __init__(self, examples: Sequence[Example]):
        self._examples = {(example.caption, _digest(example.path)) for example in examples}
        self._captions = {example.caption for example in examples}
        self._answers: dict[tuple[str, str, str], T] = {}

    def find(self, model: str | None, path: Path, caption: str) -> T | None:
        """The answer of that model on that file with that caption, or None."""
        if caption not in self._captions:
            return None
        return self._answers.get((model or "", caption, _digest(path)))

    def keep(self, model: str | None, path: Path, caption: str, found: T) -> None:
        """Keep an answer, where it is one on an example."""
        if caption in self._captions and (caption, digest := _digest(path)) in self._examples:
            self._answers[model or "", caption, digest] = found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
