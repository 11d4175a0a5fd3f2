"""How well sdg-tiny-scorer ranks unseen microworld pictures.

    python benchmarks/scorer.py --n 1000

Spearman correlation between its mark and ``1 - min(1, sum of importance / 100)``, on pictures as drawn and mildly
degraded, over all pictures and over those whose true mark is neither 0 nor 1.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import spearmanr

from sdg import microworld
from sdg.defects import DefectSet
from sdg.microworld.scorer import MicroworldScorer
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
    for name, chosen in parts.items():
        cells = [f"{spearmanr(m[chosen], truth[chosen]).statistic:.3f}" for m in marks.values()]
        print(f"| {name} | {' | '.join(cells)} | {int(chosen.sum())} |")
    error = [f"{np.abs(m - truth).mean():.3f}" for m in marks.values()]
    constant = float(np.abs(np.median(truth) - truth).mean())
    print(f"\nmean absolute error {' / '.join(error)} (the best constant: {constant:.3f}); {rate:.0f} pictures/s")


if __name__ == "__main__":
    main()
