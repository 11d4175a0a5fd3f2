"""What became of pictures, on the terminal and as overlays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from sdg.cli.shared import PICTURE_FILES, err, out, writable_picture
from sdg.defects import DefectType

if TYPE_CHECKING:
    from sdg.jobs.run import Outcome, Picture

COLOURS = {DefectType.ARTIFACT: "dark_orange", DefectType.MISALIGNMENT: "dodger_blue1"}
FAILURES_SHOWN = 20


def print_outcome(outcome: Outcome) -> None:
    """A table of the defects, or a line where there are none."""
    name = Text(_printable(outcome.picture.name), style="bold")
    found = outcome.found
    if outcome.failure is not None:
        out.print(name + Text(f": {_printable(outcome.failure)}", style="red not bold"), soft_wrap=True)
        if outcome.error is None and found is not None and found.raw:
            out.print(Text(f"  the model wrote: {found.raw[:300]!r}", style="dim"), soft_wrap=True)
        return
    dropped = 0 if found is None else found.info.get("dropped_below_confidence", 0)
    doubtful = f"{dropped} below --min-confidence left out" if dropped else ""
    if not found:
        clean = f": no defect found{f' ({doubtful})' if doubtful else ''}"
        out.print(name + Text(clean, style="green not bold"), soft_wrap=True)
        return
    table = Table(title=name, title_justify="left", expand=False)
    sure = any(defect.confidence is not None for defect in found)
    for column in ("#", "type", "importance", *(["confidence"] if sure else []), "box"):
        table.add_column(column, no_wrap=True)
    table.add_column("what is wrong", ratio=1, overflow="fold")
    for number, defect in enumerate(found.by_importance(), start=1):
        table.add_row(
            str(number),
            Text(defect.type.value, style=COLOURS[defect.type]),
            "not given" if defect.importance is None else f"{defect.importance} {defect.tier}",
            *(["-" if defect.confidence is None else f"{defect.confidence:.2f}"] if sure else []),
            ", ".join(map(str, defect.box)),
            Text(_printable(defect.reason)),
        )
    out.print(table)
    if doubtful:
        out.print(Text(f"  {doubtful}", style="dim"))


class Strangers:
    """The pictures that lie outside the model's world: how many of them there are."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, outcome: Outcome, told: bool) -> None:
        """Note a picture that does; where it is told of, in a sentence on stderr."""
        from sdg.calibration import outside_sentence

        sentence = None if outcome.found is None else outside_sentence(outcome.found)
        if sentence is None:
            return
        self.count += 1
        if told:
            err.print(Text(f"{_printable(outcome.picture.name)}: {sentence}", style="yellow"), soft_wrap=True)

    def print(self, done: int) -> None:
        """Sum up on stderr, of so many pictures."""
        note = f"{self.count} of {done} pictures are unlike those that the model was trained on: do not rely on those"
        err.print(Text(f"{note} answers (out_of_world in their info)", style="yellow"), soft_wrap=True)


class Failures:
    """The pictures that failed: how many, and the first few by name, so that a long job needs no memory for them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, outcome: Outcome) -> None:
        """Note a picture that failed."""
        self.count += 1
        if len(self.first) < FAILURES_SHOWN:
            self.first.append(_printable(f"{outcome.picture.name}: {outcome.failure}"))

    def print(self, done: int) -> None:
        """Name them on stderr, of so many pictures."""
        err.print(Text(f"{self.count} of {done} pictures failed:"))
        for line in self.first:
            err.print(Text(f"  {line}"), soft_wrap=True)
        if self.count > len(self.first):
            err.print(Text(f"  and {self.count - len(self.first)} more"))


class Overlays:
    """Where drawn pictures go: one file for a single picture, else a folder.

    Args:
        place: what ``--overlay`` says.
        single: whether there is but one picture.

    Raises:
        typer.BadParameter: for a place that cannot be written to.
    """

    def __init__(self, place: Path, single: bool) -> None:
        from sdg.jobs.pictures import Names

        self.place = place
        self.folder = not (single and place.suffix.lower() in PICTURE_FILES and not place.is_dir())
        self._names = Names(place)
        if not self.folder:
            writable_picture(place)
            return
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"--overlay {place} cannot be made a folder: {error}") from None

    def target(self, picture: Picture) -> Path:
        """The file of the next picture; pictures of the same name get numbers, in their order."""
        return self._names.take(picture) if self.folder else self.place


def drawn(outcome: Outcome, target: Path) -> Outcome:
    """Write the overlay; a picture whose answer could not be read gets none, for it would look clean."""
    if outcome.failure is not None or outcome.image is None or outcome.found is None:
        return outcome
    from dataclasses import replace

    from sdg.draw import overlay

    try:
        overlay(outcome.image, outcome.found).save(target)
    except OSError as error:
        return replace(outcome, error=f"{target} could not be written: {error}")
    return outcome


def _printable(text: str) -> str:
    """File names need not be valid Unicode; terminals want it."""
    return text.encode("utf-8", "backslashreplace").decode()
