"""Files to score at a click: true defects of the microworld, and predictions that are these with errors put in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdg.boxes import GRID
from sdg.defects import TYPES, Defect, DefectSet
from sdg.microworld import generate
from sdg.records import Record
from sdg.response import render_response

PICTURES = 40


@dataclass(frozen=True)
class ScoringExample:
    """Paths of files that a visitor could have brought.

    Args:
        predictions: text of a model, in the paper's response format.
        against: lists of defects, with more errors.
        references: what is true.
        pictures: what they are of.
    """

    predictions: Path
    against: Path
    references: Path
    pictures: tuple[Path, ...]


def microworld_scores(folder: Path, n: int = PICTURES, seed: int = 0) -> ScoringExample:
    """Write the files of an example; the same arguments write the same bytes.

    Args:
        folder: where to.
        n: how many pictures.
        seed: of the pictures and of the errors.
    """
    records = list(generate(n, seed, "test"))
    reasons = [defect.reason for record in records for defect in record.defects]
    good, poor = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    truth, answers, others, pictures = [], [], [], []
    for number, record in enumerate(records, start=1):
        name = f"microworld-{number:02d}.png"
        record.image.save(folder / name)
        pictures.append(folder / name)
        head = {"id": record.id, "image": name}
        truth.append({**head, "caption": record.caption, "objects": len(record.objects), "defects": _true(record)})
        imperfect = DefectSet(tuple(_with_errors(record, reasons, good, 0.14)), reasoning=record.defects.reasoning)
        answer = render_response(imperfect)
        answers.append({**head, "response": answer[: len(answer) // 3] if number == n // 2 else answer})
        others.append(
            {**head, "defects": DefectSet(tuple(_with_errors(record, reasons, poor, 0.34))).to_json()["defects"]}
        )
    return ScoringExample(
        _written(folder / "microworld-predictions.jsonl", answers),
        _written(folder / "microworld-earlier-predictions.jsonl", others),
        _written(folder / "microworld-references.jsonl", truth),
        tuple(pictures),
    )


def _true(record: Record) -> list[dict[str, Any]]:
    fields = ("box", "type", "reason", "importance")
    items = record.defects.to_json()["defects"]
    return [{f: i[f] for f in fields} | {"subtype": d.subtype} for i, d in zip(items, record.defects, strict=True)]


def _with_errors(record: Record, reasons: list[str], rng: np.random.Generator, rate: float) -> list[Defect]:
    """The defects less some, moved, reworded, and with a false alarm now and then; ``rate`` is a share of each."""
    found = []
    for d in record.defects:
        moved = np.add(d.box, rng.normal(0, 150 * rate, 4)).round().astype(int)
        other, gap = str(rng.choice(reasons)), int(rng.normal(0, 60 * rate))
        if rng.random() >= rate:
            reason = other if rng.random() < 2 * rate else d.reason
            found.append(Defect(_box(*moved.tolist()), d.type, reason, min(max((d.importance or 50) + gap, 1), 100)))
    if rng.random() < rate:
        x, y = rng.integers(0, GRID - 200, 2).tolist()
        kind = TYPES[int(rng.integers(len(TYPES)))]
        found.append(Defect(_box(x, y, x + 180, y + 160), kind, str(rng.choice(reasons)), int(rng.integers(20, 90))))
    return found


def _box(x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
    """Inside the grid, and with an area."""
    left, top = min(max(x0, 0), GRID - 20), min(max(y0, 0), GRID - 20)
    return left, top, min(max(x1, left + 20), GRID), min(max(y1, top + 20), GRID)


def _written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
