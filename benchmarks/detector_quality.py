"""SDG-Eval of a detector on unseen microworld pictures, the grey control, and the curve of its training.

    python benchmarks/detector_quality.py --n 1000 --out benchmarks/results/sdg-tiny

Prints the tables that the README and the card quote, and writes them as ``quality.json``. Answers are greedy,
free-running and unmasked. The grey control gives the same captions over empty grey pictures: a detector that guesses
from captions scores there too.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm import tqdm

from sdg import DefectSet, SDGDetector, SDGEval, microworld
from sdg.cards.results import ROWS
from sdg.defects import TYPES
from sdg.matching import match
from sdg.provenance import write_result
from sdg.records import Record
from sdg.training.degrade import degrade
from sdg.training.generator import find_pipeline
from sdg.training.redraw import redraw_records

SEED = 20_000


def recall_by_kind(records: list[Record], predictions: list[DefectSet], iou: float = 0.5) -> dict[str, list[int]]:
    """Defects of each kind that were found, and how many there are."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for record, predicted in zip(records, predictions, strict=True):
        hit = {j for _, j, score in match(predicted, record.defects) if score >= iou}
        for index, kind in enumerate(record.kinds):
            found[kind][0] += index in hit
            found[kind][1] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1][0] / item[1][1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdg-tiny")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--grey", type=int, default=200, help="pictures of the grey control")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--answer_only", action="store_true", help="without think texts")
    parser.add_argument(
        "--degraded", action="store_true", help="the same pictures blurred, noised, compressed, rescaled"
    )
    parser.add_argument("--redrawn", help="the same pictures through this generator: an embedded name or a folder")
    parser.add_argument("--embedder", default="auto", help="sentence embedder of DescCos, 'none' for none")
    parser.add_argument("--out", type=Path, help="folder for the figures; its curve.jsonl is printed")
    parser.add_argument("--name", default="quality.json", help="file of the figures in that folder")
    args = parser.parse_args()

    detector = SDGDetector.from_pretrained(args.model, answer_only=args.answer_only)
    records = list(microworld.generate(args.n, SEED, "test"))
    if args.degraded:
        rng = np.random.default_rng(SEED)
        records = [replace(r, image=degrade(r.image, rng)) for r in records]
    if args.redrawn:
        pipeline = DiffusionPipeline.from_pretrained(find_pipeline(args.redrawn), torch_dtype=torch.float32)
        records = list(redraw_records(records, pipeline, np.random.default_rng(SEED)))
    captions, references = [r.caption for r in records], [r.defects for r in records]
    began = time.perf_counter()
    answers = detector.iter([r.image for r in records], captions, batch_size=args.batch_size)
    predictions = list(tqdm(answers, total=args.n, desc="test pictures"))
    rate = args.n / (time.perf_counter() - began)
    grey_images = [Image.new("RGB", r.image.size, (128, 128, 128)) for r in records[: args.grey]]
    grey_answers = detector(grey_images, captions[: args.grey], batch_size=args.batch_size)

    embedder = None if args.embedder == "none" else args.embedder
    result = SDGEval(embedder=embedder, ci=0.95).compute(predictions=predictions, references=references)
    grey = SDGEval(embedder=None).compute(predictions=grey_answers, references=references[: args.grey])
    kinds = recall_by_kind(records, predictions)

    print(f"\n{args.model}: {args.n} microworld pictures, split test, seed {SEED}; embedder {result['embedder']}\n")
    print("| metric | artifact | misalignment |\n|---|---|---|")
    for row in ROWS:
        cells = []
        for name in (f"{t}/{row}" for t in TYPES):
            low, high = result[f"{name}/ci"]
            cells.append("undefined" if math.isnan(result[name]) else f"{result[name]:.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {row} | {' | '.join(cells)} |")
    on_grey = [f"{grey[f'{t}/box_f1@0.5']:.3f}" for t in TYPES]
    print(f"| box_f1@0.5 on grey pictures | {' | '.join(on_grey)} |")
    print(f"\nparse rate {result['parse_rate']:.3f}, strict rate {result['strict_rate']:.3f}, {rate:.1f} pictures/s\n")
    print("| kind of defect | found at IoU 0.5 | of |\n|---|---|---|")
    for kind, (found, total) in kinds.items():
        print(f"| {kind} | {found / total:.2f} | {total} |")

    if args.out:
        record = {
            "model": args.model,
            "data": {"world": "microworld", "split": "test", "seed": SEED, "n": args.n},
            "metrics": result,
            "grey": grey | {"n_images": len(grey_images)},
            "recall_by_kind@0.5": kinds,
        }
        write_result(args.out / args.name, record)
        curve = args.out / "curve.jsonl"
        if curve.exists():
            print("\n| pictures seen | artifact F1@0.5 | misalignment F1@0.5 | clean art. / mis. | readable |")
            print("|---|---|---|---|---|")
            for point in map(json.loads, curve.read_text().splitlines()):
                cells = [f"{point[f'{t}/box_f1@0.5']:.3f}" for t in TYPES]
                clean = " / ".join(f"{point[f'{t}/cln_acc']:.2f}" for t in TYPES)
                print(f"| {point['pictures']:,} | {' | '.join(cells)} | {clean} | {point['parse_rate']:.3f} |")


if __name__ == "__main__":
    main()
