"""The microworld as a data set: parquet files of records, one folder a split, drawn in parts by several processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import sdg
from sdg.cards import CARD, render, size_category
from sdg.microworld import ARTIFACTS, COMPOSITION, MISALIGNMENTS, Split, generate
from sdg.microworld.kinds import COLOURS, KINDS
from sdg.microworld.render import REFERENCE_SIZE
from sdg.microworld.scene import SPLITS
from sdg.records import Record, whole, write_records

PLAN_FILE = "microworld.json"
"""What a folder is to hold, written before the first part: a later call goes on with the same or is refused."""

MIXES = {"clean": "no defect", "artifact": "artifacts", "misalignment": "misalignments", "both": "both"}

Alter = Callable[[Iterable[Record], np.random.Generator], Iterable[Record]]
"""What becomes of drawn records before they are written; a name of a module, so that other processes find it."""


@dataclass(frozen=True)
class Plan:
    """Which microworld a folder is to hold.

    Args:
        sizes: records of each split; a split of 0 is left out.
        seed: same plan, same pictures.
        part: records a file.
        size: side of the pictures in pixels.
        uncaptioned: share of training records without a caption, 0..1.
        clean: draw no defects at all.
        altered: what :data:`Alter` does, in words, where there is one.

    Raises:
        ValueError: naming the field and the value.
    """

    sizes: Mapping[Split, int]
    seed: int = 0
    part: int = 2000
    size: int = REFERENCE_SIZE
    uncaptioned: float = 0.04
    clean: bool = False
    altered: str | None = None

    def __post_init__(self) -> None:
        for split, n in self.sizes.items():
            if split not in SPLITS:
                raise ValueError(f"sizes: {split!r} is none of {', '.join(SPLITS)}")
            if n < 0:
                raise ValueError(f"{split}={n} is negative; a split of 0 is left out")
        if not any(self.sizes.values()):
            raise ValueError(f"{', '.join(f'{s}={n}' for s, n in self.sizes.items())}: there is nothing to draw")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is negative")
        if self.part < 1:
            raise ValueError(f"part={self.part} must be at least 1 record a file")
        if not 0 <= self.uncaptioned <= 1:
            raise ValueError(f"uncaptioned={self.uncaptioned} is not a share, 0..1")
        if self.size < 64:
            raise ValueError(f"size={self.size} is below 64 pixels, where defects can no longer be seen")

    def to_json(self) -> dict[str, object]:
        """The plan as it is written down; ``sizes`` in the order of the splits."""
        sizes = {split: self.sizes.get(split, 0) for split in SPLITS}  # type: ignore[call-overload]
        return {**vars(self), "sizes": sizes}

    def parts(self) -> Iterator[tuple[Split, int, int]]:
        """Split, number of the first record and number of records of each file."""
        for split, total in self.sizes.items():
            for start in range(0, total, self.part):
                yield split, start, min(self.part, total - start)


def write_dataset(
    out: str | os.PathLike[str],
    plan: Plan,
    *,
    workers: int | None = None,
    alter: Alter | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    command: str = "sdg.microworld.dataset.write_dataset",
) -> Path:
    """Draw a data set into a folder that ``datasets.load_dataset`` reads, at once or streaming.

    ``out/train/0000000.parquet`` and so on hold the rows of :func:`sdg.records.features`; the card, ``README.md``,
    names the splits and comes last. Parts that are there are kept, so that a call after a stop goes on.

    Args:
        out: an empty or new folder, or one of the same plan.
        plan: what to draw.
        workers: processes; None is one a core.
        alter: changes records on the way, with a generator of random numbers that depends on seed and part only.
        progress: called with how many parts are there, and how many there will be.
        command: how the card says that the data set was made.

    Returns:
        the folder.

    Raises:
        FileExistsError: for a folder that holds other things, or another plan.
        OSError: where nothing can be written.
        ValueError: for ``workers`` below 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    out = Path(out)
    _claim(out, plan)
    parts = [(out / split / f"{start:07d}.parquet", split, start, n) for split, start, n in plan.parts()]
    missing = [part for part in parts if not part[0].exists()]
    done = len(parts) - len(missing)
    progress(done, len(parts))
    for folder in {path.parent for path, *_ in missing}:
        folder.mkdir(exist_ok=True)
    workers = min(workers or os.cpu_count() or 1, len(missing))
    if workers <= 1:
        for path, split, start, n in missing:
            _draw(path, plan, split, start, n, alter)
            progress(done := done + 1, len(parts))
    else:
        # Not forked: threads of the caller, such as a progress bar's, would be copied with their locks held.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_draw, path, plan, split, start, n, alter) for path, split, start, n in missing]
            try:
                for job in as_completed(jobs):
                    job.result()
                    progress(done := done + 1, len(parts))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    with whole(out / CARD) as file:
        file.write(f"{card(plan, command)}\n".encode())
    return out


