"""Let the generator try to mend drawn pictures, so that a detector learns how failed attempts look.

    python train/microworld_mended.py --out data/microworld-mended --n 6000

Parts that are already there are kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sdg.boxes import GRID
from sdg.defects import Defect
from sdg.microworld import generate
from sdg.records import Record, to_dataset
from sdg.refine.editors import EditError
from sdg.refine.feedback import Feedback, task_of
from sdg.refine.regions import groups
from sdg.refine.tiny import TinyEditor
from sdg.training.mended import object_at, relabelled

GROW = 0.03


def attempts(record: Record, editor: TinyEditor, rng: np.random.Generator, candidates: int) -> Iterator[Record]:
    """What the editor makes of a picture, at a strength that is drawn; of a faultless one it mends an object."""
    if record.defects.misalignments:
        return
    if record.defects:
        targets = list(record.defects)
        kinds = [object_at(record, index) for index in range(len(targets))]
        if len(groups(targets, record.image.size, GROW)) < len(targets):
            return
    else:
        thing = record.objects[int(rng.integers(len(record.objects)))]
        targets, kinds = [Defect(tuple(thing["box"]), "artifact", "", 50)], [thing["kind"]]
    editor.strengths = (float(rng.uniform(0.4, 0.95)),)
    task = task_of(record.image, record.caption, targets, Feedback.BOXES, GROW)
    room = round(GRID * GROW)
    places = [
        ((max(0, x0 - room), max(0, y0 - room), min(GRID, x1 + room), min(GRID, y1 + room)), kind)
        for (x0, y0, x1, y1), kind in ((target.box, kind) for target, kind in zip(targets, kinds, strict=True))
    ]
    # As good as an edit can be: the clean render, as the generator's decoder shows it, in the same place.
    yield relabelled(record, editor.pasted(task, [editor.decoded(record.clean_image)])[0], places, rng)
    for edited in editor(task, [int(rng.integers(2**31)) for _ in range(candidates)]):
        if not isinstance(edited, EditError):
            yield relabelled(record, edited, places, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder; one sub-folder a split")
    parser.add_argument("--n", type=int, default=1800, help="pictures to draw for training; about half can be used")
    parser.add_argument("--n_validation", type=int, default=150)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=2, help="attempts at each")
    parser.add_argument("--part", type=int, default=150, help="pictures a file")
    args = parser.parse_args()

    editor = TinyEditor.from_pretrained()
    for split, n in (("validation", args.n_validation), ("train", args.n)):
        folder = args.out / split
        folder.mkdir(parents=True, exist_ok=True)
        for start in tqdm(range(0, n, args.part), desc=split):
            path = folder / f"{start:07d}.parquet"
            if path.exists():
                continue
            rng = np.random.default_rng((args.seed, start))
            drawn = generate(args.part, args.seed, split, start=start)
            made = [attempt for record in drawn for attempt in attempts(record, editor, rng, args.candidates)]
            whole = path.with_suffix(".part")  # a file is either whole or absent
            to_dataset(made).to_parquet(whole)
            whole.rename(path)


if __name__ == "__main__":
    main()
