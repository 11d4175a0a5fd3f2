"""Whether a checkpoint's confidence holds on pictures that nothing was fitted on, and what further looks add.

    python benchmarks/calibration.py --out benchmarks/results/sdg-tiny --plot docs/img/confidence.png

The pictures are the microworld's test split: as they are drawn, and degraded (blur, noise, JPEG, rescaling). Prints the
tables that docs/confidence.md quotes and writes them as ``confidence.json``. After a change of the weights fit anew:

    sdg calibrate sdg-tiny microworld --n 2500 --world microworld
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from sdg import DefectSet, SDGDetector, microworld
from sdg.calibration import FEATURES, Judged, agreement, mirrored, mirrored_caption
from sdg.calibration.fitting import Answers
from sdg.calibration.plot import plot_confidence
from sdg.detector.looks import SeveralLooks
from sdg.detector.observe import observe
from sdg.provenance import write_result
from sdg.records import Record
from sdg.training.degrade import degrade

SEED = 20_000


def uncalibrated(answers: Answers) -> list[DefectSet]:
    """The bare probability of type and box as confidence: that of the label times the mean one of a coordinate."""
    label, box = FEATURES.index("label"), FEATURES.index("box")
    sets = []
    for found, table in zip(answers.found, answers.tables, strict=True):
        bare = np.exp(table[:, label] + table[:, box]).tolist()
        sets.append(replace(found, defects=tuple(replace(d, confidence=c) for d, c in zip(found, bare, strict=True))))
    return sets


def with_shares(found: list[DefectSet], shares: list[list[float]], weight: float) -> list[DefectSet]:
    """Confidence = weight * share of looks + (1 - weight) * calibrated."""
    mixed = []
    for one, row in zip(found, shares, strict=True):
        both = [weight * share + (1 - weight) * d.confidence for d, share in zip(one, row, strict=True)]
        mixed.append(replace(one, defects=tuple(replace(d, confidence=c) for d, c in zip(one, both, strict=True))))
    return mixed


def f1_of(found: list[DefectSet], truth: list[DefectSet]) -> tuple[float, float, float]:
    row = Judged.of(found, truth).table([0.0])[0]
    return row["precision"], row["recall"], row["f1"]


def further_looks(detector: SDGDetector, records: list[Record], samples: int, batch_size: int) -> list[dict[str, Any]]:
    """What drawn answers and a mirrored look add to the greedy answer, as confidence and as votes."""
    images, captions, truth = [r.image for r in records], [r.caption for r in records], [r.defects for r in records]
    looks = SeveralLooks(detector, samples=samples)
    seconds = [time.perf_counter()]
    first = detector(images, captions, batch_size=batch_size)
    seconds.append(time.perf_counter())
    drawn = [looks._drawn(images, captions, k, batch_size) for k in range(samples)]
    seconds.append(time.perf_counter())
    words = [mirrored_caption(c) for c in captions]
    turned = detector([ImageOps.mirror(i) for i in images], words, batch_size=batch_size)
    seconds.append(time.perf_counter())
    one, drawing, mirroring = np.diff(seconds).tolist()
    turned = [mirrored(found) for found in turned]
    ways = {
        "one look, calibrated": ([], one),
        f"{samples} drawn": (drawn, one + drawing),
        "mirrored": ([turned], one + mirroring),
        f"{samples} drawn and mirrored": ([*drawn, turned], one + drawing + mirroring),
    }
    rows = []
    for name, (others, cost) in ways.items():
        shares = [agreement(found, [look[i] for look in others]) for i, found in enumerate(first)]
        row: dict[str, Any] = {"looks": name, "pictures_per_s": len(records) / cost}
        for label, weight in (("calibrated", 0.0), ("agreement", 1.0), ("mean", 0.5)):
            if others or not weight:
                judged = Judged.of(with_shares(first, shares, weight), truth)
                row[label] = {"auroc": judged.auroc(), "ece": judged.ece(), "brier": judged.brier()}
        votes = [
            replace(found, defects=tuple(d for d, s in zip(found, row_, strict=True) if s > 0.5))
            for found, row_ in zip(first, shares, strict=True)
        ]
        row["majority"] = dict(zip(("precision", "recall", "f1"), f1_of(votes, truth), strict=True))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdg-tiny")
    parser.add_argument("--n", type=int, default=500, help="test pictures, and as many degraded ones")
    parser.add_argument("--looks", type=int, default=400, help="pictures that are looked at several times; 0 for none")
    parser.add_argument("--samples", type=int, default=4, help="drawn looks a picture")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--out", type=Path, help="folder for confidence.json")
    parser.add_argument("--plot", type=Path, help="picture file for the curves")
    args = parser.parse_args()

    detector = SDGDetector.from_pretrained(args.model)
    calibration = detector.trust.calibration
    if calibration is None:
        raise SystemExit(f"{args.model} has no calibration: sdg calibrate {args.model} DATA")
    rng = np.random.default_rng(SEED)
    plain = list(microworld.generate(args.n, SEED, "test"))
    degraded = [replace(r, image=degrade(r.image, rng)) for r in microworld.generate(args.n, SEED + 1, "test")]

    results: dict[str, Any] = {}
    answered = {}
    for name, records in (("plain", plain), ("degraded", degraded)):
        answered[name] = observe(detector, records, batch_size=args.batch_size)
        results[name] = answered[name].judged(calibration).summary()
        bare = Judged.of(uncalibrated(answered[name]), answered[name].truth)
        results[name]["uncalibrated"] = {"ece": bare.ece(), "brier": bare.brier(), "auroc": bare.auroc()}
    both = Answers(*([*a, *b] for a, b in zip(*(vars(a).values() for a in answered.values()), strict=True)))
    judged = both.judged(calibration)
    results["both"] = judged.summary()
    if args.looks:
        half = args.looks // 2
        results["looks"] = further_looks(detector, plain[:half] + degraded[:half], args.samples, args.batch_size)

    print(f"\n{args.model}, microworld test pictures, calibrated on validation\n")
    print(
        "| pictures | defects | right | ECE | Brier | AUROC | ECE uncalibrated | AUROC |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name in ("plain", "degraded"):
        r, bare = results[name], results[name]["uncalibrated"]
        cells = [r["right"], r["ece"], r["brier"], r["auroc"], bare["ece"], bare["auroc"]]
        print(f"| {r['pictures']} {name} | {r['defects']} | {' | '.join(f'{c:.3f}' for c in cells)} |")
    print(
        "\n| min_confidence | kept | precision | recall | F1 | clean pictures with a defect |\n"
        "|---|---|---|---|---|---|"
    )
    for row in results["both"]["thresholds"]:
        cells = " | ".join(f"{row[k]:.3f}" for k in ("precision", "recall", "f1", "false_alarm"))
        print(f"| {row['threshold']:g} | {row['kept']} | {cells} |")
    print()
    if args.looks:
        print("| looks | AUROC calibrated / agreement / mean | ECE | majority: precision / recall / F1 | pictures/s |")
        print("|---|---|---|---|---|")
        for row in results["looks"]:
            ways = [row[k] for k in ("calibrated", "agreement", "mean") if k in row]
            cells = [" / ".join(f"{w[k]:.3f}" for w in ways) for k in ("auroc", "ece")]
            cells.append(" / ".join(f"{v:.3f}" for v in row["majority"].values()))
            print(f"| {row['looks']} | {' | '.join(cells)} | {row['pictures_per_s']:.1f} |")

    if args.plot:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        title = f"{args.model} on {len(both)} microworld test pictures, half of them degraded"
        plot_confidence(judged, title).savefig(args.plot, dpi=120)
    if args.out:
        write_result(args.out / "confidence.json", {"split": "test", "seed": SEED, **results})


if __name__ == "__main__":
    main()
