"""Stand-ins of the released layouts, written as their authors' files are understood to be; all state one truth."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sdg.defects import Defect, DefectSet
from sdg.records import ImageFile, Record, write_records

SIZE = (200, 100)
"""Width and height of the pictures: pixels are a fifth and a tenth of the grid."""
N = 40


@dataclass(frozen=True)
class Item:
    """What is true of one picture."""

    name: str
    caption: str
    defects: tuple[Defect, ...]


def truth(n: int = N, seed: int = 0) -> list[Item]:
    """Pictures with at most one defect of each type, whose reasons say where it is; every eighth is clean."""
    rng = np.random.default_rng(seed)
    items = []
    for k in range(n):
        defects = []
        for type in ("artifact", "misalignment")[: 0 if k % 8 == 7 else 1 + k % 2]:
            # Halves do not touch, so that heatmaps keep the two apart.
            x0, y0 = 10 * int(rng.integers(0, 70)), 10 * int(rng.integers(0, 70))
            x1, y1 = x0 + 10 * int(rng.integers(10, 29)), y0 + 10 * int(rng.integers(10, 29))
            across, down = "left" if x0 + x1 < 1000 else "right", "top" if y0 + y1 < 1000 else "bottom"
            reason = f"the handle at image-{across}, image-{down} is melted into the wall"
            defects.append(Defect((x0, y0, x1, y1), type, reason, int(rng.integers(1, 101))))
        items.append(Item(f"{k:05d}.png", f"a red teapot, number {k}", tuple(defects)))
    return items


def pictures(folder: Path, items: list[Item]) -> None:
    """A picture for each item."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, item in enumerate(items):
        Image.new("RGB", SIZE, (k % 256, 80, 120)).save(folder / item.name)


def pixels(box: tuple[int, ...], transposed: bool = False) -> list[float]:
    """A grid box in pixels, xyxy."""
    x0, y0, x1, y1 = box[0] / 5, box[1] / 10, box[2] / 5, box[3] / 10
    return [y0, x0, y1, x1] if transposed else [x0, y0, x1, y1]


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def box_of(defect: Defect, order: str) -> list[int]:
    x0, y0, x1, y1 = defect.box
    return [x0, y0, x1, y1] if order == "xyxy" else [y0, x0, y1, x1]


