"""What the Evaluate tab and its endpoint do with the files that they are sent; bounded, whoever sends them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from sdg.embedding import PAPER, Embedder, EmbedderNotFound, load_embedder
from sdg.web.uploads import Upload, upload

if TYPE_CHECKING:
    from sdg.evaluation.files import PredictionLine, ReferenceLine
    from sdg.evaluation.scoring import Lines, Scored
    from sdg.evaluation.worst import ImageErrors

log = logging.getLogger(__name__)

MAX_MEGABYTES = 20
MAX_IMAGES = 20_000
MAX_DEFECTS = 100_000
MAX_DEFECTS_PER_IMAGE = 300
MAX_REASONS = 20_000
MAX_COLUMNS = 6
MAX_PARTS = 50
"""Bounds of what one visitor may ask; the command line has none of them."""

MATCHINGS = ("hungarian", "greedy")
ORDERS = ("xyxy", "yxyx")
EMBEDDERS = ("auto", "none", PAPER)
"""Any other name could be a folder of the server, or any download."""

PICTURE_FIELDS = ("image", "filename", "filepath", "image_path", "id")
"""Fields that a dropped picture's name is compared with; what they say is never opened."""

WORST = 12


@dataclass(frozen=True)
class Options:
    """How to score.

    Args:
        matching: one of :data:`MATCHINGS`.
        ci: level of the intervals, 0 for none.
        embedder: one of :data:`EMBEDDERS`.
        order: one of :data:`ORDERS`, that of the predictions' coordinates.
        by: fields to break down by; None for those that offer themselves.
    """

    matching: str = "hungarian"
    ci: float = 0.95
    embedder: str = "auto"
    order: str = "xyxy"
    by: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, known in (("matching", MATCHINGS), ("embedder", EMBEDDERS), ("order", ORDERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r:.80} is none of {', '.join(known)}")
        if isinstance(self.ci, bool) or not isinstance(self.ci, int | float) or not 0 <= self.ci < 1:
            raise ValueError(f"ci={self.ci!r:.80} is neither a level between 0 and 1, such as 0.95, nor 0 for none")
        if self.by is not None and (isinstance(self.by, str) or not all(isinstance(name, str) for name in self.by)):
            raise ValueError(f"by={self.by!r:.80} is not a list of field names")
        if self.by is not None and len(self.by) > MAX_COLUMNS:
            raise ValueError(f"by names {len(self.by)} fields, more than {MAX_COLUMNS}")


@dataclass(frozen=True)
class Unread:
    """A prediction that could not be read: of which image, why, and how it starts."""

    image: str
    why: str
    text: str


@dataclass(frozen=True)
class Outcome:
    """What was found in the files.

    Args:
        scored: report and tables of counts.
        lines: what was read.
        worst: where predictions and references differ most, the worst first.
        unread: the predictions that could not be read.
        warnings: sentences that a reader of the figures must know.
    """

    scored: Scored
    lines: Lines
    worst: list[ImageErrors]
    unread: list[Unread]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The report's fields, and ``warnings``, ``worst_images`` and ``unread``."""
        worst = [
            {
                "image": self.name(e.image),
                "found": e.found,
                "missed": e.missed,
                "false_alarms": e.false_alarms,
                "readable": e.readable,
            }
            for e in self.worst
        ]
        unread = [{"image": u.image, "why": u.why} for u in self.unread]
        report: dict[str, Any] = json.loads(self.scored.report.to_json())
        return report | {"warnings": self.warnings, "worst_images": worst, "unread": unread}

    def name(self, image: int) -> str:
        """What the files call an image."""
        return called(self.lines.references[image])


def called(line: ReferenceLine | PredictionLine) -> str:
    """The id of a line, else its image, else its number."""
    for key in ("id", "image"):
        if line.fields.get(key) is not None:
            return str(line.fields[key])[:120]
    return line.where.rpartition(", ")[2]


def score(predictions: Any, references: Any, against: Any, options: Options) -> Outcome:
    """Score uploaded files.

    Args:
        predictions: what the browser or a program sent, see :func:`sdg.web.uploads.upload`.
        references: as above.
        against: as above, or None.
        options: how.

    Raises:
        ValueError: in a sentence for the visitor, who is told the names of the files and not where they lie.
    """
    sets = {"predictions": _sent(predictions, "predictions")}
    truth = _sent(references, "references")
    if against:
        sets["against"] = _sent(against, "other predictions")
    try:
        return _score(sets, truth, options)
    except EmbedderNotFound as error:
        log.warning("%s", error)
        raise ValueError(
            f"{options.embedder} could not be loaded on this server: compare reasons by another model, or not at all."
        ) from error
    except ValueError as error:
        told = str(error)
        for file in (*sets.values(), truth):
            told = told.replace(str(file.path), file.name)
        raise ValueError(told) from error


def _sent(value: Any, what: str) -> Upload:
    if not value:
        raise ValueError(f"There are no {what} yet: drop a file of JSON lines or choose an example.")
    file = upload(value, f"The {what}")
    size = file.path.stat().st_size
    if size > MAX_MEGABYTES * 10**6:
        raise ValueError(
            f"{file.name} has {size / 10**6:.0f} MB, more than the {MAX_MEGABYTES} MB that this page takes: score it "
            "with the command sdg eval, which has no bound."
        )
    return file


def _score(sets: Mapping[str, Upload], truth: Upload, options: Options) -> Outcome:
    from sdg.evaluation import SDGEval, worst_images
    from sdg.evaluation.scoring import read_lines, score_lines

    for file in (*sets.values(), truth):
        _check_lines(file)
    order: Any = options.order
    lines = read_lines({key: file.path for key, file in sets.items()}, truth.path, order)
    names = {key: file.name for key, file in sets.items()}
    if len(set(names.values())) < len(names):
        names = {key: f"{name} ({key})" for key, name in names.items()}
    _check_defects(truth.name, [line.defects for line in lines.references])
    for key, found in lines.predictions.items():
        _check_defects(names[key], [line.defects for line in found])
    by = lines.columns()[:MAX_COLUMNS] if options.by is None else list(dict.fromkeys(options.by))
    _check_parts(lines, by)
    embedder = None if options.embedder == "none" else _embedder(options.embedder)
    if embedder is not None:
        _check_reasons(lines)
    matching: Any = options.matching
    scored = score_lines(lines, SDGEval(embedder, matching, options.ci or None), names, by)
    unread = [
        Unread(called(line), str(line.defects.parse_error)[:300], (line.defects.raw or "").strip()[:160])
        for line in lines.predictions["predictions"]
        if line.defects.parse_error is not None
    ]
    worst = worst_images(scored.tables["predictions"], WORST)
    return Outcome(scored, lines, worst, unread, _warnings(scored, options))


def _check_lines(file: Upload) -> None:
    content = file.path.read_bytes()
    lines = content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")  # all that end a line when it is read
    if lines > MAX_IMAGES:
        raise ValueError(
            f"{file.name} has {lines:,} lines, more than the {MAX_IMAGES:,} that this page takes: score it with the "
            "command sdg eval, which has no bound."
        )


def _check_defects(name: str, images: Sequence[Any]) -> None:
    for place, defects in enumerate(images, start=1):
        if len(defects) > MAX_DEFECTS_PER_IMAGE:
            raise ValueError(
                f"{name}: image {place} has {len(defects):,} defects, more than the {MAX_DEFECTS_PER_IMAGE} that this "
                "page takes"
            )
    total = sum(map(len, images))
    if total > MAX_DEFECTS:
        raise ValueError(f"{name} has {total:,} defects, more than the {MAX_DEFECTS:,} that this page takes")


def _check_parts(lines: Lines, by: Iterable[str]) -> None:
    for name in by:
        for side in (lines.references, lines.predictions["predictions"]):
            values = {str(line.fields.get(name)) for line in side}
            if len(values) > MAX_PARTS:
                raise ValueError(f"{name} has {len(values):,} values, too many to break down by (at most {MAX_PARTS})")
    subtypes = {str(d.get("subtype")) for line in lines.references for d in line.defects if isinstance(d, Mapping)}
    if len(subtypes) > MAX_PARTS:
        raise ValueError(f"the references have {len(subtypes):,} subtypes, more than {MAX_PARTS}")


def _check_reasons(lines: Lines) -> None:
    reasons = {d.reason for found in lines.predictions.values() for line in found for d in line.defects}
    if len(reasons) > MAX_REASONS:
        raise ValueError(
            f"The predictions give {len(reasons):,} different reasons, more than the {MAX_REASONS:,} that this page "
            "compares: choose not to compare reasons."
        )


@cache
def _loadable(name: str) -> Embedder:
    return load_embedder(name)


def _embedder(name: str) -> Embedder | str:
    """The embedder, loaded once for all visitors; its name where there is none, so that the result says why."""
    try:
        return _loadable(name)
    except EmbedderNotFound:
        return name


def _warnings(scored: Scored, options: Options) -> list[str]:
    names, warnings = scored.report.names, []
    other = next(order for order in ORDERS if order != options.order)
    for key, (given, exchanged) in scored.transposed.items():
        warnings.append(
            f"{names[key]}: {given} boxes fit a reference as they are, {exchanged} with x and y exchanged. Its "
            f"coordinates look like {other}: choose that order of coordinates and score again."
        )
    for key, table in scored.tables.items():
        unread = len(table) - int(table.columns["readable"].sum())
        if unread:
            warnings.append(
                f"{names[key]}: {unread} of {len(table)} answers could not be read. They count as no prediction, which "
                "is not the same as a clean picture."
            )
    result = scored.report.results["predictions"]
    if result["embedder"] is None and options.embedder != "none":
        warnings.append(f"DescCos is undefined: {result['desc_cos_note']}.")
    return warnings


def pictures_by_name(sent: Any) -> dict[str, Upload]:
    """Uploaded pictures by name, with and without its ending.

    Raises:
        ValueError: where one is no upload.
    """
    files = [upload(item, "A picture") for item in sent or []]
    return {PurePath(file.name).stem: file for file in files} | {file.name: file for file in files}


def picture_of(line: ReferenceLine, pictures: Mapping[str, Upload]) -> Upload | None:
    """The uploaded picture that a line is of; its fields are compared with names, and never opened as paths."""
    for field in PICTURE_FIELDS:
        value = line.fields.get(field)
        if isinstance(value, str | int):
            name = PureWindowsPath(str(value)).name
            found = pictures.get(name) or pictures.get(PurePath(name).stem)
            if found is not None:
                return found
    return None
