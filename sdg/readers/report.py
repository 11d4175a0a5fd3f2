"""What was wrong with the records that were read, counted, with the first examples of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

EXAMPLES = 5
"""Examples kept of each problem."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one record.

    Args:
        name: which problem, one of a fixed set (see ``docs/data.md``).
        field: the field that it is in.
        value: what the field holds.
        mended: what ``mend`` makes of it; empty where nothing honest can be made of it.
    """

    name: str
    field: str
    value: Any
    mended: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.field}={self.value!r:.240}"


@dataclass(frozen=True)
class Example:
    """A problem and the record that has it."""

    where: str
    id: str
    field: str
    value: str

    def __str__(self) -> str:
        named = f" ({self.id})" if self.id else ""
        return f"{self.where}{named}: {self.field}={self.value}"


class Report:
    """Counts over one reading; complete once the iteration ended.

    Attributes:
        counts: how often each problem was met.
        examples: the first few of each problem.
        n_records: records read.
        n_defects: their defects.
        n_skipped: records left out.
        n_mended: records of which something was mended.
        complete: whether the reading came to its end.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Example]] = {}
        self.n_records = self.n_defects = self.n_skipped = self.n_mended = 0
        self.complete = False

    def add(self, problem: Problem, where: str, id: str) -> None:
        """Count a problem."""
        self.counts[problem.name] += 1
        examples = self.examples.setdefault(problem.name, [])
        if len(examples) < EXAMPLES:
            examples.append(Example(where, id, problem.field, f"{problem.value!r:.200}"))

    def to_json(self) -> dict[str, Any]:
        """The counts and examples as plain JSON values."""
        return {
            "n_records": self.n_records,
            "n_defects": self.n_defects,
            "n_skipped": self.n_skipped,
            "n_mended": self.n_mended,
            "complete": self.complete,
            "problems": {
                name: {"count": count, "examples": [vars(e) for e in self.examples[name]]}
                for name, count in self.counts.most_common()
            },
        }

    def lines(self) -> list[str]:
        """The report for people: a summary, then a line a problem and a line an example."""
        done = "" if self.complete else " (the reading did not come to its end)"
        told = [
            f"{self.n_records:,} records with {self.n_defects:,} defects; "
            f"{self.n_skipped:,} left out, {self.n_mended:,} mended{done}"
        ]
        for name, count in self.counts.most_common():
            told.append(f"{count:,} x {name}")
            told += [f"    {example}" for example in self.examples[name]]
        return told
