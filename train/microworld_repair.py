"""Train sdg-tiny-t2i, which draws, to mend a picture as well where a mask says so.

    python train/microworld_repair.py --config train/configs/t2i_repair.yaml

Repairs are learnt from pairs, broken and sound, which the microworld draws; clean pictures that are drawn from nothing
keep the generator drawing. Resumes from the last checkpoint, and leaves the whole pipeline in OUTPUT_DIR/final.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import Trainer, TrainingArguments
from trl import TrlParser

from sdg.boxes import GRID
from sdg.microworld import generate
from sdg.training.callbacks import TimedCheckpoints
from sdg.training.checkpoint import last_complete_checkpoint
from sdg.training.generator import MOST_OBJECTS, encode, find_pipeline, save, token_ids
from sdg.training.optim import MuonWithAdamW
from sdg.training.precision import without_emulated_bf16
from sdg.training.repair import Repair, cells

WHOLE = (0, 0, GRID, GRID)
MOST_BOXES = 4
"""Of a picture; the others are left out."""
Pair = tuple[Image.Image, Image.Image, str, list[list[int]]]
"""Broken picture, sound picture, caption, boxes of what differs."""


@dataclass
class RepairArguments:
    """What to train, and on what."""

    pipeline: str = field(default="sdg-tiny-t2i", metadata={"help": "Folder, or the embedded name."})
    pairs: int = field(default=20_000, metadata={"help": "Records to take pairs from, broken and sound."})
    clean: int = field(default=20_000, metadata={"help": "Clean records to take pictures from that are drawn whole."})
    world_seed: int = field(default=6, metadata={"help": "Of the pairs, split train; the clean ones have the next."})
    compile: bool = field(default=False, metadata={"help": "Compile the transformer; wants a C++ compiler."})
    save_minutes: float = field(default=4.0, metadata={"help": "Minutes between checkpoints."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


class Pairs(Dataset):
    """Normalised latents, broken and sound, with a mask round what is broken, drawn anew each time.

    A mask is grown and shifted as a detector's boxes are; where nothing is broken it lies on an object or anywhere, and
    on a picture to be drawn whole it covers all.
    """

    def __init__(self, columns: dict[str, torch.Tensor], scale: float, shift: float) -> None:
        self.columns, self.scale, self.shift = columns, scale, shift

    def __len__(self) -> int:
        return len(self.columns["sound"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = {name: column[index] for name, column in self.columns.items()}
        latents = {name: (row[name].float() - self.shift) * self.scale for name in ("sound", "broken")}
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        boxes = [tuple(int(v) for v in box) for box in row["boxes"].tolist() if box[2] > box[0]]
        grown = [box if box == WHOLE else grow(box, rng) for box in boxes]
        mask = torch.from_numpy(cells(grown, latents["sound"].shape[-1])).float()[None]
        return latents | {"mask": mask} | {name: row[name] for name in ("input_ids", "third_ids")}


def grow(box: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box moved by a detector's inaccuracy and grown as a refiner grows it, on the grid."""
    room = int(rng.integers(0, 90))
    x0, y0, x1, y1 = (int(v + rng.integers(-15, 16)) for v in box)
    return max(0, x0 - room), max(0, y0 - room), min(GRID, x1 + room), min(GRID, y1 + room)


def pairs(n: int, seed: int) -> Iterator[Pair]:
    """Of n records those that a repair can be learnt from."""
    rng = np.random.default_rng(seed)
    for record in generate(n, seed):
        boxes = [list(defect.box) for defect in record.defects.artifacts][:MOST_BOXES]
        if not boxes and record.defects:
            continue  # what the caption says is not to be seen, and the boxes are of no use
        if not boxes:
            boxes = [list(record.objects[int(rng.integers(len(record.objects)))]["box"])]
        assert record.clean_image is not None
        yield record.image, record.clean_image, record.caption, boxes


def wholes(n: int, seed: int) -> Iterator[Pair]:
    """Of n clean records those that the generator is made to draw."""
    for record in generate(n, seed, clean=True):
        if len(record.objects) <= MOST_OBJECTS:
            yield record.image, record.image, record.caption, [list(WHOLE)]


def encoded(pipeline: DiffusionPipeline, drawn: Iterator[Pair], part: int = 256) -> dict[str, torch.Tensor]:
    """The columns of :class:`Pairs`."""

    def latents(images: list[Image.Image]) -> torch.Tensor:
        return encode(pipeline.vae, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1)

    columns: dict[str, list[torch.Tensor]] = {"sound": [], "broken": [], "boxes": []}
    captions: list[str] = []
    with tqdm(desc="draw") as bar:
        while some := list(islice(drawn, part)):
            broken, sound, texts, boxes = map(list, zip(*some, strict=True))
            columns["broken"].append(latents(broken))
            columns["sound"].append(columns["broken"][-1] if broken == sound else latents(sound))
            padded = [there + [[0, 0, 0, 0]] * (MOST_BOXES - len(there)) for there in boxes]
            columns["boxes"].append(torch.tensor(padded, dtype=torch.int16))
            captions += texts
            bar.update(len(some))
    return {name: torch.cat(parts) for name, parts in columns.items()} | token_ids(pipeline, captions)


def main(data_args: RepairArguments, args: TrainingArguments) -> None:
    """The whole recipe."""
    if data_args.threads:
        torch.set_num_threads(data_args.threads)
    without_emulated_bf16(args)
    folder = Path(args.output_dir)

    # Load and draw.
    pipeline = DiffusionPipeline.from_pretrained(find_pipeline(data_args.pipeline), torch_dtype=torch.float32)
    path = folder / "pairs.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")  # a file is either whole or absent
        seed = data_args.world_seed
        drawn = chain(pairs(data_args.pairs, seed), wholes(data_args.clean, seed + 1))
        save_file(encoded(pipeline, drawn), part)
        part.rename(path)
    config = pipeline.vae.config
    data = Pairs(load_file(path), config.scaling_factor, config.shift_factor)

    # Train; "--resume_from_checkpoint true" goes on from the last complete checkpoint, or starts.
    model = Repair(pipeline)
    if data_args.compile:
        pipeline.transformer.compile(dynamic=False)
    args.remove_unused_columns = False
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data,
        optimizers=(MuonWithAdamW([model], args.learning_rate, args.weight_decay), None),
        callbacks=[TimedCheckpoints(data_args.save_minutes)],
    )
    checkpoint = last_complete_checkpoint(args.output_dir) if args.resume_from_checkpoint else None
    trainer.train(resume_from_checkpoint=checkpoint)
    save(pipeline, folder / "final")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*TrlParser((RepairArguments, TrainingArguments)).parse_args_and_config())
