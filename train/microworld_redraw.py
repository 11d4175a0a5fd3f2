"""Pass drawn pictures through a generator, so that a detector learns how generated pictures look; labels stay.

    python train/microworld_data.py --out data/microworld --n_train 16000 --n_validation 400 --n_test 1000 --seed 4
    python train/microworld_redraw.py --data data/microworld --out data/microworld-redrawn --pipeline sdg-tiny-t2i

A picture goes through the autoencoder, and a share of them through some noise as well, which the transformer takes away
again. Parts that are already there are kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from sdg.records import from_row, load_records, to_dataset
from sdg.training.generator import find_pipeline, redraw


def redraw_part(source: Path, path: Path, pipeline: DiffusionPipeline, most: float, noisy: float, batch: int) -> None:
    """Redraw one parquet file; written under another name first, so that a file is either whole or absent."""
    records = [from_row(row) for row in load_records(source)]
    rng = np.random.default_rng(int(source.stem))
    drawn = []
    for start in range(0, len(records), batch):
        some = records[start : start + batch]
        strength = float(rng.uniform(0, most)) if rng.random() < noisy else 0.0
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        images = redraw(pipeline, [r.image for r in some], [r.caption for r in some], strength, generator)
        for record, image in zip(some, images, strict=True):
            provenance = {**record.provenance, "redrawn": round(strength, 3)}
            drawn.append(replace(record, image=image, clean_image=None, provenance=provenance))
    whole = path.with_suffix(".part")
    to_dataset(drawn).to_parquet(whole)
    whole.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of microworld_data.py; a sub-folder a split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pipeline", default="sdg-tiny-t2i", help="folder, or the embedded name")
    parser.add_argument("--most", type=float, default=0.4, help="largest share of noise that is put in")
    parser.add_argument("--noisy", type=float, default=0.6, help="share of pictures that get noise at all")
    parser.add_argument("--batch_size", type=int, default=25)
    args = parser.parse_args()

    pipeline = DiffusionPipeline.from_pretrained(find_pipeline(args.pipeline), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for source in tqdm(sorted(args.data.glob("*/*.parquet")), desc="parts"):
        path = args.out / source.parent.name / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            redraw_part(source, path, pipeline, args.most, args.noisy, args.batch_size)


if __name__ == "__main__":
    main()
