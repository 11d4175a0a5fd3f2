"""Draw a microworld data set to parquet, in parts, on all cores: `sdg microworld --out`, with what training asks for.

    python train/microworld_data.py --out data/microworld --n_train 64000 --n_validation 512

Parts that are already there are kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sdg.microworld.dataset import Plan, write_dataset
from sdg.provenance import made_by
from sdg.records import Record
from sdg.training.degrade import degrade


def degraded(records: Iterable[Record], rng: np.random.Generator, share: float) -> Iterator[Record]:
    """The records, a share of whose pictures are blurred, noised, compressed or rescaled."""
    return (replace(r, image=degrade(r.image, rng)) if rng.random() < share else r for r in records)


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
    parser.add_argument("--workers", type=int, default=None, help="processes; one a core where it is left out")
    args = parser.parse_args()

    plan = Plan(
        {"train": args.n_train, "validation": args.n_validation, "test": args.n_test},
        seed=args.seed,
        part=args.part,
        uncaptioned=args.uncaptioned,
        clean=args.clean,
        altered=f"{100 * args.degraded:g} % of the pictures were degraded" if args.degraded else None,
    )
    alter = partial(degraded, share=args.degraded) if args.degraded else None
    with tqdm(total=len(list(plan.parts())), desc="parts") as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        command = made_by()["command"]
        write_dataset(args.out, plan, workers=args.workers, alter=alter, progress=progress, command=command)


if __name__ == "__main__":
    main()
