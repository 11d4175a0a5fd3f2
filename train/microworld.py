"""Train sdg-tiny-t2i, a text-to-image pipeline for the microworld, in two stages: an autoencoder, then what draws.

    python train/microworld_data.py --out data/microworld-clean --clean --uncaptioned 0 --seed 2 --n_train 64000
    python train/microworld.py --config train/configs/t2i_autoencoder.yaml
    python train/microworld.py --config train/configs/t2i_flow.yaml

Each stage resumes from its last checkpoint and leaves the whole pipeline in OUTPUT_DIR/final. A third one, in
train/microworld_repair.py, teaches it to mend pictures.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Image as ImageFeature
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import Trainer, TrainingArguments
from trl import TrlParser

from sdg.defects import DefectSet
from sdg.draw import contact_sheet
from sdg.microworld import VOCABULARY
from sdg.records import Record, load_records
from sdg.training.callbacks import TimedCheckpoints
from sdg.training.checkpoint import last_complete_checkpoint
from sdg.training.dense import DenseVocabulary
from sdg.training.generator import (
    MOST_OBJECTS,
    SHORT,
    Flow,
    Reconstruction,
    build_pipeline,
    encode,
    normalise,
    object_labels,
    save,
    token_ids,
)
from sdg.training.optim import MuonWithAdamW
from sdg.training.precision import without_emulated_bf16


@dataclass
class GeneratorArguments:
    """What to train, and on what."""

    stage: str = field(metadata={"help": "autoencoder or flow."})
    data: str = field(metadata={"help": "Folder of clean records as parquet."})
    pipeline: str | None = field(
        default=None, metadata={"help": "Pipeline to go on from, for flow: the autoencoder's."}
    )
    latents: str | None = field(default=None, metadata={"help": "File that holds the encoded pictures; made once."})
    muon: bool = field(default=True, metadata={"help": "Muon for matrices, AdamW for the rest."})
    save_minutes: float = field(default=4.0, metadata={"help": "Minutes between checkpoints."})
    max_objects: int = field(default=MOST_OBJECTS, metadata={"help": "Flow: leave pictures with more objects out."})
    dense_weight: float = field(default=0.1, metadata={"help": "Flow: weight of the heads that name what is where."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


def pixels(rows: list[dict]) -> torch.Tensor:
    """Pictures of record rows in [-1, 1], (N, 3, H, W)."""
    arrays = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows]
    tensor = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor


class Encoded(Dataset):
    """Normalised latents with the ids of their captions."""

    def __init__(self, columns: dict[str, torch.Tensor], scale: float, shift: float) -> None:
        self.columns, self.scale, self.shift = columns, scale, shift

    def __len__(self) -> int:
        return len(self.columns["latents"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = {name: column[index] for name, column in self.columns.items()}
        return row | {"latents": (row["latents"].float() - self.shift) * self.scale}


def main(data_args: GeneratorArguments, args: TrainingArguments) -> None:
    """The whole recipe."""
    if data_args.threads:
        torch.set_num_threads(data_args.threads)
    without_emulated_bf16(args)

    # Load and build.
    rows = load_records(data_args.data).select_columns(["image", "caption"])
    rows = rows.cast_column("image", ImageFeature(decode=False))
    if data_args.pipeline:  # its text encoders would come in the bfloat16 that they are saved in
        pipeline = DiffusionPipeline.from_pretrained(data_args.pipeline, torch_dtype=torch.float32)
    else:
        pipeline = build_pipeline(VOCABULARY)
    if data_args.stage == "autoencoder":
        model = Reconstruction(pipeline.vae)
        data, collate = rows, lambda batch: {"pixel_values": pixels(batch)}
    elif data_args.stage == "flow":
        things = load_records(data_args.data).select_columns(["objects", "defects"])
        vocabulary = DenseVocabulary.of(things)
        model, collate = Flow(pipeline, vocabulary, data_args.dense_weight), None
        path = Path(data_args.latents or Path(args.output_dir) / "latents.safetensors")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            starts = tqdm(range(0, len(rows), 256), desc="encode")
            parts = [encode(pipeline.vae, pixels(list(rows.skip(i).take(256)))) for i in starts]
            whole = path.with_suffix(".part")  # a file is either whole or absent
            save_file({"latents": torch.cat(parts)} | token_ids(pipeline, rows["caption"]), whole)
            whole.rename(path)
        columns = load_file(path)
        normalise(pipeline.vae, columns["latents"])
        few = torch.tensor([len(objects) <= data_args.max_objects for objects in things["objects"]])
        columns = {name: column[few] for name, column in columns.items()}
        rows = rows.select(few.nonzero().flatten().tolist())
        columns |= object_labels([o for o in things["objects"] if len(o) <= data_args.max_objects], vocabulary)
        data = Encoded(columns, pipeline.vae.config.scaling_factor, pipeline.vae.config.shift_factor)
    else:
        raise ValueError(f"stage={data_args.stage!r} is neither 'autoencoder' nor 'flow'")
    args.remove_unused_columns = False
    optimizer = MuonWithAdamW([model], args.learning_rate, args.weight_decay) if data_args.muon else None
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data,
        data_collator=collate,
        optimizers=(optimizer, None),
        callbacks=[TimedCheckpoints(data_args.save_minutes)],
    )

    # Train; "--resume_from_checkpoint true" goes on from the last complete checkpoint, or starts.
    checkpoint = last_complete_checkpoint(args.output_dir) if args.resume_from_checkpoint else None
    trainer.train(resume_from_checkpoint=checkpoint)

    # Look, and save.
    folder = Path(args.output_dir)
    captions = rows[:24]["caption"]
    if data_args.stage == "autoencoder":
        with torch.no_grad():
            pictures = pixels(list(rows.take(24)))
            decoded = pipeline.vae.decode(pipeline.vae.encode(pictures).latents).sample
        images = pipeline.image_processor.postprocess(decoded)
    else:
        images = pipeline(
            captions,
            guidance_scale=1.0,
            num_inference_steps=20,
            max_sequence_length=SHORT,
            generator=torch.Generator().manual_seed(0),
        ).images
    drawn = (Record(image, caption, DefectSet(())) for image, caption in zip(images, captions, strict=True))
    contact_sheet(drawn, columns=6).save(folder / "sheet.png")
    save(pipeline, folder / "final")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*TrlParser((GeneratorArguments, TrainingArguments)).parse_args_and_config())
