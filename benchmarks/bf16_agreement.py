"""How many pictures get other boxes in bfloat16 than in float32, and what that does to the metrics.

    python benchmarks/bf16_agreement.py --model sdg-tiny --n 500

Greedy answers on unseen microworld pictures of the validation split. With ``--write`` the share goes into the
checkpoint's ``sdg_config.json``, where the loader finds it: above 2 % a CPU does not choose bfloat16 by itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sdg import DefectSet, SDGDetector, SDGEval, embedded, microworld
from sdg.engines.base import SETTINGS_FILE
from sdg.engines.places import locate
from sdg.matching import match

SEED = 30_000


def apart(a: DefectSet, b: DefectSet) -> tuple[bool, bool]:
    """Whether two answers hold other boxes, and whether they hold other defects (none at IoU 0.9 of the same type)."""
    boxes = [(d.type, d.box) for d in a] != [(d.type, d.box) for d in b]
    pairs = sum(score >= 0.9 for _, _, score in match(a, b))
    return boxes, not len(a) == len(b) == pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdg-tiny")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--write", action="store_true", help="note the share in the checkpoint (a local folder)")
    args = parser.parse_args()

    records = list(microworld.generate(args.n, SEED, "validation"))
    images, captions = [r.image for r in records], [r.caption for r in records]
    answers = {}
    for dtype in ("float32", "bfloat16"):
        detector = SDGDetector.from_pretrained(args.model, dtype=dtype)
        answers[dtype] = list(detector.iter(images, captions, batch_size=args.batch_size))
    differ = [apart(a, b) for a, b in zip(answers["float32"], answers["bfloat16"], strict=True)]
    boxes, defects = (sum(column) / args.n for column in zip(*differ, strict=True))
    print(f"{args.model}, {args.n} microworld pictures, split validation, seed {SEED}\n")
    print(f"some coordinate differs: {boxes:.3f} of pictures\nsome defect differs (IoU below 0.9): {defects:.3f}\n")
    print("| BoxF1@0.5 | artifact | misalignment |\n|---|---|---|")
    for dtype, found in answers.items():
        result = SDGEval(embedder=None).compute(predictions=found, references=[r.defects for r in records])
        print(f"| {dtype} | {result['artifact/box_f1@0.5']:.3f} | {result['misalignment/box_f1@0.5']:.3f} |")
    if args.write:
        path = Path(locate(args.model), SETTINGS_FILE)
        settings = json.loads(path.read_text(encoding="utf-8")) | {"bf16_differs": round(boxes, 4)}
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        embedded.renew(path.parent)
        print(f"\n{path} says so")


if __name__ == "__main__":
    main()
