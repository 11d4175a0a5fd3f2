"""Prompts to align a generator on: lines of a text file, a column of a table, or the microworld's captions."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from datasets import Dataset, load_dataset

from sdg import microworld
from sdg.training.generator import MOST_OBJECTS

MICROWORLD = "microworld"
LOADERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def load_prompts(
    source: str | Path,
    size: int = 0,
    column: str = "prompt",
    *,
    split: microworld.Split = "train",
    seed: int = 0,
) -> Dataset:
    """A data set with the one column ``prompt``, as :class:`sdg.BoxFlowGRPOTrainer` wants it.

    Args:
        source: a text file with a prompt a line; a parquet, JSONL or CSV file; a folder of parquet files; or
            ``"microworld"`` for captions of one or two objects, drawn anew.
        size: prompts taken, the first ones; 0 takes all. The microworld needs a number.
        column: of a table; ``caption`` is taken where there is no ``prompt``.
        split: of the microworld's captions.
        seed: of the microworld's captions.

    Raises:
        ValueError: for a source of another kind, without that column, or without any prompt.
        FileNotFoundError: for a file that is not there.
    """
    if str(source) == MICROWORLD:
        if size < 1:
            raise ValueError(f"{size} captions of the microworld: say how many, there is no end to them")
        # Small pictures, for only captions are kept; three times as many as needed are enough for the few that fit.
        records = microworld.generate(3 * size + 30, seed, split, size=64, clean=True)
        fit = (record.caption for record in records if len(record.objects) <= MOST_OBJECTS)
        return Dataset.from_dict({"prompt": list(islice(fit, size))})
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; give a text file, a table, a folder of parquet, or 'microworld'")
    if path.suffix == ".txt":
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        prompts = _column(path, column)
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise ValueError(f"{path} holds no prompt")
    return Dataset.from_dict({"prompt": prompts[:size] if size else prompts})


def _column(path: Path, column: str) -> list[str]:
    """The texts of a table's column, stripped."""
    kind = "parquet" if path.is_dir() else LOADERS.get(path.suffix)
    if kind is None:
        raise ValueError(f"{path} is none of .txt, {', '.join(LOADERS)} and no folder of parquet files")
    files = sorted(map(str, path.rglob("*.parquet"))) if path.is_dir() else [str(path)]
    if not files:
        raise ValueError(f"{path} holds no parquet file")
    table = load_dataset(kind, data_files=files, split="train")
    if column == "prompt" and "prompt" not in table.column_names:
        column = "caption"
    if column not in table.column_names:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(table.column_names)}")
    texts = table.select_columns([column])[column]
    wrong = next((text for text in texts if not isinstance(text, str | None)), None)
    if wrong is not None:
        raise ValueError(f"{path}: column {column!r} holds {wrong!r:.60}, which is no text")
    return [(text or "").strip() for text in texts]
