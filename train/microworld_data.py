"""Draw a microworld data set to parquet, in parts, on all cores.

    python train/microworld_data.py --out data/microworld --n_train 60000 --n_validation 1000

Parts that are already there are kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sdg import microworld
from sdg.records import to_dataset
from sdg.training.degrade import degrade


def draw_part(
    path: Path, split: str, seed: int, start: int, n: int, uncaptioned: float, clean: bool, degraded: float
) -> Path:
    """Draw one parquet file; written under another name first, so that a file is either whole or absent."""
    records = microworld.generate(n, seed, split, start=start, uncaptioned=uncaptioned, clean=clean)
    rng = np.random.default_rng((seed, start))
    if degraded:
        records = (replace(r, image=degrade(r.image, rng)) if rng.random() < degraded else r for r in records)
    whole = path.with_suffix(".part")
    to_dataset(records).to_parquet(whole)
    return whole.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder; one sub-folder a split")
    parser.add_argument("--n_train", type=int, default=60_000)
    parser.add_argument("--n_validation", type=int, default=1_000)
    parser.add_argument("--n_test", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=int, default=2_000, help="records a file")
    parser.add_argument("--uncaptioned", type=float, default=0.04, help="share of training records without a caption")
    parser.add_argument("--clean", action="store_true", help="no defects at all: what the generator learns from")
    parser.add_argument("--degraded", type=float, default=0.0, help="share of pictures blurred, noised, compressed ...")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()

    jobs = []
    for split in ("train", "validation", "test"):
        folder, total = args.out / split, getattr(args, f"n_{split}")
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, total, args.part):
            path = folder / f"{start:07d}.parquet"
            if not path.exists():
                share = args.uncaptioned if split == "train" else 0.0
                jobs.append(
                    (path, split, args.seed, start, min(args.part, total - start), share, args.clean, args.degraded)
                )
    with ProcessPoolExecutor(args.workers) as pool:
        for done in tqdm([pool.submit(draw_part, *job) for job in jobs], desc="parts"):
            done.result()


if __name__ == "__main__":
    main()
