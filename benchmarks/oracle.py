"""How far the microworld's oracle, which is no model, agrees with the known defects of drawn pictures.

    python benchmarks/oracle.py --n 500

Thresholds were set on the validation split; the test split is what counts. Pictures are measured as drawn and mildly
degraded (blur, noise, JPEG, rescaling). A defect counts as found where the oracle reports one of its type whose box has
IoU 0.1 or more with it (one-to-one), and named alike where it is of the same kind too.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from sdg import microworld
from sdg.matching import match
from sdg.microworld.oracle import Measurement, measure
from sdg.records import Record
from sdg.training.degrade import degrade

SEED = 40_000
TYPES = ("artifact", "misalignment")
NAMES = {"warp": "irregular", "smear": "irregular"}
"""What the oracle calls a kind, where it has another name."""


def load(record: Record, type: str) -> float:
    """The true defect load of one type."""
    return sum(d.importance or 100 for d in record.defects.of_type(type)) / 100


def report(records: list[Record], measured: list[Measurement]) -> tuple[list[list[str]], dict[str, list[int]]]:
    """Rows of agreement by type; and by kind of defect: found, named alike, all."""
    kinds: dict[str, list[int]] = {}
    for record, found in zip(records, measured, strict=True):
        hits = {j: i for i, j, iou in match(found.defects, record.defects) if iou >= 0.1}
        for j, kind in enumerate(record.kinds):
            counts = kinds.setdefault(kind, [0, 0, 0])
            counts[0] += j in hits
            counts[1] += j in hits and found.kinds[hits[j]] == NAMES.get(kind, kind)
            counts[2] += 1
    rows = []
    for t in TYPES:
        true = np.array([bool(r.defects.of_type(t)) for r in records])
        said = np.array([bool(m.defects.of_type(t)) for m in measured])
        loads = np.array([(load(r, t), m.load(t)) for r, m in zip(records, measured, strict=True)])
        rows.append(
            [
                t,
                f"{(said & true).sum() / max(1, true.sum()):.3f}",
                f"{(said & ~true).sum() / max(1, (~true).sum()):.3f}",
                f"{spearmanr(*loads.T).statistic:.3f}",
                f"{np.abs(loads[:, 0] - loads[:, 1]).mean():.3f}",
                f"{loads[:, 0].mean():.3f}",
                f"{loads[:, 1].mean():.3f}",
            ]
        )
    return rows, kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    args = parser.parse_args()

    records = list(microworld.generate(args.n, SEED, args.split))
    rng = np.random.default_rng(SEED)
    pictures = {"as drawn": [r.image for r in records], "degraded": [degrade(r.image, rng) for r in records]}
    tables = {}
    began = time.process_time()
    for view, images in pictures.items():
        pairs = zip(images, records, strict=True)
        tables[view] = report(
            records, [measure(i, r.caption) for i, r in tqdm(pairs, total=args.n, desc=view, mininterval=30)]
        )
    rate = len(tables) * args.n / (time.process_time() - began)
    print(
        f"\n{args.n} microworld pictures, split {args.split}, seed {SEED}; {rate:.0f} pictures a second of one core\n"
    )
    print("| pictures | type | recall | false alarms | Spearman of loads | error of load | true load | measured |")
    print("|---|---|---|---|---|---|---|---|")
    for view, (rows, _) in tables.items():
        for row in rows:
            print(f"| {view} | {' | '.join(row)} |")
    print("\n| kind | found, as drawn | named alike | found, degraded | named alike | of |\n|---|---|---|---|---|---|")
    order = Counter({kind: counts[0] / counts[2] for kind, counts in tables["as drawn"][1].items()})
    for kind, _ in order.most_common():
        cells = [f"{t[1][kind][i] / t[1][kind][2]:.2f}" for t in tables.values() for i in (0, 1)]
        print(f"| {kind} | {' | '.join(cells)} | {tables['as drawn'][1][kind][2]} |")


if __name__ == "__main__":
    main()
