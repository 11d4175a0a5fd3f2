"""Training-only heads on the merged image tokens: what lies there, of which colour, and from where to where it reaches.

A small vision tower does not find out from words alone where things are. Linear heads that must name the object and the
artifact at every token, and the absolute box of both, teach it; they are thrown away after training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdg.boxes import GRID
from sdg.records import Record

NONE = "none"


@dataclass(frozen=True)
class DenseVocabulary:
    """Names of the classes of the dense heads; index 0 of each is "none".

    Args:
        kinds: kinds of object.
        colours: colours of objects.
        artifacts: kinds of artifact.
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    artifacts: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Any]) -> DenseVocabulary:
        """The names that occur in rows of :func:`sdg.records.features` (image column not needed)."""
        kinds: set[str] = set()
        colours: set[str] = set()
        artifacts: set[str] = set()
        for row in rows:
            for thing in row["objects"] or ():
                kinds.add(thing["kind"])
                colours.add(thing["colour"])
            artifacts.update(d["kind"] for d in row["defects"] if d["type"] == "artifact" and d.get("kind"))
        return cls(*((NONE, *sorted(names)) for names in (kinds, colours, artifacts)))


def cover(boxes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which cells of a grid a box marks: those whose centre it covers, and the one that holds the box's centre.

    Args:
        boxes: (n, 4) on the 0..1000 grid.
        rows: cells from top to bottom.
        columns: cells from left to right.

    Returns:
        (n, rows, columns), bool; a box smaller than a cell still marks one.
    """
    x = (np.arange(columns) + 0.5) * GRID / columns
    y = (np.arange(rows) + 0.5) * GRID / rows
    x0, y0, x1, y1 = (boxes[:, i, None] for i in range(4))
    inside = ((y0 <= y) & (y < y1))[:, :, None] & ((x0 <= x) & (x < x1))[:, None, :]
    column = np.minimum((boxes[:, 0] + boxes[:, 2]) / 2 * columns // GRID, columns - 1).astype(int)
    row = np.minimum((boxes[:, 1] + boxes[:, 3]) / 2 * rows // GRID, rows - 1).astype(int)
    inside[np.arange(len(boxes)), row, column] = True
    return inside


def dense_labels(records: Sequence[Record], grids: Tensor, vocabulary: DenseVocabulary) -> dict[str, Tensor]:
    """Labels of every merged image token, rows of all pictures one after another.

    Args:
        records: with ``objects`` (back to front) and ``kinds``.
        grids: (B, 3) frames, rows and columns of merged tokens.
        vocabulary: names of the classes; an unknown name counts as none.

    Returns:
        dense_kind, dense_colour, dense_artifact (N,), class indices; dense_object_box, dense_artifact_box (N, 4), in
        0..1, absolute, and NaN where there is none. The front-most object wins, and the smallest artifact.
    """
    names = ("kinds", "colours", "artifacts")
    indices = {name: {word: i for i, word in enumerate(getattr(vocabulary, name))} for name in names}
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("kind", "colour", "artifact", "object_box", "artifact_box")
    }
    for record, (_, rows, columns) in zip(records, grids.tolist(), strict=True):
        classes = {name: np.zeros((rows, columns), dtype=np.int64) for name in ("kind", "colour", "artifact")}
        boxes = {name: np.full((rows, columns, 4), np.nan, dtype=np.float32) for name in ("object", "artifact")}
        things = record.objects
        if things:
            places = np.array([thing["box"] for thing in things], dtype=np.float64)
            for thing, box, cells in zip(things, places, cover(places, rows, columns), strict=True):
                classes["kind"][cells] = indices["kinds"].get(thing["kind"], 0)
                classes["colour"][cells] = indices["colours"].get(thing["colour"], 0)
                boxes["object"][cells] = box / GRID
        kinds = record.kinds or ("",) * len(record.defects)
        flaws = [(d.box, k) for d, k in zip(record.defects, kinds, strict=True) if d.type.value == "artifact"]
        flaws.sort(key=lambda flaw: -(flaw[0][2] - flaw[0][0]) * (flaw[0][3] - flaw[0][1]))
        if flaws:
            places = np.array([box for box, _ in flaws], dtype=np.float64)
            for (_, kind), box, cells in zip(flaws, places, cover(places, rows, columns), strict=True):
                classes["artifact"][cells] = indices["artifacts"].get(kind, 0)
                boxes["artifact"][cells] = box / GRID
        for name, values in classes.items():
            parts[name].append(values.reshape(-1))
        for name, values in boxes.items():
            parts[f"{name}_box"].append(values.reshape(-1, 4))
    return {f"dense_{name}": torch.from_numpy(np.concatenate(values)) for name, values in parts.items()}


class DenseHeads(nn.Module):
    """One linear map from a merged image token to the classes and the two boxes there.

    Args:
        hidden: width of a merged token.
        vocabulary: names of the classes.
    """

    def __init__(self, hidden: int, vocabulary: DenseVocabulary) -> None:
        super().__init__()
        self.sizes = [len(vocabulary.kinds), len(vocabulary.colours), len(vocabulary.artifacts), 4, 4]
        self.norm = nn.LayerNorm(hidden)
        self.heads = nn.Linear(hidden, sum(self.sizes))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Logits of kind, colour and artifact, then both boxes in 0..1; each (N, its size)."""
        kind, colour, artifact, thing, flaw = self.heads(self.norm(tokens)).float().split(self.sizes, dim=-1)
        return [kind, colour, artifact, thing.sigmoid(), flaw.sigmoid()]


def box_distance(predicted: Tensor, boxes: Tensor) -> Tensor:
    """L1 distance plus 1 - IoU of the rows that have a box, averaged over them.

    Args:
        predicted: (N, 4) in 0..1.
        boxes: (N, 4) in 0..1, NaN rows where there is none.

    Returns:
        a scalar; 0 where no row has a box.
    """
    there = ~boxes[:, 0].isnan()
    if not there.any():
        return predicted.sum() * 0
    p, b = predicted[there], boxes[there]
    low, high = torch.maximum(p[:, :2], b[:, :2]), torch.minimum(p[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    area = (p[:, 2:] - p[:, :2]).clamp(min=0).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1)
    return (4 * (p - b).abs().mean(dim=1) + 1 - shared / (area - shared).clamp(min=1e-6)).mean()


def dense_loss(outputs: Sequence[Tensor], labels: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of the dense loss, to be summed.

    Args:
        outputs: of :class:`DenseHeads`.
        labels: of :func:`dense_labels`.
    """
    kind, colour, artifact, thing, flaw = outputs
    return {
        "kind": F.cross_entropy(kind, labels["dense_kind"]),
        "colour": F.cross_entropy(colour, labels["dense_colour"]),
        "artifact": F.cross_entropy(artifact, labels["dense_artifact"]),
        "object_box": box_distance(thing, labels["dense_object_box"]),
        "artifact_box": box_distance(flaw, labels["dense_artifact_box"]),
    }
