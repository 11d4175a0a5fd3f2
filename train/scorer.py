"""Train sdg-tiny-scorer, a scalar mark for microworld pictures: load, build, train, look, save.

    python train/microworld_data.py --out data/microworld2 --n_train 72000 --n_validation 0 --seed 1
    python train/scorer.py --config train/configs/scorer.yaml

It resumes from its last checkpoint and leaves the scorer in OUTPUT_DIR/final, in float16.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments
from trl import TrlParser

from sdg.boxes import GRID
from sdg.microworld import VOCABULARY
from sdg.microworld.kinds import COLOURS, KINDS
from sdg.microworld.scorer import CELLS, MicroworldScorer, to_pixels
from sdg.records import from_row, load_records
from sdg.training.callbacks import TimedCheckpoints
from sdg.training.checkpoint import last_complete_checkpoint
from sdg.training.degrade import degrade
from sdg.training.precision import without_emulated_bf16


@dataclass
class ScorerArguments:
    """What to train on."""

    data: str = field(metadata={"help": "Folder of records as parquet."})
    scorer: str | None = field(default=None, metadata={"help": "Scorer to go on from; default: a new one."})
    degrade: float = field(default=0.5, metadata={"help": "Share of pictures that are blurred, rescaled and so on."})
    helpers: float = field(default=1.0, metadata={"help": "Weight of the helping heads' loss."})
    save_minutes: float = field(default=3.0, metadata={"help": "Minutes between checkpoints."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


class Collator:
    """Rows to a batch: pixels, caption, both loads, and what each cell shows (kind, colour, artifact)."""

    def __init__(self, scorer: MicroworldScorer, share: float, seed: int) -> None:
        self.scorer, self.share, self.rng = scorer, share, np.random.default_rng(seed)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        records = [from_row(row) for row in rows]
        images = [degrade(r.image, self.rng) if self.rng.random() < self.share else r.image for r in records]
        loads = [
            [sum(d.importance or 100 for d in s) / 100 for s in (r.defects.artifacts, r.defects.misalignments)]
            for r in records
        ]
        labels = np.zeros((len(rows), 3, CELLS, CELLS), dtype=np.int64)
        for (kinds, colours, flawed), record in zip(labels, records, strict=True):
            for thing in record.objects:
                kinds[_cells(thing["box"])] = 1 + list(KINDS).index(thing["kind"])
                colours[_cells(thing["box"])] = 1 + list(COLOURS).index(thing["colour"])
            for defect in record.defects.artifacts:
                flawed[_cells(defect.box)] = 1
        ids = self.scorer.ids([r.caption for r in records])
        return {"pixels": to_pixels(images), "ids": ids, "loads": torch.tensor(loads), "labels": torch.tensor(labels)}


def _cells(box: Sequence[int]) -> tuple[slice, slice]:
    """The cells whose middle a box covers."""
    x0, y0, x1, y1 = (round(c * CELLS / GRID) for c in box)
    return slice(y0, y1), slice(x0, x1)


class Helped(nn.Module):
    """The loss: squared error of both loads, and heads on the cells that say what is there; they are not saved."""

    def __init__(self, scorer: MicroworldScorer, weight: float) -> None:
        super().__init__()
        self.scorer, self.weight = scorer, weight
        self.sizes = (1 + len(KINDS), 1 + len(COLOURS), 2)
        self.helpers = nn.Linear(scorer.position.shape[1], sum(self.sizes))

    def forward(self, pixels: Tensor, ids: Tensor, loads: Tensor, labels: Tensor) -> dict[str, Tensor]:
        cells = self.scorer.look(pixels)
        loss = F.mse_loss(self.scorer.loads(cells, ids), loads)
        named = self.helpers(cells).float().split(self.sizes, dim=-1)
        for logits, wanted in zip(named, labels.flatten(2).unbind(1), strict=True):
            loss = loss + self.weight / 3 * F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        return {"loss": loss}


def main(data_args: ScorerArguments, args: TrainingArguments) -> None:
    """The whole recipe."""
    if data_args.threads:
        torch.set_num_threads(data_args.threads)
    without_emulated_bf16(args)
    torch.manual_seed(args.seed)

    # Load and build.
    rows = load_records(data_args.data)
    rows = rows.cast_column("image", type(rows.features["image"])(decode=False))
    if data_args.scorer:
        scorer = MicroworldScorer.from_pretrained(data_args.scorer).float()
    else:
        scorer = MicroworldScorer(list(VOCABULARY))
    args.remove_unused_columns = False
    trainer = Trainer(
        model=Helped(scorer, data_args.helpers),
        args=args,
        train_dataset=rows,
        data_collator=Collator(scorer, data_args.degrade, args.seed),
        callbacks=[TimedCheckpoints(data_args.save_minutes)],
    )

    # Train; "--resume_from_checkpoint true" goes on from the last complete checkpoint, or starts.
    checkpoint = last_complete_checkpoint(args.output_dir) if args.resume_from_checkpoint else None
    trainer.train(resume_from_checkpoint=checkpoint)
    scorer.half().save_pretrained(Path(args.output_dir) / "final")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*TrlParser((ScorerArguments, TrainingArguments)).parse_args_and_config())
