"""``sdg detect``: pictures in; tables, JSON lines or overlays out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sdg.cli import shared
from sdg.cli.shared import PICTURE_FILES, err, out, writable_picture
from sdg.defects import DefectSet, DefectType

if TYPE_CHECKING:
    from PIL import Image

COLOURS = {DefectType.ARTIFACT: "dark_orange", DefectType.MISALIGNMENT: "dodger_blue1"}


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: its defects, or the sentence that says why there are none."""

    path: str
    image: Image.Image | None = None
    found: DefectSet | None = None
    error: str | None = None

    @property
    def failure(self) -> str | None:
        """Why this picture failed; an answer that could not be read is a failure, not a clean picture."""
        if self.error is not None or self.found is None:
            return self.error or "no answer"
        return None if self.found.parse_error is None else f"the answer could not be read: {self.found.parse_error}"


def detect(
    images: Annotated[list[str], typer.Argument(help="Picture files.", metavar="IMAGE", show_default=False)],
    caption: Annotated[
        str | None,
        typer.Option(help="The prompt that the pictures were made from; without it only artifacts are looked for."),
    ] = None,
    model: Annotated[str, typer.Option(help="Embedded checkpoint, local folder or Hub id.")] = "sdg-tiny",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line instead of tables.")] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write the pictures with their defects drawn: a picture file for one picture, else a folder.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures that the model answers at a time.")] = 8,
) -> None:
    """Find the defects of pictures.

    A picture that fails is reported and the others go on. Exit code: 0, 1 where a picture failed, 2 for wrong usage.

    \b
    Examples:
      sdg detect picture.png --caption "a red house beside a lake"
      sdg detect renders/*.png --caption "a red house" --json > defects.jsonl
      sdg detect picture.png --caption "a red house" --overlay marked.png
      sdg detect picture.png --model P1n3/sdg-detector-grpo
    """
    targets = _targets(images, overlay)
    detector = shared.load_detector(model)
    if detector.made_for is not None:
        from sdg.detector import FULL_MODEL

        note = f"{model} was made for {detector.made_for} only: what it says about other pictures means nothing"
        err.print(Text(f"{note} (--model {FULL_MODEL} is made for those)", style="yellow"), soft_wrap=True)
    failures = []
    for outcome, target in zip(_outcomes(detector, images, caption, batch_size), targets, strict=True):
        outcome = _drawn(outcome, target)
        if outcome.failure is not None:
            failures.append(outcome)
        if as_json:
            typer.echo(_json_line(outcome))
        else:
            _print(outcome)
        if target is not None and outcome.error is None and outcome.failure is None:
            err.print(Text(f"{target} written"))
    if failures and len(images) > 1:
        err.print(Text(f"{len(failures)} of {len(images)} pictures failed:"))
        for outcome in failures:
            err.print(Text(f"  {outcome.path}: {outcome.failure}"), soft_wrap=True)
    raise typer.Exit(1 if failures else 0)


def _targets(images: Sequence[str], overlay: Path | None) -> list[Path | None]:
    """Where the drawn picture of each image goes."""
    if overlay is None:
        return [None] * len(images)
    if len(images) == 1 and overlay.suffix.lower() in PICTURE_FILES and not overlay.is_dir():
        writable_picture(overlay)
        return [overlay]
    try:
        overlay.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"--overlay {overlay} cannot be made a folder: {error}") from None
    taken: set[str] = set()
    targets: list[Path | None] = []
    for image in images:
        stem = Path(image).stem or "picture"
        name = next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(images) + 2))) if n not in taken)
        taken.add(name)
        targets.append(overlay / f"{name}.png")
    return targets


def _outcomes(detector: Any, images: Sequence[str], caption: str | None, batch_size: int) -> Iterator[Outcome]:
    """One outcome an image, in order, as they come."""
    from sdg.engines.images import ImageError, open_image

    waiting = iter(images)
    while paths := list(islice(waiting, batch_size)):
        batch: list[Outcome] = []
        for path in paths:
            try:
                batch.append(Outcome(path, open_image(path)))
            except ImageError as error:
                batch.append(Outcome(path, error=str(error)))
        answers = iter(_answers(detector, [o.image for o in batch if o.image is not None], caption))
        for outcome in batch:
            if outcome.image is None:
                yield outcome
                continue
            answer = next(answers)
            if isinstance(answer, DefectSet):
                yield Outcome(outcome.path, outcome.image, answer)
            else:
                yield Outcome(outcome.path, error=f"{type(answer).__name__}: {answer}")


def _answers(detector: Any, images: list[Image.Image], caption: str | None) -> list[DefectSet | Exception]:
    """The sets of a batch. Where a batch fails its pictures go one by one, so that one does not cost its neighbours."""
    if not images:
        return []
    try:
        return list(detector(images, [caption] * len(images), batch_size=len(images)))
    except Exception as error:
        if len(images) == 1:
            return [error]
    return [answer for image in images for answer in _answers(detector, [image], caption)]


def _drawn(outcome: Outcome, target: Path | None) -> Outcome:
    """Write the overlay; a picture whose answer could not be read gets none, for it would look clean."""
    if target is None or outcome.failure is not None or outcome.image is None or outcome.found is None:
        return outcome
    from sdg.draw import overlay

    try:
        overlay(outcome.image, outcome.found).save(target)
    except OSError as error:
        return Outcome(outcome.path, outcome.image, outcome.found, error=f"{target} could not be written: {error}")
    return outcome


def _json_line(outcome: Outcome) -> str:
    fields = {"image": outcome.path} if outcome.found is None else {"image": outcome.path, **outcome.found.to_json()}
    if outcome.error is not None:
        fields["error"] = outcome.error
    return json.dumps(fields, ensure_ascii=False)


def _print(outcome: Outcome) -> None:
    name = Text(outcome.path, style="bold")
    if outcome.failure is not None:
        out.print(name + Text(f": {outcome.failure}", style="red not bold"), soft_wrap=True)
        if outcome.error is None and outcome.found is not None and outcome.found.raw:
            out.print(Text(f"  the model wrote: {outcome.found.raw[:300]!r}", style="dim"), soft_wrap=True)
        return
    found = outcome.found
    if not found:
        out.print(name + Text(": no defect found", style="green not bold"), soft_wrap=True)
        return
    table = Table(title=name, title_justify="left", expand=False)
    for column in ("#", "type", "importance", "box"):
        table.add_column(column, no_wrap=True)
    table.add_column("what is wrong", ratio=1, overflow="fold")
    for number, defect in enumerate(found.by_importance(), start=1):
        table.add_row(
            str(number),
            Text(defect.type.value, style=COLOURS[defect.type]),
            "not given" if defect.importance is None else f"{defect.importance} {defect.tier}",
            ", ".join(map(str, defect.box)),
            Text(defect.reason),
        )
    out.print(table)
