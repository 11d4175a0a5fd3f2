"""How well sdg-tiny-scorer ranks unseen microworld pictures.

    python benchmarks/scorer.py --n 1000

Spearman correlation between its mark and ``1 - min(1, sum of importance / 100)``, on pictures as drawn and mildly
degraded, over all pictures and over those whose true mark is neither 0 nor 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from sdg import microworld
from sdg.defects import DefectSet
from sdg.microworld.scorer import MicroworldScorer
from sdg.provenance import write_result
from sdg.training.degrade import degrade

SEED = 30_000


def true_mark(defects: DefectSet) -> float:
    """1 for a clean picture, less by a hundredth of every defect's importance, never below 0."""
    return 1 - min(1.0, sum(d.importance or 100 for d in defects) / 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdg-tiny-scorer")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    scorer = MicroworldScorer.from_pretrained(args.model)
    records = list(microworld.generate(args.n, SEED, args.split))
    captions = [r.caption for r in records]
    truth = np.array([true_mark(r.defects) for r in records])
    parts = {
        "all": np.ones(args.n, dtype=bool),
        "true mark within (0, 1)": (truth > 0) & (truth < 1),
        "artifacts only, or clean": np.array([not r.defects.misalignments for r in records]),
        "misalignments only, or clean": np.array([not r.defects.artifacts for r in records]),
    }
    rng = np.random.default_rng(SEED)
    views = {"as drawn": [r.image for r in records], "degraded": [degrade(r.image, rng) for r in records]}
    print(f"{args.model}: {args.n} microworld pictures, split {args.split}, seed {SEED}\n")
    print("| pictures | Spearman, as drawn | degraded | of |\n|---|---|---|---|")
    began = time.perf_counter()
    marks = {name: np.array(scorer.score(images, captions)) for name, images in views.items()}
    rate = 2 * args.n / (time.perf_counter() - began)
    rows = {
        name: {view: float(spearmanr(m[chosen], truth[chosen]).statistic) for view, m in marks.items()}
        | {"of": int(chosen.sum())}
        for name, chosen in parts.items()
    }
    for name, row in rows.items():
        print(f"| {name} | {row['as drawn']:.3f} | {row['degraded']:.3f} | {row['of']} |")
    error = {view: float(np.abs(m - truth).mean()) for view, m in marks.items()}
    constant = float(np.abs(np.median(truth) - truth).mean())
    said = " / ".join(f"{e:.3f}" for e in error.values())
    print(f"\nmean absolute error {said} (the best constant: {constant:.3f}); {rate:.0f} pictures/s")
    if args.out:
        data = {"world": "microworld", "split": args.split, "seed": SEED, "n": args.n}
        figures = {"spearman": rows, "mean absolute error": {**error, "the best constant": constant}}
        write_result(args.out, {"model": args.model, "data": data, **figures})


if __name__ == "__main__":
    main()
