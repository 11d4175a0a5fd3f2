"""Data sets of records for training: loading them, and batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from sdg.boxes import BoxOrder
from sdg.readers import read, recognise
from sdg.records import features, load_records, to_row

OBJECT_CHARACTERS = 90
"""Length of an answer object around its description."""
_METADATA = "metadata.parquet"
"""The table of an image folder, whose pictures stand beside it."""
_ANNOTATIONS = (".json", ".jsonl", ".csv", ".parquet", ".tfrecord")


def load_training_rows(source: str | Path, split: str = "train", order: BoxOrder | None = None) -> Any:
    """Rows of records as a ``datasets.Dataset``; pictures stay encoded until they are used.

    Args:
        source: whatever :func:`sdg.readers.read` reads: this library's own records, a released layout, a Hub id.
        split: of an SDG-30K snapshot; everything else is taken whole.
        order: box order, where the layout does not declare it.

    Raises:
        ValueError: as :func:`sdg.readers.read`; nothing is skipped or mended on the way into training.
        FileNotFoundError: for a missing picture.
    """
    import datasets

    root = Path(source)
    layout = recognise(root) if root.exists() else None
    parquet = [root] if root.is_file() else list(root.glob("*.parquet"))
    if layout == "records" and parquet and all(f.suffix == ".parquet" and f.name != _METADATA for f in parquet):
        data = load_records(root)
    else:
        chosen = None if root.is_file() or layout not in (None, "sdg-30k") else split
        rows = {"source": str(source), "split": chosen, "order": order, "stamp": _stamp(root)}
        data = datasets.Dataset.from_generator(_rows, gen_kwargs=rows, features=features())
    return data.cast_column("image", datasets.Image(decode=False))


def hold_out(rows: Any, n: int) -> tuple[Any, Any]:
    """Keep rows aside for evaluation, so that no caption is on both sides.

    Args:
        rows: a ``datasets.Dataset`` with a column ``caption``.
        n: how many rows to keep aside, the last ones; others that share a caption with them are left out of training.

    Returns:
        rows to train on, and the ``n`` rows kept aside.

    Raises:
        ValueError: where nothing would be left to train on.
    """
    captions = rows["caption"]
    kept = list(range(max(len(captions) - n, 0), len(captions)))
    aside = {captions[i] for i in kept}
    train = [i for i in range(kept[0] if kept else len(captions)) if captions[i] not in aside]
    if not train:
        raise ValueError(f"hold_out={n} leaves none of {len(captions)} records to train on")
    return rows.select(train), rows.select(kept)


def _stamp(root: Path) -> str:
    """Names, sizes and times of annotation files: ``datasets`` keeps rows by the arguments that made them, and rows of
    files that were changed since are not to come back."""
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix in _ANNOTATIONS)
    return repr([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _rows(source: str, split: str | None, order: BoxOrder | None, stamp: str) -> Iterator[dict[str, Any]]:
    del stamp  # it only tells one state of the files from another
    for record in read(source, split=split, order=order, images=False):
        row = to_row(record, embed=False)
        path = row["image"]["path"]
        if row["image"]["bytes"] is None and not Path(path).is_file():
            raise FileNotFoundError(f"{record.provenance}: the picture {path} is missing")
        yield row


def text_length(row: Mapping[str, Any]) -> int:
    """Characters that a row's caption, think text and answer take, roughly: what batches are grouped by."""
    answer = sum(OBJECT_CHARACTERS + len(d["reason"] or "") for d in row["defects"])
    return len(row["caption"] or "") + len(row["reasoning"] or "") + answer


class LengthGroupedBatches(Sampler[int]):
    """Indices in an order in which ``batch_size`` neighbours are of like length.

    The shuffled indices are cut into pools, a pool is sorted by length and cut into batches, and the batches of the
    whole epoch are shuffled again, so that long and short batches follow one another at random.

    Args:
        lengths: of every example.
        batch_size: neighbours that will make one batch.
        pool: batches to a pool; 1 groups nothing.
        seed: of the order; every epoch has its own, and the same again after a restart.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, pool: int = 8, seed: int = 0) -> None:
        if pool < 1:
            raise ValueError(f"pool={pool} batches: a pool has at least one")
        self.lengths = np.asarray(lengths)
        self.batch_size, self.pool, self.seed, self.epoch = batch_size, pool, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loader at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        whole = len(order) // self.batch_size * self.batch_size
        batches: list[np.ndarray] = []
        for start in range(0, whole, self.batch_size * self.pool):
            chosen = order[start : min(start + self.batch_size * self.pool, whole)]
            chosen = chosen[np.argsort(self.lengths[chosen], kind="stable")]
            batches += [chosen[i : i + self.batch_size] for i in range(0, len(chosen), self.batch_size)]
        for index in rng.permutation(len(batches)):
            yield from batches[index].tolist()
        yield from order[whole:].tolist()
