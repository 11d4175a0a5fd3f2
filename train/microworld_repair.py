"""Train the repair LoRA of sdg-tiny-t2i, by which it mends a picture where a mask says so.

    python train/microworld_repair.py --config train/configs/t2i_repair.yaml

Pictures come in pairs, broken and sound, which the microworld draws. Resumes from the last checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
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
from sdg.training.generator import encode, find_pipeline, token_ids
from sdg.training.precision import without_emulated_bf16
from sdg.training.repair import Repair, add_lora, cells, save_repair


@dataclass
class RepairArguments:
    """What to train, and on what."""

    pipeline: str = field(default="sdg-tiny-t2i", metadata={"help": "Folder, or the embedded name."})
    pairs: int = field(default=20_000, metadata={"help": "Pictures to draw, broken and sound."})
    world_seed: int = field(default=6, metadata={"help": "Of the microworld's train split."})
    rank: int = field(default=8, metadata={"help": "Of the LoRA."})
    save_minutes: float = field(default=4.0, metadata={"help": "Minutes between checkpoints."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


class Pairs(Dataset):
    """Normalised latents, broken and sound, with a mask round what is broken, drawn anew each time.

    A mask is grown and shifted as a detector's boxes are; where nothing is broken it lies on an object or anywhere.
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
        grown = [grow(box, rng) for box in boxes]
        mask = torch.from_numpy(cells(grown, latents["sound"].shape[-1])).float()[None]
        return latents | {"mask": mask} | {name: row[name] for name in ("input_ids", "third_ids")}


def grow(box: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box moved by a detector's inaccuracy and grown as a refiner grows it, on the grid."""
    room = int(rng.integers(0, 90))
    x0, y0, x1, y1 = (int(v + rng.integers(-15, 16)) for v in box)
    return max(0, x0 - room), max(0, y0 - room), min(GRID, x1 + room), min(GRID, y1 + room)


def draw(n: int, seed: int, most: int = 4) -> Iterator[tuple[Image.Image, Image.Image, str, list[list[int]]]]:
    """Broken picture, sound picture, caption, and boxes of what differs, padded to ``most`` by empty ones."""
    rng = np.random.default_rng(seed)
    for record in generate(n, seed):
        boxes = [list(defect.box) for defect in record.defects.artifacts][:most]
        if not boxes and record.defects:
            continue  # what the caption says is not to be seen, and the boxes are of no use
        if not boxes:
            boxes = [list(record.objects[int(rng.integers(len(record.objects)))]["box"])]
        assert record.clean_image is not None
        yield record.image, record.clean_image, record.caption, boxes + [[0, 0, 0, 0]] * (most - len(boxes))


def encoded(pipeline: DiffusionPipeline, n: int, seed: int, part: int = 256) -> dict[str, torch.Tensor]:
    """The columns of :class:`Pairs`."""

    def pixels(images: list[Image.Image]) -> torch.Tensor:
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1

    columns: dict[str, list[torch.Tensor]] = {"sound": [], "broken": [], "boxes": []}
    captions: list[str] = []
    pairs = draw(n, seed)
    with tqdm(total=n, desc="draw") as bar:
        while some := list(islice(pairs, part)):
            broken, sound, texts, boxes = map(list, zip(*some, strict=True))
            columns["broken"].append(encode(pipeline.vae, pixels(broken)))
            columns["sound"].append(encode(pipeline.vae, pixels(sound)))
            columns["boxes"].append(torch.tensor(boxes, dtype=torch.int16))
            captions += texts
            bar.update(part)
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
        whole = path.with_suffix(".part")  # a file is either whole or absent
        save_file(encoded(pipeline, data_args.pairs, data_args.world_seed), whole)
        whole.rename(path)
    config = pipeline.vae.config
    data = Pairs(load_file(path), config.scaling_factor, config.shift_factor)

    # Train; "--resume_from_checkpoint true" goes on from the last complete checkpoint, or starts.
    add_lora(pipeline.transformer, data_args.rank)
    args.remove_unused_columns = False
    trainer = Trainer(
        model=Repair(pipeline), args=args, train_dataset=data, callbacks=[TimedCheckpoints(data_args.save_minutes)]
    )
    checkpoint = last_complete_checkpoint(args.output_dir) if args.resume_from_checkpoint else None
    trainer.train(resume_from_checkpoint=checkpoint)
    save_repair(pipeline, folder / "final")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*TrlParser((RepairArguments, TrainingArguments)).parse_args_and_config())
