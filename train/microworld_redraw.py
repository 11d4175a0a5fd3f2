"""Pass drawn pictures through a generator, so that a detector learns how generated pictures look; labels stay.

    python train/microworld_data.py --out data/microworld4 --n_train 24000 --n_validation 384 --seed 4
    python train/microworld_redraw.py --data data/microworld4 --out data/microworld-redrawn --share 0.5

A redrawn picture goes through the autoencoder, and most of them through some noise as well, which the transformer takes
away again. Parts that are already there are kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from tqdm import tqdm

from sdg.records import from_row, load_records, to_dataset
from sdg.training.generator import find_pipeline
from sdg.training.redraw import redraw_records


def redraw_part(source: Path, path: Path, pipeline: DiffusionPipeline, share: float) -> None:
    """Redraw one parquet file; written under another name first, so that a file is either whole or absent."""
    records = (from_row(row) for row in load_records(source))
    whole = path.with_suffix(".part")
    to_dataset(redraw_records(records, pipeline, np.random.default_rng(int(source.stem)), share)).to_parquet(whole)
    whole.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of microworld_data.py; a sub-folder a split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pipeline", default="sdg-tiny-t2i", help="folder, or the embedded name")
    parser.add_argument("--share", type=float, default=1.0, help="of the pictures that are redrawn; others are kept")
    args = parser.parse_args()

    logging.set_verbosity_error()  # else every batch says that its captions were cut short, which they were not
    pipeline = DiffusionPipeline.from_pretrained(find_pipeline(args.pipeline), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for source in tqdm(sorted(args.data.glob("*/*.parquet")), desc="parts"):
        path = args.out / source.parent.name / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            redraw_part(source, path, pipeline, args.share)


if __name__ == "__main__":
    main()
