"""RichHF-18K: heatmaps of artifacts and misalignments, in TFRecord files or converted to tables or JSON lines.

A type is present where its heatmap exceeds a threshold, 0.33 as in the paper's Table 3; its boxes are the connected
regions above it. Reasons and importance there are none. TFRecord files hold no pictures and no captions: they come
from Pick-a-Pic, by file name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdg.readers.files import Pictures, first_keys, json_lines, read_json, split_of
from sdg.readers.masks import boxes_of, intensity
from sdg.readers.raw import UNUSABLE, Broken, Layout, RawDefect, RawRecord, Raws
from sdg.records import ImageFile

THRESHOLD = 0.33
_MAPS = {"artifact": "artifact_map", "misalignment": "misalignment_map"}
_SCORES = ("aesthetics_score", "artifact_score", "misalignment_score", "overall_score", "prompt_misalignment_label")
_ENDINGS = (".tfrecord", ".tfrecords", ".parquet", ".jsonl")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for ending in _ENDINGS:
        if found := sorted(path.rglob(f"*{ending}")):
            return found
    return []


def _recognise(path: Path) -> bool:
    file = next(iter(_files(path)), None)
    if file is None or file.suffix not in _ENDINGS:
        return False
    if file.suffix == ".jsonl":
        names = first_keys(file)
        return any(key in names or f"{key}_path" in names for key in _MAPS.values())
    if file.suffix == ".parquet":
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_schema

        try:
            return bool(set(read_schema(file).names) & set(_MAPS.values()))
        except (ArrowInvalid, OSError):
            return False
    return True


def _open(
    path: Path,
    split: str | None = None,
    *,
    image_folder: str | Path | None = None,
    captions: str | Path | None = None,
    threshold: float = THRESHOLD,
    min_area: int = 1,
) -> Raws:
    """Open a file, or a folder of them.

    Args:
        path: ``train.tfrecord`` and the like, or a converted form: parquet with the columns ``filename``,
            ``artifact_map``, ``misalignment_map``; JSON lines with the maps as files, ``artifact_map_path``.
        split: ``train``, ``validation`` (``dev``) or ``test``, by the names of files.
        image_folder: where the pictures are.
        captions: the prompt of each file: CSV with the columns filename and caption, or a JSON object.
        threshold: in 0..1; what exceeds it is a defect.
        min_area: regions of fewer pixels of the heatmap are left out.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold} is outside 0..1")
    files = [file for file in _files(path) if split is None or path.is_file() or split_of(file) == split]
    if not files:
        raise FileNotFoundError(f"{path}: no {', '.join(_ENDINGS)} of split {split!r} there")
    prompts = {} if captions is None else _prompts(Path(captions))
    root = path if path.is_dir() else path.parent
    pictures = Pictures(image_folder, root, root / "images")

    def raws(annotations_alone: bool) -> Iterator[RawRecord | Broken]:
        for file in files:
            for item in _rows(file):
                if isinstance(item, Broken):
                    yield item
                    continue
                where, row = item
                try:
                    yield _raw(where, row, split_of(file), pictures, prompts, threshold, min_area)
                except UNUSABLE as error:
                    yield Broken(where, f"heatmap ({error})")

    return raws


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]] | Broken]:
    if file.suffix == ".jsonl":
        yield from json_lines(file)
    elif file.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        with ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=16):
                for row in batch.to_pylist():
                    yield f"{file.name}, row {number}", row
                    number += 1
    else:
        yield from _examples(file)


def _examples(file: Path) -> Iterator[tuple[str, dict[str, Any]] | Broken]:
    try:
        from tfrecord.reader import tfrecord_loader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'TFRecord files need tfrecord: pip install "sdg-t2i[richhf]"', name="tfrecord"
        ) from error
    number = 0
    try:
        for example in tfrecord_loader(str(file), None):
            yield f"{file.name}, example {number}", dict(example)
            number += 1
    except Exception as error:  # the file is cut off or none of its kind: protobuf's and tfrecord's errors are many
        yield Broken(f"{file.name}, example {number}", f"cannot be read, and nothing after it ({error})")


def _raw(
    where: str,
    row: Mapping[str, Any],
    split: str | None,
    pictures: Pictures,
    prompts: Mapping[str, str],
    threshold: float,
    min_area: int,
) -> RawRecord:
    name = _text(row.get("filename"))
    maps = {type: _map(row, key, pictures) for type, key in _MAPS.items()}
    sizes = {(m.shape[1], m.shape[0]) for m in maps.values() if m is not None}
    if len(sizes) > 1:
        raise ValueError(f"the two maps are of sizes {sorted(sizes)}")
    defects = None
    if all(m is not None for m in maps.values()):
        found = [(t, box) for t, m in maps.items() if m is not None for box in boxes_of(m > threshold, min_area)]
        defects = [RawDefect(box, type) for type, box in found]
    kept = {key: _plain(row[key]) for key in _SCORES if row.get(key) is not None}
    embedded = row.get("image")
    image: ImageFile | None = pictures.find(name) if name else None
    if isinstance(embedded, Mapping) and embedded.get("bytes"):
        image = ImageFile(name or None, embedded["bytes"])
    caption = prompts.get(name) or prompts.get(Path(name).name) or row.get("prompt") or row.get("caption") or ""
    return RawRecord(
        where=where,
        image=image,
        defects=defects,
        id=name or where,
        caption=_text(caption),
        order="xyxy",
        space="pixels",
        size=next(iter(sizes), None),
        stretched=True,
        split=split,
        extra={"provenance": {"layout": "RichHF-18K", "file": name, **kept}},
    )


def _map(row: Mapping[str, Any], key: str, pictures: Pictures) -> Any:
    """A heatmap in 0..1; None where there is none, which is no clean picture but one that was not marked."""
    value = row.get(key)
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if value is None and isinstance(row.get(f"{key}_path"), str):
        value = pictures.find(row[f"{key}_path"]).encoded()
    return None if value is None or len(value) == 0 else intensity(value)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _prompts(path: Path) -> dict[str, str]:
    if path.suffix == ".json":
        return {str(name): str(text) for name, text in read_json(path).items()}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    try:
        return {row["filename"]: row["caption"] for row in rows}
    except KeyError as error:
        raise ValueError(f"{path} has no column {error}; it needs filename and caption") from None


RICHHF_18K = Layout(
    name="richhf-18k",
    title="RichHF-18K",
    looks_like="*.tfrecord, or parquet or JSON lines with artifact_map and misalignment_map",
    recognise=_recognise,
    open=_open,
    cheap=False,
)
