"""What sdg-tiny-t2i draws: how often a picture is what its caption says, by the oracle, and where it fails.

    python benchmarks/generator.py --n 300 --sheet docs/img/generator.png

Captions are unseen ones of one or two objects, of the test split; validation is for choosing between checkpoints. The
oracle is no model; docs/oracle.md says where it errs. The same figures are printed for the pictures that the world
itself draws for these captions, plain and through the generator's autoencoder: what the oracle reports there is its own
error, or the autoencoder's.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from PIL import Image
from tqdm import tqdm

from sdg import microworld
from sdg.defects import TYPES, DefectSet
from sdg.draw import contact_sheet
from sdg.microworld.oracle import Measurement, measure
from sdg.microworld.scorer import MicroworldScorer
from sdg.provenance import write_result
from sdg.records import Record
from sdg.training.generator import MOST_OBJECTS, SHORT, find_pipeline
from sdg.training.redraw import redraw

SEED = 80_000
OF_OBJECTS = ("missing_object", "extra_object", "wrong_object", "wrong_count")


def figures(images: list[Image.Image], captions: list[str], marks: list[float]) -> dict[str, float | dict[str, float]]:
    """Shares and loads over the pictures."""
    seen: list[Measurement] = [measure(i, c) for i, c in tqdm(zip(images, captions, strict=True), mininterval=30)]
    kinds = Counter(kind for one in seen for kind in set(one.kinds))
    return {
        "as the caption says": float(np.mean([not one.defects.misalignments for one in seen])),
        "the right objects": float(np.mean([not set(OF_OBJECTS) & set(one.kinds) for one in seen])),
        "without an artifact": float(np.mean([not one.defects.artifacts for one in seen])),
        **{f"load of {t}s": float(np.mean([one.load(t) for one in seen])) for t in TYPES},
        "scorer's mark": float(np.mean(marks)),
        "kinds": {kind: count / len(seen) for kind, count in kinds.most_common()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdg-tiny-t2i", help="embedded name or folder")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--split", default="test")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--sheet", type=Path, help="write the first 24 pictures as a sheet")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    logging.set_verbosity_error()  # each call says that the third encoder reads one token
    drawn = microworld.generate(3 * args.n + 30, SEED, args.split, clean=True)
    records = [record for record in drawn if len(record.objects) <= MOST_OBJECTS][: args.n]
    captions = [record.caption for record in records]
    pipeline = DiffusionPipeline.from_pretrained(find_pipeline(args.model), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    images: list[Image.Image] = []
    began = time.perf_counter()
    for start in range(0, len(captions), args.batch_size):
        some = captions[start : start + args.batch_size]
        options = {"guidance_scale": 1.0, "num_inference_steps": args.steps, "max_sequence_length": SHORT}
        images += pipeline(some, generator=generator, **options).images
    rate = len(images) / (time.perf_counter() - began)

    plain = [record.image for record in records]
    decoded = [
        image for i in range(0, len(plain), 50) for image in redraw(pipeline, plain[i : i + 50], [], 0.0, generator)
    ]
    score = MicroworldScorer.from_pretrained("sdg-tiny-scorer").score
    rows = {
        name: figures(pictures, captions, score(pictures, captions))
        for name, pictures in {"generated": images, "drawn": plain, "drawn, through the autoencoder": decoded}.items()
    }
    print(f"\n{args.model}: {len(images)} captions, split {args.split}, seed {SEED}; {args.steps} steps, no guidance\n")
    print(f"| by the oracle | {' | '.join(rows)} |\n|{'---|' * (len(rows) + 1)}")
    for name in rows["generated"]:
        if name != "kinds":
            print(f"| {name} | {' | '.join(f'{row[name]:.3f}' for row in rows.values())} |")
    print("\n| share of generated pictures with | |\n|---|---|")
    for kind, share in rows["generated"]["kinds"].items():  # type: ignore[union-attr]
        print(f"| {kind} | {share:.2f} |")
    print(f"\n{rate:.1f} pictures/s on {torch.get_num_threads()} threads")
    if args.sheet:
        cells = [Record(image, caption, DefectSet(())) for image, caption in zip(images[:24], captions, strict=False)]
        contact_sheet(cells, columns=6).save(args.sheet)
    if args.out:
        write_result(args.out, {"seed": SEED, "n": len(images), "figures": rows})


if __name__ == "__main__":
    main()