def write_sdg30k(
    root: Path, items: list[Item], transposed: bool = False, fields: str = "ann", image_key: str = "filepath"
) -> Path:
    """A snapshot: images/, annotations/train.jsonl and test.jsonl; ``fields`` is ann, plain, gt or gemini."""
    pictures(root / "images", items)
    declared = "yxyx" if fields == "gemini" else "xyxy"
    order = declared if not transposed else {"xyxy": "yxyx", "yxyx": "xyxy"}[declared]
    prefix = "" if fields == "plain" else f"{fields}_"
    rows = []
    for item in items:
        told = [
            {"box_2d": box_of(d, order), "label": d.type.value, "description": d.reason, "importance": d.importance}
            for d in item.defects
        ]
        row = {image_key: f"images/{item.name}", "caption": item.caption, "generator": "sana"}
        if fields == "ann":
            row["ann_translated_bboxes"] = told
        else:
            for type in ("artifact", "misalignment"):
                row[f"{prefix}{type}_bboxes"] = [t for t in told if t["label"] == type]
        rows.append(row)
    half = max(1, len(rows) * 3 // 4)
    lines(root / "annotations" / "train.jsonl", rows[:half])
    lines(root / "annotations" / "test.jsonl", rows[half:])
    return root


def write_coco(root: Path, items: list[Item], transposed: bool = False) -> Path:
    """One JSON file, xywh in pixels."""
    pictures(root / "images", items)
    annotations = []
    for k, item in enumerate(items):
        for d in item.defects:
            x0, y0, x1, y1 = pixels(d.box, transposed)
            bbox = [x0, y0, x1 - x0, y1 - y0]
            about = {"category_id": 1 if d.type == "artifact" else 2, "reason": d.reason, "importance": d.importance}
            annotations.append({"id": len(annotations), "image_id": k, "bbox": bbox, **about})
    images = [
        {"id": k, "file_name": item.name, "width": SIZE[0], "height": SIZE[1], "caption": item.caption}
        for k, item in enumerate(items)
    ]
    categories = [{"id": 1, "name": "artifact"}, {"id": 2, "name": "misalignment"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / "instances.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return path


def write_hadm(root: Path, items: list[Item], transposed: bool = False) -> Path:
    """One JSON file a picture; every other box has its corners the wrong way round, as the released files have."""
    pictures(root / "images", items)
    (root / "annotations").mkdir(parents=True)
    for k, item in enumerate(items):
        local = [
            {"body_parts": "hand", "level": "severe", "bbox": _swapped(pixels(d.box, transposed), k)}
            for d in item.defects
            if d.type == "artifact"
        ]
        human = [
            {"tag": ["human with extra arm"], "bbox": pixels(d.box, transposed)}
            for d in item.defects
            if d.type == "misalignment"
        ]
        content = {"image": {"width": SIZE[0], "height": SIZE[1]}, "annotation": local, "human": human}
        (root / "annotations" / Path(item.name).with_suffix(".json")).write_text(json.dumps(content))
    return root


def _swapped(box: list[float], k: int) -> list[float]:
    return box[2:] + box[:2] if k % 2 else box


def heatmaps(item: Item, transposed: bool = False) -> dict[str, np.ndarray]:
    """A map of each type, 0..255, (height, width)."""
    maps = {}
    for type in ("artifact", "misalignment"):
        heat = np.zeros(SIZE[::-1], dtype=np.uint8)
        for d in item.defects:
            if d.type == type:
                x0, y0, x1, y1 = map(int, pixels(d.box))
                heat[y0:y1, x0:x1] = 200
        maps[type] = heat.T.copy() if transposed else heat
    return maps


def png(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def write_richhf(root: Path, items: list[Item], transposed: bool = False) -> Path:
    """A TFRecord file, as in google-research/richhf_18k, with the pictures and captions beside it."""
    from tfrecord import TFRecordWriter

    pictures(root / "train", items)
    writer = TFRecordWriter(str(root / "train.tfrecord"))
    for item in items:
        maps = heatmaps(item, transposed)
        writer.write(
            {
                "filename": (f"train/{item.name}".encode(), "byte"),
                "aesthetics_score": (0.5, "float"),
                "artifact_score": (0.25, "float"),
                "misalignment_score": (0.75, "float"),
                "overall_score": (0.5, "float"),
                "artifact_map": (png(maps["artifact"]), "byte"),
                "misalignment_map": (png(maps["misalignment"]), "byte"),
                "prompt_misalignment_label": (b"1 1 0", "byte"),
            }
        )
    writer.close()
    return root


def write_richhf_lines(root: Path, items: list[Item], transposed: bool = False) -> Path:
    """The converted form: JSON lines with the maps as files."""
    pictures(root / "images", items)
    (root / "maps").mkdir()
    rows = []
    for item in items:
        row = {"filename": item.name, "prompt": item.caption}
        for type, heat in heatmaps(item, transposed).items():
            row[f"{type}_map_path"] = f"maps/{type}-{item.name}"
            Image.fromarray(heat).save(root / row[f"{type}_map_path"])
        rows.append(row)
    lines(root / "richhf.jsonl", rows)
    return root / "richhf.jsonl"


def write_genblemish(root: Path, items: list[Item], transposed: bool = False) -> Path:
    """Pictures with regions: a mask, a category and a description each."""
    pictures(root / "images", items)
    (root / "masks").mkdir()
    rows = []
    for item in items:
        regions = []
        for k, d in enumerate(item.defects):
            mask = heatmaps(Item(item.name, item.caption, (d,)), transposed)[d.type.value]
            name = f"{Path(item.name).stem}-{k}.png"
            Image.fromarray(mask).save(root / "masks" / name)
            category = "hand distortion" if d.type == "artifact" else "missing object"
            regions.append({"mask": name, "category": category, "description": d.reason})
        rows.append({"image": item.name, "prompt": item.caption, "regions": regions})
    lines(root / "annotations.jsonl", rows)
    return root


def records(items: list[Item], folder: Path | None = None, transposed: bool = False) -> list[Record]:
    """The items as records, with pictures in ``folder`` or drawn."""
    made = []
    for k, item in enumerate(items):
        defects = item.defects
        if transposed:
            turned = [(d.box[1], d.box[0], d.box[3], d.box[2]) for d in defects]
            defects = tuple(
                Defect(box, d.type, d.reason, d.importance) for box, d in zip(turned, item.defects, strict=True)
            )
        image = Image.new("RGB", SIZE, (k % 256, 80, 120)) if folder is None else ImageFile(str(folder / item.name))
        split = "test" if k % 4 == 3 else "train"
        made.append(Record(image, item.caption, DefectSet(defects), id=item.name, generator="sana", split=split))
    return made


def write_own(root: Path, items: list[Item], transposed: bool = False) -> Path:
    """This library's own parquet."""
    write_records(records(items, transposed=transposed), root / "records")
    return root / "records"


def write_folder(root: Path, items: list[Item], table: str = "captions.csv") -> Path:
    """Pictures and captions: a table, or a text file beside each picture (``table="txt"``)."""
    pictures(root, items)
    if table == "txt":
        for item in items:
            (root / item.name).with_suffix(".txt").write_text(item.caption, encoding="utf-8")
    elif table.endswith(".csv"):
        with (root / table).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", "caption"])
            writer.writerows((item.name, item.caption) for item in items)
    else:
        lines(root / table, [{"file_name": item.name, "caption": item.caption} for item in items])
    return root


WRITERS: dict[str, tuple[str, Callable[..., Path]]] = {
    "sdg-30k ann": ("sdg-30k", write_sdg30k),
    "sdg-30k plain": ("sdg-30k", lambda *a, **k: write_sdg30k(*a, fields="plain", image_key="filename", **k)),
    "sdg-30k gemini": ("sdg-30k", lambda *a, **k: write_sdg30k(*a, fields="gemini", image_key="image_path", **k)),
    "sdg-30k gt": ("sdg-30k", lambda *a, **k: write_sdg30k(*a, fields="gt", **k)),
    "coco": ("coco", write_coco),
    "hadm": ("hadm", write_hadm),
    "richhf-18k": ("richhf-18k", write_richhf),
    "richhf-18k lines": ("richhf-18k", write_richhf_lines),
    "genblemish-27k": ("genblemish-27k", write_genblemish),
    "records": ("records", write_own),
}
"""Every layout with annotations: its name, and what writes a stand-in: (folder, items, transposed=False) -> source."""


def order_for(stand_in: str) -> str | None:
    """The order that the caller has to say, for the one layout that does not declare it."""
    return "xyxy" if stand_in == "sdg-30k gt" else None
