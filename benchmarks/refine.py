"""What refinement mends, and what it harms: microworld pictures whose clean render is known.

    python benchmarks/refine.py --n 200 --out benchmarks/results/refine

Judges, none of which the refiner sees: the distance to the clean render (the same scene without artifacts) inside the
true boxes of artifacts and outside all true boxes, and the oracle's defect load. A picture got worse where the oracle's
load rose (at all, or by more than it errs on average), or its distance to the clean render did (mean over pixels,
misaligned objects left out, which a repair may rightly change). Feedback modes are compared where the editor can tell
them apart: the embedded one reads the caption only, so it knows "boxes" and "fixed", which redraws the picture from the
caption. In "known" the editor pastes the clean render, as its autoencoder gives it back: what goes wrong there is not
the fault of drawing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from sdg import Defect, DefectRefiner, SDGDetector, microworld
from sdg.draw import contact_sheet
from sdg.embedded import MANIFEST, ROOT
from sdg.microworld.oracle import measure
from sdg.provenance import write_result
from sdg.records import Record
from sdg.refine.editors import Task
from sdg.refine.loading import load_editor
from sdg.refine.regions import mask_of
from sdg.refine.tiny import TinyEditor

SEED = 60_000
NOTICEABLE = 0.2
"""Rise of the mean distance over a whole picture, of 255, from which it counts."""
ORACLE_ERROR = 0.190 + 0.037
"""How far the oracle's loads of artifacts and of misalignments lie from the true ones on average, on pictures as drawn
(``benchmarks/oracle.py --n 300``)."""
OPTIONS: dict[str, dict[str, Any]] = {
    # From the caption alone nothing stays as it was, and no two pictures are alike: all would be refused.
    "fixed": {"min_similarity": 0.0, "max_spread": 1.0, "min_gain": 0.0, "min_better": 0.0},
    "known": {"feedback": "boxes", "candidates": 1},
}
"""Of :class:`DefectRefiner`, where a mode wants other ones than its own name as ``feedback``."""


class Known:
    """An editor that is told how the picture should look, and pastes that as the embedded one would.

    Args:
        editor: whose autoencoder and pasting are used.
    """

    name, local, types = "clean render", True, TinyEditor.types

    def __init__(self, editor: TinyEditor) -> None:
        self.editor = editor
        self.clean: Image.Image | None = None

    def __call__(self, task: Task, seeds: Sequence[int]) -> list[Image.Image]:
        assert self.clean is not None
        return self.editor.pasted(task, [self.editor.decoded(self.clean)] * len(seeds))


def distances(image: Image.Image, record: Record) -> dict[str, float]:
    """Mean absolute difference to the clean render, of 255: in the boxes of artifacts, outside all boxes, over all."""
    assert record.clean_image is not None
    apart = np.abs(np.asarray(image, dtype=np.float32) - np.asarray(record.clean_image, dtype=np.float32)).mean(axis=2)

    def inside(defects: Sequence[Defect]) -> np.ndarray:
        return np.asarray(mask_of(defects, image.size, 0.0)) > 0

    artifacts, aligned = inside(record.defects.artifacts), ~inside(record.defects.misalignments)
    regions = {"inside": artifacts, "outside": ~artifacts & aligned, "all": aligned}
    return {name: float(apart[region].mean()) if region.any() else 0.0 for name, region in regions.items()}


def judged(record: Record, image: Image.Image) -> dict[str, float]:
    """What the judges say of a picture."""
    seen = measure(image, record.caption)
    return distances(image, record) | {t: seen.load(t) for t in ("artifact", "misalignment")}


def refined(refiner: DefectRefiner, records: Sequence[Record], path: Path, shown: Path | None) -> list[dict[str, Any]]:
    """A line a picture, written as it comes; pictures that have their line are not repaired again."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    lines = lines[: len(records)]
    pairs = []
    with path.open("a") as file:
        for record in tqdm(records[len(lines) :], desc=path.stem):
            if isinstance(refiner.editor, Known):
                refiner.editor.clean = record.clean_image
            began = time.perf_counter()
            out = refiner(record.image, record.caption)
            line = {
                "id": record.id,
                "clean": not record.defects,
                "changed": out.changed,
                "steps": len(out.steps),
                "reason": out.reason,
                "seconds": round(time.perf_counter() - began, 2),
                "before": judged(record, record.image),
                "after": judged(record, out.image),
            }
            file.write(json.dumps(line) + "\n")
            file.flush()
            lines.append(line)
            if out.changed and len(pairs) < 24:
                pairs += [
                    Record(out.original, record.caption, out.before),
                    Record(out.image, "repaired", out.after),
                ]
    if shown is not None and pairs:
        contact_sheet(pairs, columns=6).save(shown)
    return lines


