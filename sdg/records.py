"""One annotated picture, and the row that it becomes in a data set.

A :class:`Record` is what readers yield, the microworld draws and training consumes. :func:`features` declares the
columns, :func:`to_row` and :func:`from_row` convert, so that records survive parquet, streaming and the Hub.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

from PIL import Image

from sdg.defects import DefectSet

if TYPE_CHECKING:
    from datasets import Dataset, Features


IMAGE_NAMES = ("file_name", "image_file")
"""Columns that name a picture beside the rows."""

EMBEDDED = "data:image/*;base64,"
"""How a picture begins that stands in a line of JSON itself."""


Form = Literal["parquet", "imagefolder", "jsonl"]
"""What records are written as."""

_FLUSH_BYTES = 32 * 2**20
_FLUSH_ROWS = 256
_PART_BYTES = 512 * 2**20
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}


@dataclass(frozen=True)
class ImageFile:
    """A picture that nobody opened yet: a file, or the bytes of one.

    Args:
        path: of the file, or only its name where there are bytes.
        data: the encoded picture, where it is in memory.
    """

    path: str | None = None
    data: bytes | None = field(default=None, repr=False)

    def open(self) -> Image.Image:
        """The picture as RGB, decoded.

        Raises:
            OSError: where it is missing or cannot be decoded.
        """
        with Image.open(self._source()) as image:
            return image.convert("RGB")

    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the head of the file alone."""
        with Image.open(self._source()) as image:
            return image.size

    def encoded(self) -> bytes:
        """The bytes of the file."""
        return Path(str(self.path)).read_bytes() if self.data is None else self.data

    def _source(self) -> Any:
        return self.path if self.data is None else io.BytesIO(self.data)


class _Picture:
    """The field ``image``: given a picture or an :class:`ImageFile`, read as a picture, opened when first asked for."""

    def __get__(self, record: Any, owner: type | None = None) -> Any:
        if record is None:
            return self
        held = record.__dict__
        if held["_image"] is None:
            held["_image"] = held["_file"].open()
        return held["_image"]

    def __set__(self, record: Any, value: Image.Image | ImageFile) -> None:
        file = value if isinstance(value, ImageFile) else None
        record.__dict__["_file"] = file
        record.__dict__["_image"] = value if file is None else None