def card(plan: Plan, command: str) -> object:
    """The data set's card, with the places of its splits in the head."""
    from huggingface_hub import DatasetCardData

    splits = {split: n for split in SPLITS if (n := plan.sizes.get(split, 0))}  # type: ignore[call-overload]
    data = DatasetCardData(
        pretty_name="The microworld",
        license="apache-2.0",
        language="en",
        size_categories=[size_category(sum(splits.values()))],
        task_categories=["image-text-to-text", "object-detection", "text-to-image"],
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        source_datasets=["original"],
        tags=["synthetic", "text-to-image", "evaluation", "defect-detection"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}/*.parquet"} for split in splits],
            }
        ],
    )
    odds = {"no defect": 1.0} if plan.clean else {MIXES[mix]: share for mix, share in COMPOSITION.items()}
    return render(
        "microworld",
        data,
        size=plan.size,
        splits=splits,
        composition=odds,
        uncaptioned=plan.uncaptioned if splits.get("train") else 0,
        kinds=len(KINDS),
        colours=len(COLOURS),
        defects=len(ARTIFACTS) + len(MISALIGNMENTS),
        altered=plan.altered,
        command=command,
        version=sdg.__version__,
    )


def _draw(path: Path, plan: Plan, split: Split, start: int, n: int, alter: Alter | None) -> None:
    """Draw one file, which gets its name when it is whole."""
    share = plan.uncaptioned if split == "train" else 0.0
    drawn: Iterable[Record] = generate(
        n, plan.seed, split, size=plan.size, start=start, uncaptioned=share, clean=plan.clean
    )
    if alter is not None:
        drawn = alter(drawn, np.random.default_rng((plan.seed, start)))
    write_records(drawn, path)


def _claim(out: Path, plan: Plan) -> None:
    """Make the folder this plan's, or refuse one that is another's."""
    wanted = json.loads(json.dumps(plan.to_json()))
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; the data set is a folder: name another place")
    file = out / PLAN_FILE
    if file.is_file():
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            there = None
        if there == wanted:
            return
        differ = [k for k in wanted if not isinstance(there, dict) or there.get(k) != wanted[k]]
        told = ", ".join(f"{k} {there[k]} there, {wanted[k]} wanted" for k in differ if there and k in there)
        raise FileExistsError(
            f"{out} holds another microworld ({told or f'{file} cannot be read'}): draw into a new folder, or ask for"
            " the same to go on with it"
        )
    out.mkdir(parents=True, exist_ok=True)
    if other := sorted(p.name for p in out.iterdir()):
        raise FileExistsError(
            f"{out} holds {', '.join(other[:3])}{' and more' if len(other) > 3 else ''}, and no {PLAN_FILE}, by which a"
            " microworld is known: draw into a new folder"
        )
    with whole(file) as opened:
        opened.write((json.dumps(wanted, indent=1) + "\n").encode())