def remember(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder with lines of other settings: what is gone on with must be of one kind."""
    path = folder / "settings.json"
    known = path.exists() and json.loads(path.read_text()) == settings
    if not known and (path.exists() or any(folder.glob("*.jsonl"))):
        raise SystemExit(f"{folder} holds pictures of other settings ({path}): choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1))


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures of one mode."""

    def share(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    def mean(when: str, what: str, some: Sequence[dict[str, Any]]) -> float:
        return share([line[when][what] for line in some])

    broken = [line for line in lines if line["before"]["inside"] > 0]
    clean = [line for line in lines if line["clean"]]
    rises = [sum(li["after"][t] - li["before"][t] for t in ("artifact", "misalignment")) for li in lines]
    worse = {
        "oracle": [rise > 0.01 for rise in rises],
        "distance": [line["after"]["all"] - line["before"]["all"] > NOTICEABLE for line in lines],
    }
    load = {when: mean(when, "artifact", broken) for when in ("before", "after")}
    return {
        "pictures": len(lines),
        "pictures with artifacts": len(broken),
        "changed": float(np.mean([line["changed"] for line in lines])),
        "oracle, artifact load before": load["before"],
        "oracle, artifact load after": load["after"],
        "oracle, artifact load removed": 1 - load["after"] / load["before"],
        "oracle, misalignment load before": mean("before", "misalignment", lines),
        "oracle, misalignment load after": mean("after", "misalignment", lines),
        "distance inside true boxes, before": mean("before", "inside", broken),
        "distance inside true boxes, after": mean("after", "inside", broken),
        "distance outside, before": mean("before", "outside", lines),
        "distance outside, after": mean("after", "outside", lines),
        "clean pictures": len(clean),
        "clean pictures bit-identical": share([not line["changed"] for line in clean]),
        "worse by the oracle": float(np.mean(worse["oracle"])),
        "worse by the oracle, by more than its errors": float(np.mean([rise > ORACLE_ERROR for rise in rises])),
        "worse by distance": float(np.mean(worse["distance"])),
        "worse by both": float(np.mean(np.logical_and(*worse.values()))),
        "seconds a picture": float(np.mean([line["seconds"] for line in lines])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--split", default="test", help="validation is for choosing settings")
    parser.add_argument("--model", default="sdg-tiny")
    parser.add_argument("--editor", default="sdg-tiny-t2i")
    parser.add_argument("--modes", nargs="+", default=["boxes", "fixed", "known"])
    parser.add_argument("--options", type=json.loads, default={}, help="JSON: further options of DefectRefiner")
    parser.add_argument("--out", type=Path, default=Path("runs/refine"), help="folder; an interrupted run goes on")
    args = parser.parse_args()

    records = list(microworld.generate(args.n, SEED, args.split))
    detector, editor = SDGDetector.from_pretrained(args.model), load_editor(args.editor)
    limits = {name: getattr(editor, name, None) for name in ("max_spread", "min_gain", "min_better")}
    said = {"split": args.split, "model": args.model, "editor": args.editor, "options": args.options, "limits": limits}
    remember(args.out, said | {"embedded": (ROOT / MANIFEST).read_text()})
    results = {}
    for mode in args.modes:
        options = {"feedback": mode, **OPTIONS.get(mode, {}), **args.options}
        chosen = Known(TinyEditor.from_pretrained()) if mode == "known" else editor
        refiner = DefectRefiner(detector, chosen, **options)
        lines = refined(refiner, records, args.out / f"{mode}.jsonl", args.out / f"{mode}.jpg")
        results[mode] = summary(lines)
    print(f"\n{args.n} microworld pictures, split {args.split}, seed {SEED}; {args.model}, {args.editor}\n")
    print(f"| | {' | '.join(results)} |\n|---|{'---|' * len(results)}")
    for name in next(iter(results.values())):
        print(f"| {name} | {' | '.join(f'{r[name]:.3g}' for r in results.values())} |")
    record = {"data": {"world": "microworld", "split": args.split, "seed": SEED, "n": args.n}}
    record |= {"model": args.model, "editor": args.editor, "options": args.options, "modes": results}
    write_result(args.out / "refine.json", record)


if __name__ == "__main__":
    main()