@dataclass(frozen=True)
class Record:
    """A generated picture, the caption it was made from, and its defects.

    Args:
        image: RGB picture, or an :class:`ImageFile`, which is opened when ``image`` is first asked for.
        caption: the prompt; empty where none is known.
        defects: the true defects, boxes on the 0..1000 grid; ``defects.reasoning`` is the think text. A clean picture
            has an empty set; of a picture that nobody looked at it has a ``parse_error``, and cannot become a row.
        id: unique within the data set.
        generator: name of the model that made the picture.
        split: ``train``, ``validation`` or ``test``.
        kinds: finer name of each defect, aligned with ``defects`` (the microworld's ``smear`` and the like), or empty.
        objects: what the picture shows, back to front, as ``{"kind", "colour", "box"}``; known for drawn pictures only.
        clean_image: the same scene without artifacts; known for drawn pictures only.
        provenance: where the record comes from, JSON values.
    """

    image: Image.Image
    caption: str
    defects: DefectSet
    id: str = ""
    generator: str | None = None
    split: str | None = None
    kinds: tuple[str, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()
    clean_image: Image.Image | None = field(default=None, repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kinds and len(self.kinds) != len(self.defects):
            raise ValueError(
                f"kinds={self.kinds!r} names {len(self.kinds)} defects, the record has {len(self.defects)}"
            )

    @property
    def image_file(self) -> ImageFile | None:
        """The file that ``image`` comes from; None for a picture that was given as such."""
        file: ImageFile | None = self.__dict__["_file"]
        return file

    def replace(self, **changes: Any) -> Record:
        """A record with other values; unlike :func:`dataclasses.replace` it leaves an unopened picture unopened."""
        return replace(self, **{"image": self.image_file or self.image, **changes})


# Not in the class body, where dataclass would take it for the default of the field.
setattr(Record, "image", _Picture())  # noqa: B010


def features(with_clean_image: bool = False) -> Features:
    """The columns of a data set of records, as ``datasets.Features``."""
    from datasets import Features, Image, List, Value

    box = List(Value("int32"), length=4)
    defect = {
        "box": box,
        "type": Value("string"),
        "reason": Value("string"),
        "importance": Value("int32"),
        "subtype": Value("string"),
        "kind": Value("string"),
    }
    columns = {
        "id": Value("string"),
        "image": Image(),
        "caption": Value("string"),
        "defects": List(defect),
        "reasoning": Value("string"),
        "generator": Value("string"),
        "split": Value("string"),
        "objects": List({"kind": Value("string"), "colour": Value("string"), "box": box}),
        "provenance": Value("string"),
    }
    if with_clean_image:
        columns["clean_image"] = Image()
    return Features(columns)


def _png(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


def _encoded(record: Record, embed: bool) -> dict[str, Any]:
    """The picture of a record, as its file has it where it comes from one."""
    file = record.image_file
    if file is None:
        return _png(record.image)
    if embed:
        return {"bytes": file.encoded(), "path": Path(file.path).name if file.path else None}
    return {"bytes": file.data, "path": file.path}


def to_row(record: Record, with_clean_image: bool = False, embed: bool = True) -> dict[str, Any]:
    """The record as a row of :func:`features`.

    Args:
        record: the record.
        with_clean_image: whether the row has the column ``clean_image``.
        embed: whether the row holds the picture itself: the bytes of its file, or PNG where there is no file. Else a
            picture in a file is named by its path.

    Raises:
        ValueError: for a picture that nobody looked at: written down it would be a clean one.
    """
    if record.defects.parse_error is not None:
        raise ValueError(
            f"record {record.id!r} is not annotated ({record.defects.parse_error}), and is written nowhere"
        )
    kinds = record.kinds or (None,) * len(record.defects)
    row = {
        "id": record.id,
        "image": _encoded(record, embed),
        "caption": record.caption,
        "defects": [
            {
                "box": list(d.box),
                "type": d.type.value,
                "reason": d.reason,
                "importance": d.importance,
                "subtype": d.subtype,
                "kind": kind,
            }
            for d, kind in zip(record.defects, kinds, strict=True)
        ],
        "reasoning": record.defects.reasoning,
        "generator": record.generator,
        "split": record.split,
        "objects": [dict(o) for o in record.objects],
        "provenance": json.dumps(dict(record.provenance)) if record.provenance else None,
    }
    if with_clean_image:
        row["clean_image"] = None if record.clean_image is None else _png(record.clean_image)
    return row


def _image(value: Any) -> Image.Image:
    if isinstance(value, Mapping):
        value = io.BytesIO(value["bytes"]) if value.get("bytes") else value["path"]
    return (value if isinstance(value, Image.Image) else Image.open(value)).convert("RGB")


def from_row(row: Mapping[str, Any]) -> Record:
    """The record of a row of :func:`features`; the image may be decoded or still ``{"bytes", "path"}``.

    Raises:
        ValueError: naming the record, the defect (by index), the field and the value.
    """
    items = row.get("defects") or []
    try:
        defects = DefectSet.of(items)
    except ValueError as error:
        raise ValueError(f"record {row.get('id')!r}: {error}") from None
    kinds = tuple(item.get("kind") or "" for item in items)
    caption = row.get("caption") or ""
    return Record(
        image=_image(row["image"]),
        caption=caption,
        defects=DefectSet(defects.defects, caption=caption, reasoning=row.get("reasoning")),
        id=row.get("id") or "",
        generator=row.get("generator"),
        split=row.get("split"),
        kinds=kinds if any(kinds) else (),
        objects=tuple(row.get("objects") or ()),
        clean_image=_image(row["clean_image"]) if row.get("clean_image") else None,
        provenance=json.loads(row["provenance"]) if row.get("provenance") else {},
    )


def to_dataset(records: Iterable[Record], with_clean_image: bool = False) -> Dataset:
    """Records as a ``datasets.Dataset`` in memory."""
    from datasets import Dataset

    rows = [to_row(record, with_clean_image) for record in records]
    return Dataset.from_list(rows, features=features(with_clean_image))


def load_records(source: str | Path) -> Dataset:
    """A data set of record rows from a parquet file, or from a folder of them.

    Raises:
        FileNotFoundError: where there is no parquet file.
    """
    from datasets import load_dataset

    path = Path(source)
    files = sorted(str(f) for f in path.glob("*.parquet")) if path.is_dir() else [str(path)]
    if not files or not Path(files[0]).exists():
        raise FileNotFoundError(f"{path}: no parquet file of records there")
    data = load_dataset("parquet", data_files=files, split="train")
    return data.cast(features("clean_image" in data.column_names))


def write_records(records: Iterable[Record], out: str | Path, form: Form = "parquet") -> int:
    """Write records as they come, in bounded memory. Files are put in place when they are whole.

    Pictures that come from a file are written as that file has them, others as PNG. ``clean_image`` is not written.

    Args:
        records: any number.
        out: for ``parquet``, a file ``*.parquet`` or a folder of parts, which ``datasets.load_dataset`` reads; for
            ``imagefolder`` a folder with ``metadata.parquet`` and the pictures in ``images/``, which it reads, too; for
            ``jsonl`` a file, in which pictures are named by their path, or stand in their line where they have none.
        form: ``parquet``, ``imagefolder`` or ``jsonl``.

    Returns:
        How many were written.

    Raises:
        FileExistsError: where ``out`` holds something already.
        ValueError: for an unknown form.
    """
    if form not in get_args(Form):
        raise ValueError(f"form={form!r} is none of {', '.join(get_args(Form))}")
    path = Path(out)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists():
        raise FileExistsError(f"{path} exists already; records are written to a new place")
    if form == "jsonl":
        return _write_lines(records, path)
    if form == "imagefolder":
        return _write_folder(records, path)
    rows = (to_row(record) for record in records)
    if path.suffix == ".parquet":
        return _write_parquet(rows, [path], features())
    path.mkdir(parents=True)
    return _write_parquet(rows, (path / f"part-{k:05d}.parquet" for k in range(10**5)), features())


def _write_lines(records: Iterable[Record], path: Path) -> int:
    count = 0
    with whole(path) as lines:
        for record in records:
            row = to_row(record, embed=False)
            image = row["image"]
            named = image["bytes"] is None
            row["image"] = (
                Path(os.path.relpath(image["path"], path.absolute().parent)).as_posix()
                if named
                else EMBEDDED + base64.b64encode(image["bytes"]).decode("ascii")
            )
            row["provenance"] = dict(record.provenance)
            lines.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            count += 1
    return count


def _write_folder(records: Iterable[Record], path: Path) -> int:
    from datasets import Features, Value

    (path / "images").mkdir(parents=True)
    columns = {name: feature for name, feature in features().items() if name != "image"}

    def rows() -> Iterator[dict[str, Any]]:
        for number, record in enumerate(records):
            row = to_row(record)
            data = row.pop("image")["bytes"]
            with Image.open(io.BytesIO(data)) as image:
                suffix = _SUFFIXES.get(image.format or "")
            if suffix is None:
                suffix, data = ".png", _png(record.image)["bytes"]
            name = f"images/{number:06d}{suffix}"
            (path / name).write_bytes(data)
            yield {"file_name": name, **row}

    # The table comes last: pictures without one are no records yet.
    return _write_parquet(rows(), [path / "metadata.parquet"], Features({"file_name": Value("string"), **columns}))


def _write_parquet(rows: Iterable[dict[str, Any]], files: Iterable[Path], columns: Features) -> int:
    """Rows to as many of the files as it takes; with one file all go there. The first is written in any case."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = columns.arrow_schema
    one = isinstance(files, list)
    left = iter(rows)
    count, more = 0, True
    for file in files:
        with whole(file) as target, ParquetWriter(target, schema) as writer:
            written = 0
            while more and (one or written < _PART_BYTES):
                batch, size = _batch(left)
                more = len(batch) == _FLUSH_ROWS or size >= _FLUSH_BYTES
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
                count, written = count + len(batch), written + size
        if not more:
            break
    return count


def _batch(rows: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The next rows, and how many bytes their pictures take."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row["image"]["bytes"]) if "image" in row else 0
        if len(batch) == _FLUSH_ROWS or size >= _FLUSH_BYTES:
            break
    return batch, size


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name when it is whole."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
